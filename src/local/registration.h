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
 * A READY segment becomes stale when its memory is found to be freed: a younger segment lies over it, the driver says
 * so at export, or nvlx_free is about to free it. A stale segment is neither exported nor used by transfers; regions in
 * it can only be unregistered. Those that are not stale do not overlap: `extents` has them by address.
 *
 * A region lies in one segment, or in a run of adjacent ones whose kind joins, such as the chunks of virtual-memory
 * management: it has a stake in each of them. When one of them becomes stale, so does the region.
 *
 * `mutex` guards segments, regions and names; transfers never wait for it. `tables`, which is the engine's, guards the
 * lookup table `ranges`: transfers hold it for reading while they check their ops; who changes the table holds both.
 * Under `tables` only one region's pieces are changed, or those of a segment that becomes stale: memory is allocated
 * before, and freed after. Order: mutex, then tables. */
#ifndef NVLXI_LOCAL_REGISTRATION_H
#define NVLXI_LOCAL_REGISTRATION_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/hash.h"
#include "base/intervals/interval_map.h"
#include "descriptor/descriptor.h"
#include "local/extents.h"
#include "local/journal.h"

struct nvlxi_segment_key {
    uint64_t base, serial;
};

struct nvlxi_stake { /* of a region, in one of its segments */
    struct nvlxi_segment *segment;
    struct nvlx_region *region;
    struct nvlxi_stake *prev, *next; /* in the segment's list */
};

struct nvlxi_segment {
    struct nvlxi_segment_key key;
    struct nvlxi_allocation allocation;
    struct nvlxi_handle handle;
    uint8_t uuid[NVLXI_UUID_BYTES]; /* of its GPU */
    bool ready, stale;
    uint32_t number;            /* in `extents`, if it is READY and not stale */
    uint32_t index;             /* scratch, under the mutex: of its record */
    struct nvlxi_stake *stakes; /* list: of its regions */
    size_t regions;
    size_t shared; /* regions that are told to peers */
    UT_hash_handle hh;
};

struct nvlx_region {
    struct nvlx_engine *engine;
    struct nvlxi_stake *stakes, one; /* `stakes` points to `one`, or to memory of its own where there are more */
    uint64_t address, length;
    uint64_t since; /* the generation that it came with */
    /* Descriptors of generations from `known` on, before `unknown`, tell its bytes: who was told one of these may use
     * them. UINT64_MAX, 0: none yet. Of a region that woke before all had let go of it, also from before it slept. */
    uint64_t known, unknown;
    struct nvlx_region *next_withdrawn, *previous_withdrawn;
    uint64_t digest;                /* of its bytes, if that is told */
    void *ready;                    /* the caller's count of how often it was ready; or NULL */
    struct nvlxi_region_name *name; /* NULL: none */
    size_t position;                /* in the list of regions */
    size_t entry;                   /* 1 + the number of its entry in the journal; 0: it has none */
    uint32_t segment_count;         /* in order of address; 0 for a region of 0 bytes */
    uint32_t naps;                  /* how often it was suspended: who looks twice sees whether it slept between */
    uint8_t access;
    bool entered; /* in the list, and in the lookup table if it has bytes and is not stale; not asleep */
    bool stale;   /* a segment of it is */
    bool withdrawn;
    bool suspended; /* see lifetime/suspension.h */
    bool has_digest;
    bool resuming;
    bool asleep; /* it sleeps, and nobody uses its bytes any more */
};

/* Of its own, so that a region without a name is small: there may be millions. */
struct nvlxi_region_name {
    const struct nvlx_region *region;
    UT_hash_handle hh;
    char text[];
};

/* What peers are told: regions that grant something and are not stale, and their segments. */
struct nvlxi_told {
    size_t regions, segments;
    size_t text; /* bytes that a descriptor of them has at most */
};

/* Called after the generation has grown, by the thread that made it grow, without a lock held. */
typedef void (*nvlxi_change_function)(void *context);

struct nvlxi_registration {
    const struct nvlxi_context *context;
    struct nvlx_engine *engine;
    pthread_mutex_t mutex;
    pthread_cond_t export_done;
    uint64_t files; /* exports of files that were begun, and that have ended: odd while one is under way */
    struct nvlxi_segment *segments;  /* hash set by key */
    struct nvlxi_segment *recent;    /* the one that was used last: the next region is often in it too; or NULL */
    struct nvlxi_region_name *names; /* hash set by text */
    struct nvlx_region **regions;    /* list */
    size_t region_count, capacity;
    struct nvlx_region *withdrawn; /* list: not freed yet */
    struct nvlx_region **asleep;   /* list: suspended; changed with the tables locked for writing */
    size_t asleep_count;
    struct nvlxi_told told, limits;
    uint64_t generation, handles_exported;
    struct nvlxi_journal journal;             /* of what peers are told */
    uint64_t looked;                          /* segments below it were looked at last, whether they live */
    atomic_bool held;                         /* changes are not told; set under the mutex */
    struct nvlxi_intervals ranges;            /* of regions: the lookup table */
    struct nvlxi_intervals extents;           /* of segments */
    struct nvlxi_segment **by_number;         /* those of `extents` */
    size_t numbers;                           /* room of by_number */
    _Atomic(nvlxi_change_function) on_change; /* NULL: nobody listens */
    void *on_change_context;                  /* never changes while on_change is set */
};

int nvlxi_registration_init(struct nvlxi_registration *registration, const struct nvlxi_context *context);
void nvlxi_registration_free(struct nvlxi_registration *registration);

int nvlxi_registration_add(struct nvlxi_registration *registration, uint64_t address, uint64_t length,
                           const struct nvlx_region_options *options, struct nvlx_region **region);

/* Who uses some bytes: all of them that do, or-ed together. */
enum nvlxi_user {
    NVLXI_NOBODY = 0,
    NVLXI_A_TRANSFER = 1,
    NVLXI_A_PREPARED_LIST = 2,
    NVLXI_A_DIGEST = 4,
    NVLXI_A_WAIT = 8,
    NVLXI_A_GRAPH = 16
};

/* Asked, with the tables locked for writing, who uses any of these bytes: own transfers and digests in flight, prepared
 * lists, and waits of streams. */
typedef uint32_t (*nvlxi_users_function)(void *context, uint64_t address, uint64_t length);

/* Withdraws one region, if it is not withdrawn yet: neither own lists nor peers get it any more. NVLX_EBUSY, not
 * logged: a prepared list uses it, and it stays. */
int nvlxi_registration_withdraw(struct nvlxi_registration *registration, struct nvlx_region *region,
                                nvlxi_users_function find_users, void *context);
/* Where the region is that is to be digested, and how often it has slept. Refuses what peers are not told a digest of.
 */
int nvlxi_registration_find_awake(struct nvlxi_registration *registration, const struct nvlx_region *region,
                                  uint64_t *address, uint32_t *naps);
/* Tells peers the digest of a region's bytes, unless it has slept since it was found. NULL: only asks that. */
int nvlxi_registration_set_digest(struct nvlxi_registration *registration, struct nvlx_region *region, uint32_t naps,
                                  const uint64_t *digest);
/* Frees a region that was withdrawn. */
void nvlxi_registration_free_region(struct nvlxi_registration *registration, struct nvlx_region *region);

/* Called with the tables locked for writing, of bytes that are about to sleep: lists that use them are to be checked
 * again. */
typedef void (*nvlxi_upset_function)(void *context, uint64_t address, uint64_t length);

/* Puts regions to sleep, those that do not sleep yet: all or none. NVLX_EINVAL, NVLX_EBUSY, NVLX_ESTALE, NVLX_ENOMEM.
 */
int nvlxi_registration_suspend(struct nvlxi_registration *registration, struct nvlx_region *const *regions,
                               size_t count, nvlxi_upset_function upset, void *context);
/* Nobody uses the bytes any more of those that sleep since this generation, or since an older one. */
void nvlxi_registration_note_asleep(struct nvlxi_registration *registration, struct nvlx_region *const *regions,
                                    size_t count, uint64_t generation);
/* Wakes them, all or none, where they were, or at `addresses` (NULL, or one of them is NULL: where it was). */
int nvlxi_registration_resume(struct nvlxi_registration *registration, struct nvlx_region *const *regions, size_t count,
                              void *const *addresses);
/* Whether a region that sleeps has this byte. With the tables held for reading, or under the mutex. */
bool nvlxi_registration_sleeps(const struct nvlxi_registration *registration, uint64_t address);

/* Withdraws all regions over memory that is about to be freed, unless that has `*users`: NVLX_EBUSY, not logged. */
int nvlxi_registration_forget(struct nvlxi_registration *registration, uint64_t address, uint64_t length,
                              nvlxi_users_function find_users, void *context, uint32_t *users);

/* Makes new slots for the lookup table, unless some thread has the mutex: for transfers that found it worn. */
void nvlxi_registration_renew(struct nvlxi_registration *registration);

/* From now on `function` is called after every change. The generation grows: who listens has something to add to the
 * descriptor. Once. */
void nvlxi_registration_listen(struct nvlxi_registration *registration, nvlxi_change_function function, void *context);

/* What it is now, with changes that are held back. */
uint64_t nvlxi_registration_generation(struct nvlxi_registration *registration);

/* From now on nobody is told of changes, until they are told as one. NVLX_EBUSY: they are held back already. */
int nvlxi_registration_hold(struct nvlxi_registration *registration);
/* Tells what was held back, if anything. Returns the generation that has all changes made by now. */
uint64_t nvlxi_registration_publish(struct nvlxi_registration *registration);

/* The allocation of a segment that some region grants to peers, for an export of its file: NVLX_ESTALE if there is
 * none. The export is under way until it is ended. By the service thread alone. */
int nvlxi_registration_begin_file(struct nvlxi_registration *registration, uint64_t base, uint64_t serial,
                                  struct nvlxi_allocation *allocation);
void nvlxi_registration_end_file(struct nvlxi_registration *registration);
/* Waits until the export that is under way has ended: what was withdrawn before may be freed then. NVLX_ETIMEDOUT, not
 * logged. */
int nvlxi_registration_await_file(struct nvlxi_registration *registration, uint64_t deadline);

/* Looks at all segments, a call of the driver each, and retires those whose memory was freed. Tells who listens. */
int nvlxi_registration_check(struct nvlxi_registration *registration);

/* Records of all that peers may use, for encoding; free by nvlxi_registration_records_free. NVLX_EBUSY: changes are
 * held back. Identity and backend are the caller's to fill, except for the generation. */
int nvlxi_registration_records(struct nvlxi_registration *registration, struct nvlxi_descriptor *descriptor);
/* What has changed since a generation that peers were told: descriptor->from is that, and what is removed is also what
 * came and went since then. Asks the driver of some segments whether they live, and looks at nothing else that has not
 * changed. `*alters`: whether it may tell of a region that was told before that it is another; becomes whether it does.
 * NVLX_EAGAIN, not logged: that is too long ago, or it must not tell so: all of it is to be told. Else as
 * nvlxi_registration_records. */
int nvlxi_registration_changes(struct nvlxi_registration *registration, uint64_t since, bool *alters,
                               struct nvlxi_descriptor *descriptor);
void nvlxi_registration_records_free(struct nvlxi_descriptor *descriptor);

/* ---- Between registration.c, sleep.c, segments.c and records.c; all under the mutex ------- */

/* After a change of the lookup table: what can be done while transfers go on. */
void nvlxi_registration_tidy(struct nvlxi_registration *registration);
/* NVLX_EBUSY: peers would be told more than a descriptor holds. */
int nvlxi_region_check_limits(const struct nvlxi_registration *registration, const struct nvlx_region *region);
/* A region that sleeps is withdrawn: it is not told any more. */
void nvlxi_region_end_sleep(struct nvlxi_registration *registration, struct nvlx_region *region);

/* Gives the region a stake in the segments of its allocations, all or none. Lets go of the mutex meanwhile. */
int nvlxi_segments_acquire(struct nvlxi_registration *registration, const struct nvlxi_extents *extents,
                           struct nvlx_region *region);
void nvlxi_segments_release(struct nvlxi_registration *registration, struct nvlx_region *region);

struct nvlxi_retired { /* in one go, for one line of the log; starts zeroed */
    size_t segments, regions;
    uint64_t first; /* base */
};

/* What is exported, and what transfers may use, changes with it. */
void nvlxi_segment_retire(struct nvlxi_registration *registration, struct nvlxi_segment *segment,
                          struct nvlxi_retired *retired);
/* `why`: what became of the memory. */
void nvlxi_retired_log(const struct nvlxi_retired *retired, const char *why);

/* The same for all segments under a range. With the tables locked for writing. Returns how many there were. */
size_t nvlxi_segments_retire(struct nvlxi_registration *registration, uint64_t address, uint64_t length);

/* Makes room for a region in the lookup table, where it must be the next to be entered. NVLX_ENOMEM. */
int nvlxi_region_reserve(struct nvlxi_registration *registration, const struct nvlx_region *region);
/* Enters a region in the lookup table, or takes it out: a range between each two borders in it. With the tables locked
 * for writing. */
void nvlxi_region_map(struct nvlxi_registration *registration, const struct nvlx_region *region);
void nvlxi_region_unmap(struct nvlxi_registration *registration, const struct nvlx_region *region);

/* Adds what a region adds to what peers are told: itself, and those of its segments in which nothing else is shared. */
void nvlxi_region_count(const struct nvlx_region *region, struct nvlxi_told *told);
/* Counts a region among those that are told to peers, or not any more, from the present generation on. */
void nvlxi_region_tell(struct nvlxi_registration *registration, struct nvlx_region *region);
void nvlxi_region_untell(struct nvlxi_registration *registration, struct nvlx_region *region);
/* The same without an entry in the journal. */
void nvlxi_region_share(struct nvlxi_registration *registration, const struct nvlx_region *region);
void nvlxi_region_unshare(struct nvlxi_registration *registration, const struct nvlx_region *region);

/* Tells who listens. Without the mutex. */
void nvlxi_registration_tell(struct nvlxi_registration *registration);

#endif
