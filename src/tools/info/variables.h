/* The environment variables that are read, by whom, and what they mean: src/doc/environment.md tells them at length.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_INFO_VARIABLES_H
#define TOOLS_INFO_VARIABLES_H

#include <stddef.h>

enum reader { READER_LIBRARY, READER_PYTHON, READER_SCRIPTS, READER_TOOLS, READER_NIXL, READER_MOONCAKE };

struct variable {
    const char *name;
    enum reader reader;
    const char *meaning;
};

extern const struct variable variables[];
extern const size_t variable_count;

const char *reader_text(enum reader reader);

#endif
