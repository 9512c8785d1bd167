/* Stands for a plugin of NIXL's that crashes when it is asked, and for a library of NIXL's that crashes when it is
 * loaded, where STUB_PLUGIN says so. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

void *nixl_plugin_init(void);

static __attribute__((constructor)) void crash_early(void) {
    if (getenv("STUB_PLUGIN"))
        abort();
}

void *nixl_plugin_init(void) {
    abort();
}
