/* Records <-> JSON: the text that a process hands to its peers. The format is described in decode.cc.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DESCRIPTOR_DESCRIPTOR_H
#define NVLXI_DESCRIPTOR_DESCRIPTOR_H

#include <stddef.h>

#include "base/records.h"
#include "descriptor/name_index.h"

#ifdef __cplusplus
extern "C" {
#endif

struct nvlxi_descriptor {
    char backend[16];
    struct nvlxi_identity identity;
    char address[NVLXI_ADDRESS_MAX + 1]; /* where the process gives out file descriptors; "" if it does not */
    struct nvlxi_segment_record *segments;
    size_t segment_count;
    struct nvlxi_region_record *regions; /* names point into memory that the descriptor owns when it was decoded */
    size_t region_count;
    size_t suspended_count; /* of them, the last ones: those that sleep */
    uint64_t from;          /* 0: this is all that there is; else what was added since this generation */
    uint64_t *removed;      /* then: the `since` of each region that is not there any more */
    size_t removed_count;
    char *names;                     /* that memory; NULL in a descriptor to be encoded */
    struct nvlxi_name_index by_name; /* set when it was decoded */
};

/* Writes the text, NUL-terminated; free it by free(3). NVLX_ENOMEM. */
int nvlxi_descriptor_encode(const struct nvlxi_descriptor *descriptor, char **text, size_t *length);

/* Bytes of the text, at most: a region of this name (NULL: none), with a digest or without, a segment with this handle,
 * and all the rest. */
#define NVLXI_PROCESS_ROOM 1024
size_t nvlxi_descriptor_region_room(const char *name, bool has_digest);
size_t nvlxi_descriptor_segment_room(const struct nvlxi_handle *handle);

/* Reads a text that is not trusted. What comes back is sound: counts bounded, no sum wraps, segments have a size and do
 * not overlap each other and have the file and handle that their kind takes, each region with a length lies inside the
 * segments that it lies in, which are adjacent and join, names are unique and valid UTF-8; `from` is below the
 * generation. Whether changes fit to what is known is for the reader of both to see.
 * NVLX_EFORMAT, NVLX_EVERSION, NVLX_ENOMEM, with the place in the message. */
int nvlxi_descriptor_decode(const char *text, size_t length, struct nvlxi_descriptor **descriptor);

/* Frees what decode made; NULL is allowed. */
void nvlxi_descriptor_free(struct nvlxi_descriptor *descriptor);

#ifdef __cplusplus
}
#endif

#endif
