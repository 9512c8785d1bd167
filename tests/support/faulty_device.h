/* The host backend with faults on demand, for engines made by nvlxi_engine_create. SPDX-License-Identifier: Apache-2.0
 *
 * All of it may be set and read at any time, from any thread. */
#ifndef FAULTY_DEVICE_H
#define FAULTY_DEVICE_H

#include <stdatomic.h>

#include "device/device.h"

struct faults {
    atomic_long calls;      /* made so far, of those that can fail */
    atomic_long fail_at;    /* this one fails; 0: none. What frees something first does so, then fails */
    atomic_bool paused;     /* calls are not counted and do not fail */
    atomic_bool hold;       /* no event is seen complete */
    atomic_bool hold_last;  /* the event that was recorded last is not seen complete */
    atomic_bool silent;     /* lane_call says yes, and nobody is called: as once a device has failed */
    atomic_bool busy;       /* no lane is seen empty */
    atomic_bool copies;     /* every copy fails */
    atomic_bool digests;    /* every digest fails */
    atomic_bool queries;    /* every event says that the device failed */
    atomic_long files_done; /* of `files`, which counts exports of files when they begin */
    atomic_long maps, unmaps, exports, files, resolves, queried, kernels, loads;
    atomic_long rows;             /* calls of copy_rows and copy_grid */
    atomic_long links, unlinks;   /* that gave a link, and undid one */
    atomic_long wakes, woken;     /* begun, and over */
    atomic_long unlinked_in_wake; /* of `unlinks`, those of a link that was being woken */
    atomic_int wake_delay_us;
    atomic_long digests_queued, digested; /* calls of digest; leaves that they were given */
    _Atomic(struct nvlxi_event *) last;   /* event that was recorded */
    atomic_long overlapping;              /* kernels that may overlap the one before them */
    _Atomic(struct nvlxi_lane *)
        lane; /* of the last list for the copy engines; `lanes` counts how often it is another */
    atomic_long lanes;
    atomic_ullong average;                    /* of the last kernel's fragments */
    atomic_int map_delay_us, mapped_delay_us; /* before and after it is mapped */
    atomic_int unmap_delay_us, export_delay_us, file_delay_us, list_delay_us;
    atomic_int copy_delay_us; /* before every copy is queued */
    atomic_long lane_creates, list_allocs, list_frees;
    atomic_size_t launched; /* kernels that are recorded here, of all that were launched since it was set to 0 */
    struct launch {
        struct nvlxi_lane *lane;
        uint32_t sms;
    } launches[64];       /* to be read when no transfer is being submitted */
    atomic_size_t issued; /* calls that copy, or parts that kernels were given: likewise */
    struct issue {
        struct nvlxi_lane *lane;
        uint64_t source; /* of the first fragment */
    } issues[64];
    atomic_size_t issued_in_map; /* of `issued`, while the last mapping was made */
};
extern struct faults faults;

extern const struct nvlxi_device_ops faulty_device;

struct nvlx_engine *make_faulty_engine(uint32_t max_requests);

/* A thread that lets events be seen complete again, 50 ms from now. */
void *release_later(void *unused);

#endif
