/* The exported functions that tell what is known of a peer and its regions. SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "api/abi.h"
#include "api/engine.h"

static int check_peer(const struct nvlx_peer *peer) {
    int code = nvlxi_pointer_check(peer, "peer");
    return code ? code : nvlxi_engine_check(peer->engine);
}

static int give_info(const struct nvlx_region_info *made, struct nvlx_region_info *info) {
    const size_t from = offsetof(struct nvlx_region_info, name);
    const size_t behind = offsetof(struct nvlx_region_info, gpu);
    const struct nvlxi_array name = {from, from + sizeof made->name}, gpu = {behind, behind + sizeof made->gpu};
    int code = info ? nvlxi_array_check(info, gpu, "nvlx_region_info") : 0;
    return code ? code : nvlxi_struct_give(info, made, sizeof *made, name, "nvlx_region_info");
}

static int region_at(struct nvlx_peer *peer, size_t *place, struct nvlx_region_info *info) {
    struct nvlx_region_info made = {0};
    int code = check_peer(peer);
    if (code || (code = nvlxi_pointer_check(place, "place")))
        return code;
    size_t next = *place;
    code = nvlxi_peer_region(peer, &next, &made);
    if (code || (code = give_info(&made, info)))
        return code;
    *place = next;
    return 0;
}

int nvlx_peer_region(struct nvlx_peer *peer, size_t *place, struct nvlx_region_info *info) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, region_at(peer, place, info));
}

static int region_by_name(struct nvlx_peer *peer, const char *name, struct nvlx_region_info *info) {
    struct nvlx_region_info made = {0};
    int code = check_peer(peer);
    if (code || (code = nvlxi_pointer_check(name, "name")))
        return code;
    code = nvlxi_peer_region_by_name(peer, name, &made);
    return code ? code : give_info(&made, info);
}

int nvlx_peer_region_by_name(struct nvlx_peer *peer, const char *name, struct nvlx_region_info *info) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, region_by_name(peer, name, info));
}

static int peer_info(struct nvlx_peer *peer, struct nvlx_peer_info *info) {
    const size_t from = offsetof(struct nvlx_peer_info, engine);
    const struct nvlxi_array arrays = {from, sizeof *info}; /* all at the end */
    struct nvlx_peer_info made = {0};
    int code = check_peer(peer);
    if (code)
        return code;
    nvlxi_peer_info(peer, &made);
    return nvlxi_struct_give(info, &made, sizeof made, arrays, "nvlx_peer_info");
}

int nvlx_peer_get_info(struct nvlx_peer *peer, struct nvlx_peer_info *info) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, peer_info(peer, info));
}

int nvlx_peer_generation(struct nvlx_peer *peer, uint64_t *generation) {
    int code = check_peer(peer);
    if (code || (code = nvlxi_pointer_check(generation, "generation")))
        return code;
    *generation = nvlxi_peer_generation(peer);
    return 0;
}
