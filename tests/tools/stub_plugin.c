/* Stands for a plugin of NIXL's that crashes when it is asked. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

void *nixl_plugin_init(void);

void *nixl_plugin_init(void) {
    abort();
}
