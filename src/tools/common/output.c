/* Tells at exit whether stdout was written. SPDX-License-Identifier: Apache-2.0 */
#include "common/output.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *watched_tool;
static int code_if_lost;

static void check_output(void) {
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout))
        return;
    fprintf(stderr, "%s: what it tells cannot be written to stdout%s%s\n", watched_tool, errno ? ": " : "",
            errno ? strerror(errno) : "");
    _exit(code_if_lost);
}

void output_watch(const char *tool, int lost) {
    watched_tool = tool;
    code_if_lost = lost;
    atexit(check_output);
}
