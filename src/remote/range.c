/* Opens what lies under a range of a peer's addresses. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "base/error.h"
#include "remote/mapping.h"

#define RANGE_RUNS 64 /* of a range, looked up at a time */

/* The run that holds `address`, which is registered, and the end of what lies in it of [address, end), the rest of a
 * range from `first` on. */
static int run_at(struct nvlx_peer *peer, uint64_t first, uint64_t address, uint64_t end, struct nvlxi_mapping_key *key,
                  uint64_t *stop) {
    const struct nvlxi_intervals *ranges = &peer->table->ranges;
    uint32_t piece = nvlxi_intervals_find(ranges, address);
    uint64_t where = address;
    bool registered = false;
    if (piece && ranges->piece[piece].start <= address) {
        const struct nvlxi_run *run = &peer->table->runs.run[ranges->piece[piece].owner];
        *key = (struct nvlxi_mapping_key){.base = run->base, .serial = run->serial};
        *stop = nvlxi_min(end, run->base + run->size);
        if (nvlxi_intervals_cover(ranges, piece, address, *stop - address, NVLX_ACCESS_NONE, &where, &registered))
            return 0;
    }
    if (nvlxi_peer_sleeper(peer, where))
        return nvlxi_fail(NVLX_ESUSPENDED, "the peer has suspended its range 0x%" PRIx64 " + %" PRIu64, first,
                          end - first);
    return nvlxi_fail(NVLX_ERANGE,
                      "the peer's range 0x%" PRIx64 " + %" PRIu64 " is not in its registered regions (byte 0x%" PRIx64
                      " is missing)",
                      first, end - first, where);
}

/* Maps the run that holds `address`; *address becomes where the next one begins. NVLX_EAGAIN (not logged): as
 * nvlxi_mapping_open. */
static int map_next(struct nvlx_peer *peer, int gpu, uint64_t first, uint64_t *address, uint64_t end) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_mapping_key key = {0};
    uint64_t stop = end;
    nvlxi_tables_read(r->context->tables);
    int code = run_at(peer, first, *address, end, &key, &stop);
    nvlxi_tables_read_end(r->context->tables);
    if (!code)
        code = nvlxi_mapping_open(peer, gpu, key.base, key.serial);
    if (!code)
        *address = stop;
    return code;
}

/* Opens what can be begun of a range; the rest, and what changes meanwhile, is left to map_next. */
static int open_range_ahead(struct nvlx_peer *peer, int gpu, uint64_t first, uint64_t end,
                            struct nvlxi_patience *patience) {
    struct nvlxi_missing missing[RANGE_RUNS];
    uint64_t address = first;
    int code = 0;
    while (address < end && !code) {
        size_t count = 0;
        nvlxi_tables_read(peer->remote->context->tables);
        while (address < end && count < RANGE_RUNS && !code) {
            struct nvlxi_mapping_key key;
            code = run_at(peer, first, address, end, &key, &address);
            if (!code)
                missing[count++] = (struct nvlxi_missing){peer, gpu, key.base, key.serial};
        }
        nvlxi_tables_read_end(peer->remote->context->tables);
        if (!code)
            code = nvlxi_mappings_open(missing, count, patience, NULL);
    }
    return code;
}

int nvlxi_mapping_open_range(struct nvlx_peer *peer, int gpu, uint64_t address, uint64_t length) {
    struct nvlxi_remote *r = peer->remote;
    struct nvlxi_patience patience = {0};
    const uint64_t first = address;
    uint64_t end;
    if (gpu < 0 || gpu >= r->gpus)
        return nvlxi_fail(NVLX_EINVAL, "GPU %d is not one of the %d GPUs here", gpu, r->gpus);
    if (!nvlxi_add(address, length, &end))
        return nvlxi_fail(NVLX_EINVAL, "address 0x%" PRIx64 " + length %" PRIu64 " wraps around", address, length);
    int code = nvlxi_peer_check(peer);
    if (!code)
        code = open_range_ahead(peer, gpu, address, end, &patience);
    while (address < end && !code) {
        code = map_next(peer, gpu, first, &address, end);
        if (code == NVLX_EAGAIN)
            code = nvlxi_mapping_try_again(&patience);
    }
    return code;
}
