/* Copies structs of the public interface in and out, by their users' size. SPDX-License-Identifier: Apache-2.0 */
#include "api/abi.h"

#include <string.h>

#include "base/base.h"
#include "base/error.h"

const char *nvlx_version(void) {
#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
    return TEXT(NVLX_VERSION_MAJOR) "." TEXT(NVLX_VERSION_MINOR) "." TEXT(NVLX_VERSION_PATCH);
}

/* Whatever its fields are, a struct with a size_t has such a size, in every version: any other ends inside a field. */
static int check_size(size_t size, const char *name, const char *remedy) {
    if (size < sizeof size || size > 65536 || size % sizeof size)
        return nvlxi_fail(NVLX_EINVAL, "struct %s has size %zu, as in no version: %s", name, size, remedy);
    return 0;
}

int nvlxi_struct_take(void *known, size_t known_size, const void *given, const char *name) {
    size_t size;
    if (!given)
        return 0;
    memcpy(&size, given, sizeof size);
    int code = check_size(size, name, "it was not set by its init function");
    if (code)
        return code;
    for (size_t i = known_size; i < size; i++)
        if (((const char *)given)[i])
            return nvlxi_fail(NVLX_ENOTSUP, "struct %s sets byte %zu, which this version (%s) does not know", name, i,
                              nvlx_version());
    memcpy(known, given, nvlxi_min(size, known_size));
    memcpy(known, &known_size, sizeof known_size);
    return 0;
}

int nvlxi_array_check(const void *given, struct nvlxi_array array, const char *name) {
    size_t size;
    memcpy(&size, given, sizeof size);
    return size <= array.from || size >= array.to
               ? 0
               : nvlxi_fail(NVLX_EINVAL, "struct %s has size %zu, which ends inside an array", name, size);
}

int nvlxi_struct_give(void *given, const void *made, size_t made_size, struct nvlxi_array array, const char *name) {
    size_t size;
    if (!given)
        return nvlxi_fail(NVLX_EINVAL, "struct %s is NULL", name);
    memcpy(&size, given, sizeof size);
    int code = check_size(size, name, "set it by sizeof");
    if (code || (code = nvlxi_array_check(given, array, name)))
        return code;
    memset(given, 0, size);
    memcpy(given, made, nvlxi_min(size, made_size));
    memcpy(given, &size, sizeof size);
    return 0;
}
