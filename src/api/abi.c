/* SPDX-License-Identifier: Apache-2.0 */
#include "api/abi.h"

#include <string.h>

#include "base/base.h"
#include "base/error.h"

const char *nvlx_version(void) {
#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
    return TEXT(NVLX_VERSION_MAJOR) "." TEXT(NVLX_VERSION_MINOR) "." TEXT(NVLX_VERSION_PATCH);
}

int nvlxi_struct_take(void *known, size_t known_size, const void *given, const char *name) {
    size_t size;
    if (!given)
        return 0;
    memcpy(&size, given, sizeof size);
    if (size < sizeof size || size > 65536)
        return nvlxi_fail(NVLX_EINVAL, "struct %s has size %zu: it was not set by its init function", name, size);
    for (size_t i = known_size; i < size; i++)
        if (((const char *)given)[i])
            return nvlxi_fail(NVLX_ENOTSUP, "struct %s sets byte %zu, which this version (%s) does not know", name, i,
                              nvlx_version());
    memcpy(known, given, nvlxi_min(size, known_size));
    memcpy(known, &known_size, sizeof known_size);
    return 0;
}

int nvlxi_struct_give(void *given, const void *made, size_t made_size, const char *name) {
    size_t size;
    if (!given)
        return nvlxi_fail(NVLX_EINVAL, "struct %s is NULL", name);
    memcpy(&size, given, sizeof size);
    if (size < sizeof size || size > 65536)
        return nvlxi_fail(NVLX_EINVAL, "struct %s has size %zu: set it to sizeof(struct %s)", name, size, name);
    memset(given, 0, size);
    memcpy(given, made, nvlxi_min(size, made_size));
    memcpy(given, &size, sizeof size);
    return 0;
}
