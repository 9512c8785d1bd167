/* The words for kinds of memory, NVLX_KIND_...
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_COMMON_KIND_H
#define TOOLS_COMMON_KIND_H

#include <stdint.h>

static inline const char *kind_text(uint32_t kind) {
    static const char *const texts[] = {"unknown", "cuda_malloc", "vmm", "pool", "fabric", "host"};
    return kind < sizeof texts / sizeof texts[0] ? texts[kind] : texts[0];
}

#endif
