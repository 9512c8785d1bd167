/* Suspension: memory that sleeps. Its bytes are withdrawn, its names stay.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The states of a region in its owner, beside those of revocation.h, by fields of struct nvlx_region:
 *
 *     REGISTERED   not `suspended`
 *     SUSPENDED    `suspended`, with `unknown` == g, by nvlx_suspend. It has no segment and no place in the lookup
 *                  table. It keeps its name, address, length, access and `since`. Descriptors of generation g and
 *                  later tell it as one that sleeps, so peers have a record of it and no bytes. Peers that know an
 *                  older generation may still use the bytes, and so may own transfers and digests in flight
 *     ASLEEP       SUSPENDED, and no own transfer or digest uses its bytes, and every follower has RELEASED g, is gone,
 *                  or never knew the bytes: nvlx_suspend gives 0, and the memory may go. `asleep` notes this state, for
 *                  who asks again: a follower that is told later that the region is there, and sleeps, holds nothing
 *     RESUMING     SUSPENDED, and `resuming` is set: nvlx_resume asks the driver what lies there now, without a lock
 *
 *     REGISTERED -> SUSPENDED    all regions of the call in one step, with the tables locked for writing, or none
 *     SUSPENDED -> RESUMING      all of the call, or none
 *     RESUMING -> REGISTERED     all of the call, at one generation; the memory there is alive, whatever it is
 *     RESUMING -> SUSPENDED      all of the call: something failed
 *     SUSPENDED -> WITHDRAWN     by nvlx_unregister, which has nobody to wait for once it was ASLEEP
 *
 * In a peer a region is, by the newest table: REGISTERED (its ranges are in the table), SUSPENDED (a record alone: ops
 * give NVLX_ESUSPENDED), or not there. The table of generation g has no run that only suspended regions lie in, so its
 * mappings are RETIRED, and closed, before the peer RELEASES g.
 *
 * Invariants:
 * - A transfer is IN FLIGHT on suspended bytes only if it was checked before: with the tables held for reading, or, a
 *   post, since it is in the list of those in flight before it looks at `upset` and at the peers' changes. Both are set
 *   before the owner, or the peer's closer, looks at that list.
 * - After nvlx_suspend has given 0, no follower maps the bytes, has a transfer in flight on them, or knows a generation
 *   that has them. So a follower cannot take the memory of after nvlx_resume for that of before, even if the driver
 *   gave it the same serial.
 * - A region that was resumed where it was keeps `since`: a list that was prepared before finds bytes as old as it
 *   knows, and is planned again at its next post (transfer/prepared.c). Elsewhere it gets a new `since`: such a list is
 *   of another address, and stale.
 * - Who is told of a region only while it sleeps never knew its bytes (revocation.h), and is not waited for. A region
 *   that is resumed when it was not ASLEEP counts as known from before it slept.
 * - A follower is told by changes (local/journal.h) that a region sleeps, or is back. Its id, which is `since`, stays
 *   where the address does, and so do its name and its place in the peer's table. Where one change tells both, it never
 *   knew generation g; nvlx_suspend had not given 0, so that the memory is the one that it knows. */
#ifndef NVLXI_LIFETIME_SUSPENSION_H
#define NVLXI_LIFETIME_SUSPENSION_H

#include "lifetime/revocation.h"
#include "lifetime/waits.h"
#include "local/digest.h"
#include "transfer/transfer.h"

struct nvlxi_own { /* who may use bytes of this process, in it */
    struct nvlxi_transfers *transfers;
    struct nvlxi_digester *digester;
    struct nvlxi_waits *waits;
};

struct nvlxi_suspension {
    struct nvlxi_registration *registration;
    struct nvlxi_own own;
    struct nvlxi_revocations *revocations;
};

/* REGISTERED -> SUSPENDED, or as they are; then waits until they are ASLEEP. NVLX_ETIMEDOUT names who holds them. */
int nvlxi_suspend(const struct nvlxi_suspension *suspension, struct nvlx_region *const *regions, size_t count,
                  uint64_t deadline);

/* Waits for own transfers and digests in flight that use bytes of a range, named `what`, which is withdrawn. Streams
 * that wait for a count there are let go on: `code` is why. */
int nvlxi_own_wait(const struct nvlxi_own *own, uint64_t address, uint64_t length, int code, const char *what,
                   uint64_t deadline);
/* Waits for an export to a client that is under way: it may be of the memory named `what`, which is withdrawn. */
int nvlxi_file_wait(struct nvlxi_registration *registration, const char *what, uint64_t deadline);

#endif
