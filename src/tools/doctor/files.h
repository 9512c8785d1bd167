/* Small files of /proc and /sys. SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_DOCTOR_FILES_H
#define TOOLS_DOCTOR_FILES_H

#include <stdbool.h>
#include <stddef.h>

/* The first line of a file, shortened to fit. */
bool file_read(const char *path, char *text, size_t size);

#endif
