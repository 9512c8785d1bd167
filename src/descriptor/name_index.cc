// Finds regions by their names. SPDX-License-Identifier: Apache-2.0
#include "descriptor/name_index.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string_view>

extern "C" {
#include "base/error.h"
}

namespace {

constexpr uint64_t INDEX_MASK = NVLXI_REGIONS_MAX - 1;
static_assert((NVLXI_REGIONS_MAX & INDEX_MASK) == 0, "an index takes whole bits");

uint64_t upper_hash(const char *name) {
    return std::hash<std::string_view>()(name) & ~INDEX_MASK;
}

const char *name_of(const nvlxi_region_record *regions, uint64_t entry) {
    return regions[entry & INDEX_MASK].name;
}

// Where the entry of a name is, or would be.
uint64_t *find_place(const nvlxi_name_index *index, const nvlxi_region_record *regions, const char *name) {
    const uint64_t hash = upper_hash(name);
    return std::lower_bound(index->entry, index->entry + index->count, name, [=](uint64_t entry, const char *wanted) {
        if ((entry & ~INDEX_MASK) != hash)
            return (entry & ~INDEX_MASK) < hash;
        return std::strcmp(name_of(regions, entry), wanted) < 0;
    });
}

} // namespace

int nvlxi_name_index_build(const nvlxi_region_record *regions, size_t count, nvlxi_name_index *index, size_t *region,
                           size_t *twin) {
    auto *const entries = static_cast<uint64_t *>(std::calloc(count + 1, sizeof(uint64_t)));
    if (entries == nullptr)
        return NVLX_ENOMEM;
    uint64_t *end = entries;
    for (size_t i = 0; i < count; i++)
        if (regions[i].name[0] != '\0')
            *end++ = upper_hash(regions[i].name) | i;
    std::sort(entries, end, [regions](uint64_t a, uint64_t b) {
        if (((a ^ b) & ~INDEX_MASK) != 0)
            return a < b;
        const int order = std::strcmp(name_of(regions, a), name_of(regions, b));
        return order != 0 ? order < 0 : a < b;
    });
    const uint64_t *const same = std::adjacent_find(entries, end, [regions](uint64_t a, uint64_t b) {
        return ((a ^ b) & ~INDEX_MASK) == 0 && std::strcmp(name_of(regions, a), name_of(regions, b)) == 0;
    });
    if (same != end) {
        *twin = same[0] & INDEX_MASK;
        *region = same[1] & INDEX_MASK;
        std::free(entries);
        return NVLX_EINVAL;
    }
    *index = {entries, static_cast<size_t>(end - entries)};
    return NVLX_OK;
}

void nvlxi_name_index_free(nvlxi_name_index *index) {
    std::free(index->entry);
    *index = {};
}

const nvlxi_region_record *nvlxi_name_index_find(const nvlxi_name_index *index, const nvlxi_region_record *regions,
                                                 const char *name) {
    const uint64_t *const found = find_place(index, regions, name);
    if (found == index->entry + index->count || std::strcmp(name_of(regions, *found), name) != 0)
        return nullptr;
    return &regions[*found & INDEX_MASK];
}

void nvlxi_name_index_insert(nvlxi_name_index *index, const nvlxi_region_record *regions, size_t region) {
    uint64_t *const place = find_place(index, regions, regions[region].name), *const end = index->entry + index->count;
    std::copy_backward(place, end, end + 1);
    *place = upper_hash(regions[region].name) | region;
    index->count++;
}

void nvlxi_name_index_remove(nvlxi_name_index *index, const nvlxi_region_record *regions, size_t region) {
    uint64_t *const place = find_place(index, regions, regions[region].name);
    std::copy(place + 1, index->entry + index->count, place);
    index->count--;
}
