/* Reads small files. SPDX-License-Identifier: Apache-2.0 */
#include "doctor/files.h"

#include <stdio.h>
#include <string.h>

bool file_read(const char *path, char *text, size_t size) {
    FILE *file = fopen(path, "re");
    const bool read = file && fgets(text, (int)size, file);
    if (file)
        fclose(file);
    if (read)
        text[strcspn(text, "\n")] = '\0';
    return read;
}
