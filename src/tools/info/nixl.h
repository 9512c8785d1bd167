/* nvlx_info --nixl: which NIXL there is, and where it looks for plugins. No Python is run: folders are looked at.
 *
 * A NIXL is a libnixl.so: of a wheel (nixl-cu12, nixl-cu13) in a folder of Python packages, or in a folder that the
 * user gives. By itself it looks in the folder "plugins" beside that file. The variable NIXL_PLUGIN_DIR puts another
 * folder in its place, as does a configuration file where the variable is not set; it looks in one folder only.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_INFO_NIXL_H
#define TOOLS_INFO_NIXL_H

#include <stdbool.h>
#include <stddef.h>

struct site { /* a folder of Python packages */
    char *folder;
    const char *origin; /* how it was found: in words */
};

struct nixl {
    const char *package; /* "nixl-cu12"; NULL: it is in no wheel */
    char *version;       /* as its wheel says; NULL: not known */
    char *library;       /* libnixl.so, there or not; NULL: only a folder of plugins was given */
    char *folder;        /* where it looks by itself */
    char *from;          /* where it was found: in words */
    char *site;          /* the folder of packages that it is in, or NULL */
};

struct nixls {
    struct site *sites;
    struct nixl *list;
    size_t site_count, count;
    bool one_python; /* all sites are on the way of one Python, in its order: it takes the first of a package */
};

/* Looks in the folders that are given; with none, in those that a Python has which is in use here. Returns the first
 * one given that is no folder, or NULL. */
const char *nixls_look(struct nixls *nixls, char **folders, size_t count);
void nixls_forget(struct nixls *nixls);

/* Whether the folder of packages has the wheel; its version goes to `version`, for the caller to free. */
bool site_has_wheel(const char *site, const char *package, char **version);

/* What takes the place of the folder in which that NIXL looks by itself. NULL: nothing does. Else `from` tells what
 * names it. The caller frees it. */
char *nixl_override(const struct nixl *nixl, char **from);

/* As asprintf; ends the process where there is no memory. nixl_find.c. */
char *text_of(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Tells all. Returns the exit code: 0: in one place it loads, and NIXL takes it if there is one, 1: nowhere, 2: a
 * folder that is none, which is named, 3: no process can be made. nixl.c. */
int info_nixl(char **folders, size_t count, bool json);

#endif
