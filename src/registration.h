/* What this process shares: pointer -> segment -> region.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A segment is found by its base and serial in a hash set and held once, from its first region to its last. States:
 *
 *     PENDING   the first register is asking the driver for the handle, without a lock; others wait for the outcome
 *     READY     has its handle
 *     (gone)    its last region was unregistered, or the export failed
 *
 * A READY segment becomes stale when its memory is found to be freed: a younger segment lies over it, or the driver
 * says so at export. A stale segment is neither exported nor used by transfers; regions in it can only be unregistered.
 *
 * A region lies in one segment, or in a run of adjacent ones whose kind joins, such as the chunks of virtual-memory
 * management: it counts in each of them.
 *
 * `mutex` guards segments, regions and names. `tables`, which is the engine's, guards the lookup table: transfers hold
 * it for reading while they check their ops; who swaps the table, or drops a region, holds it for writing. Order:
 * mutex, then tables. */
#ifndef NVLXI_REGISTRATION_H
#define NVLXI_REGISTRATION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "descriptor.h"
#include "device.h"
#include "hash.h"
#include "ranges.h"

struct nvlxi_segment_key {
    uint64_t base, serial;
};

struct nvlxi_segment {
    struct nvlxi_segment_key key;
    struct nvlxi_allocation allocation;
    struct nvlxi_handle handle;
    uint8_t uuid[NVLXI_UUID_BYTES]; /* of its GPU */
    bool ready, stale;
    uint32_t index; /* scratch, under the mutex: a number while segments are being counted through */
    size_t regions;
    size_t shared; /* regions that grant peers something */
    UT_hash_handle hh;
};

struct nvlx_region {
    struct nvlx_engine *engine;
    struct nvlxi_segment **segments,
        *one;               /* `segments` points to `one`, or to memory of its own where it lies in more */
    uint32_t segment_count; /* in order of address; 0 for a region of 0 bytes */
    uint64_t address, length;
    uint32_t access;
    size_t position; /* in the list of regions */
    char *name;      /* NULL: none */
    UT_hash_handle hh;
};

/* Called after the generation has grown, by the thread that made it grow, without a lock held. */
typedef void (*nvlxi_change_function)(void *context);

struct nvlxi_registration {
    const struct nvlxi_device_ops *ops;
    struct nvlxi_device *device;
    struct nvlx_engine *engine;
    pthread_rwlock_t *tables;
    pthread_mutex_t mutex;
    pthread_cond_t export_done;
    struct nvlxi_segment *segments; /* hash set by key */
    struct nvlx_region *names;      /* hash set by name */
    struct nvlx_region **regions; /* the list: NULL where one was removed; the first `sorted` are in order of address */
    size_t length, capacity, sorted, region_count;
    uint64_t generation, handles_exported;
    struct nvlxi_ranges ranges;               /* of the regions as of the last refresh */
    atomic_bool changed;                      /* since the last refresh */
    _Atomic(nvlxi_change_function) on_change; /* NULL: nobody listens */
    void *on_change_context;                  /* never changes while on_change is set */
};

int nvlxi_registration_init(struct nvlxi_registration *registration);
void nvlxi_registration_free(struct nvlxi_registration *registration);

int nvlxi_registration_add(struct nvlxi_registration *registration, uint64_t address, uint64_t length,
                           const struct nvlx_region_options *options, struct nvlx_region **region);

enum nvlxi_user { NVLXI_NOBODY, NVLXI_A_TRANSFER, NVLXI_A_PREPARED_LIST };

/* Asked, with the tables locked for writing, who uses any of these bytes: an own transfer in flight, or, whatever is in
 * flight, a prepared list. */
typedef enum nvlxi_user (*nvlxi_user_function)(void *context, uint64_t address, uint64_t length);

/* Drops and frees one region, unless it has a `*user`: then NVLX_EBUSY, not logged. */
int nvlxi_registration_remove(struct nvlxi_registration *registration, struct nvlx_region *region,
                              nvlxi_user_function find_user, void *context, enum nvlxi_user *user);

/* Brings the lookup table up to date if anything changed. Called before `tables` is locked for reading. */
int nvlxi_registration_refresh(struct nvlxi_registration *registration);

/* From now on `function` is called after every change. The generation grows: who listens has something to add to the
 * descriptor. Once. */
void nvlxi_registration_listen(struct nvlxi_registration *registration, nvlxi_change_function function, void *context);

/* The allocation of a segment that some region grants to peers: NVLX_ESTALE if there is none. */
int nvlxi_registration_find(struct nvlxi_registration *registration, uint64_t base, uint64_t serial,
                            struct nvlxi_allocation *allocation);

/* Records of all that peers may use, for encoding; free by nvlxi_registration_records_free. Identity and backend are
 * the caller's to fill, but for the generation. */
int nvlxi_registration_records(struct nvlxi_registration *registration, struct nvlxi_descriptor *descriptor);
void nvlxi_registration_records_free(struct nvlxi_descriptor *descriptor);

#endif
