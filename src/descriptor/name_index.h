/* Which region has a name: an index that is built at once, or grows name by name while it is small.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * It is sorted by hash, and among equal hashes by name, so that names made to have equal hashes cost no more than a
 * sort; and it takes 8 bytes a name. */
#ifndef NVLXI_DESCRIPTOR_NAME_INDEX_H
#define NVLXI_DESCRIPTOR_NAME_INDEX_H

#include "base/records.h"

#ifdef __cplusplus
extern "C" {
#endif

struct nvlxi_name_index {
    uint64_t *entry; /* the upper bits of a name's hash, then its region's index */
    size_t count;
};

/* Indexes the names of at most NVLXI_REGIONS_MAX regions, except for empty ones. NVLX_ENOMEM, or NVLX_EINVAL if two are
 * equal: *twin is the first region, and *region the next, of such a name. */
int nvlxi_name_index_build(const struct nvlxi_region_record *regions, size_t count, struct nvlxi_name_index *index,
                           size_t *region, size_t *twin);
/* Puts in the name of region `region`, which no other in the index has, or takes it out. There is room; `entry` stays.
 */
void nvlxi_name_index_insert(struct nvlxi_name_index *index, const struct nvlxi_region_record *regions, size_t region);
void nvlxi_name_index_remove(struct nvlxi_name_index *index, const struct nvlxi_region_record *regions, size_t region);
void nvlxi_name_index_free(struct nvlxi_name_index *index);

/* The region of that name, or NULL. `regions`: those of which the index was built. */
const struct nvlxi_region_record *nvlxi_name_index_find(const struct nvlxi_name_index *index,
                                                        const struct nvlxi_region_record *regions, const char *name);

#ifdef __cplusplus
}
#endif

#endif
