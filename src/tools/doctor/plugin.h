/* Tries NIXL's plugin, as NIXL would load it: apart from the libraries that this process has.
 *
 * nvlx_info has loaded a libnvlxfer.so.0 itself. A plain dlopen would give it to the plugin, which then loads here and
 * nowhere else. So the plugin goes into a namespace of its own (dlmopen), with libraries that the loader finds for it.
 * NIXL's library goes there first, if one is given: then the plugin's own guard is asked whether it knows that NIXL.
 * Nothing else tells which versions it knows.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_DOCTOR_PLUGIN_H
#define TOOLS_DOCTOR_PLUGIN_H

#include <limits.h>
#include <stdbool.h>

#define PLUGIN_FILE "libplugin_NVLX.so"

struct plugin_trial {
    bool loads;             /* and has nixl_plugin_init */
    char why[1024];         /* why not; "": it does, or NIXL's library has crashed before */
    bool begun;             /* NIXL's library was tried, and then the plugin */
    char nixl_why[1024];    /* why NIXL's library does not load; "": it does, or none was given */
    char library[PATH_MAX]; /* what the plugin takes as libnvlxfer.so.0; "": it takes none */
    char library_version[64];
    bool asked;      /* the plugin's guard was, */
    bool admitted;   /* and lets this NIXL load it */
    char said[1024]; /* by the guard; "": nothing */
};

/* In this process, which is to end soon: what was loaded stays. `nixl` is the path of a libnixl.so, or NULL. */
void plugin_load(const char *nixl, const char *plugin, struct plugin_trial *trial);

/* In a process of its own: a plugin that crashes or hangs does not load. -1: no process can be made, see errno. */
int plugin_try(const char *nixl, const char *plugin, struct plugin_trial *trial);

#endif
