/* Runs this program under callgrind: see callgrind.h. SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE
#include "callgrind.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool callgrind_is_here(void) {
    if (!system("valgrind --version >/dev/null 2>&1"))
        return true;
    printf("SKIP: there is no valgrind to count instructions with\n");
    return false;
}

static bool write_command(char *command, size_t room, const char *functions, const char *arguments) {
    char names[256], self[256], *rest = names, *name;
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0)
        return false;
    self[length] = '\0';
    snprintf(names, sizeof names, "%s", functions);
    size_t at = (size_t)snprintf(command, room, "valgrind --tool=callgrind --callgrind-out-file=/dev/null");
    while (at < room && (name = strsep(&rest, " ")))
        at += (size_t)snprintf(command + at, room - at, " --toggle-collect=%s", name);
    if (at < room)
        at += (size_t)snprintf(command + at, room - at, " '%s' %s 2>&1", self, arguments);
    return at < room;
}

double callgrind_count(const char *functions, const char *arguments) {
    char command[1024], line[256];
    double instructions = -1;
    FILE *output = write_command(command, sizeof command, functions, arguments) ? popen(command, "r") : NULL;
    if (!output)
        return -1;
    while (fgets(line, sizeof line, output)) {
        const char *collected = strstr(line, "Collected : ");
        if (collected)
            instructions = strtod(collected + strlen("Collected : "), NULL);
    }
    return pclose(output) ? -1 : instructions;
}
