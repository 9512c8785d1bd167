/* A function of a library that was opened at run time.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_COMMON_SYMBOL_H
#define TOOLS_COMMON_SYMBOL_H

#include <dlfcn.h>
#include <string.h>

/* `function` is where a pointer to it goes. One that is missing is NULL: what it would tell is not told. */
static inline void symbol_find(void *library, void *function, const char *name) {
    void *found = dlsym(library, name);
    memcpy(function, &found, sizeof found);
}

#endif
