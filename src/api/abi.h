/* Structs that cross the public interface: each begins with its size as its user knows it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_API_ABI_H
#define NVLXI_API_ABI_H

#include <stddef.h>

/* Copies what the caller filled over the defaults in `known`: an older caller's missing tail keeps them; a newer
 * caller's tail must be zero. NULL changes nothing. NVLX_EINVAL: also for a size that ends inside a field.
 * NVLX_ENOTSUP. */
int nvlxi_struct_take(void *known, size_t known_size, const void *given, const char *name);

struct nvlxi_array { /* in a struct: bytes from one to before the other */
    size_t from, to;
};

/* That the caller's struct, which is not NULL, has all of an array, or nothing. NVLX_EINVAL. */
int nvlxi_array_check(const void *given, struct nvlxi_array array, const char *name);

/* Gives as much of `made` as the caller's struct has room for; an array whole, or not at all. NVLX_EINVAL. */
int nvlxi_struct_give(void *given, const void *made, size_t made_size, struct nvlxi_array array, const char *name);

#endif
