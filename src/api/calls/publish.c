/* The exported functions by which many changes become one, and a reader knows that it has seen them.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "api/engine.h"
#include "base/thread.h"

static int hold(struct nvlx_engine *engine) {
    int code = nvlxi_engine_check(engine);
    return code ? code : nvlxi_registration_hold(&engine->registration);
}

int nvlx_hold(struct nvlx_engine *engine) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, hold(engine));
}

static int publish(struct nvlx_engine *engine, uint64_t *generation) {
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_registration_check(&engine->registration)))
        return code;
    const uint64_t published = nvlxi_registration_publish(&engine->registration);
    if (generation)
        *generation = published;
    return 0;
}

int nvlx_publish(struct nvlx_engine *engine, uint64_t *generation) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, publish(engine, generation));
}

static int check(struct nvlx_engine *engine) {
    int code = nvlxi_engine_check(engine);
    return code ? code : nvlxi_registration_check(&engine->registration);
}

int nvlx_check(struct nvlx_engine *engine) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, check(engine));
}

static int sync_peer(struct nvlx_peer *peer, uint64_t generation, int64_t timeout_ns) {
    int code = nvlxi_pointer_check(peer, "peer");
    if (code || (code = nvlxi_engine_check(peer->engine)))
        return code;
    const uint64_t since = nvlxi_now_ns(), deadline = nvlxi_deadline(timeout_ns);
    for (uint64_t known; (known = nvlxi_peer_generation(peer)) < generation; nvlxi_pause(since)) {
        if ((code = nvlxi_peer_check(peer)))
            return code;
        if (nvlxi_now_ns() >= deadline)
            return nvlxi_fail(NVLX_ETIMEDOUT, "of the peer generation %" PRIu64 " is known, not yet %" PRIu64, known,
                              generation);
    }
    return 0;
}

int nvlx_peer_sync(struct nvlx_peer *peer, uint64_t generation, int64_t timeout_ns) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, sync_peer(peer, generation, timeout_ns));
}
