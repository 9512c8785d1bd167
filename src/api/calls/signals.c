/* The exported functions of signals: in streams, and for CPUs. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "api/abi.h"
#include "api/engine.h"
#include "base/thread.h"
#include "lifetime/reads.h"

#define KEPT 32 /* signals in flight that nobody looks at, before somebody does */

/* ---- The engine's waits ----------------------------------------------------------------------------------- */

static void tell_wait_failed(void *context, struct nvlx_peer *peer, uint64_t number) {
    struct nvlx_engine *engine = context;
    nvlxi_events_post(&engine->events, &peer->wait_failed, NVLX_EVENT_WAIT_FAILED, number);
}

static int await_for_list(void *context, void *stream, const struct nvlxi_list_wait *wait, uint64_t *number) {
    struct nvlx_engine *engine = context;
    const struct nvlxi_awaited awaited = {.stream = stream,
                                          .peer = wait->peer,
                                          .address = wait->address,
                                          .value = wait->value,
                                          .mapping = wait->mapping,
                                          .remote = wait->remote,
                                          .generation = wait->generation};
    return nvlxi_waits_add(&engine->waits, &awaited, number);
}

static int judge_for_list(void *context, uint64_t number) {
    struct nvlx_engine *engine = context;
    return nvlxi_waits_outcome(&engine->waits, number);
}

static void drop_for_list(void *context, uint64_t number) {
    struct nvlx_engine *engine = context;
    nvlxi_waits_drop(&engine->waits, number);
}

void nvlxi_signals_init(struct nvlx_engine *engine) {
    nvlxi_waits_init(&engine->waits, &engine->transfers, tell_wait_failed, engine);
    engine->transfers.waiter = (struct nvlxi_waiter){await_for_list, judge_for_list, drop_for_list, engine};
}

/* ---- In streams ------------------------------------------------------------------------------------------ */

static int check_stream(const struct nvlx_engine *engine, const void *stream, const struct nvlx_peer *peer) {
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(stream, "stream")) || (code = nvlxi_pointer_check(peer, "peer")))
        return code;
    return peer->engine == engine ? 0 : nvlxi_fail(NVLX_EINVAL, "the peer %p is not one of this engine", (void *)peer);
}

/* A transfer of nothing else, which nobody asks for. */
static int signal_in_stream(struct nvlx_engine *engine, void *stream, const struct nvlx_op *op) {
    const struct nvlxi_asked asked = {.wanted = NVLXI_WANTS_EITHER};
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.stream = stream;
    if (atomic_fetch_add(&engine->signals, 1) % KEPT == KEPT - 1)
        nvlxi_transfers_progress(&engine->transfers);
    int code = nvlxi_transfer_submit(&engine->transfers, op, 1, &options, &asked, &request);
    return code || !request ? code : nvlxi_request_detach(request);
}

static int stream_signal(struct nvlx_engine *engine, void *stream, struct nvlx_peer *peer, uint64_t address,
                         uint64_t value, uint32_t flags) {
    const struct nvlx_op op = {.opcode = NVLX_OP_SIGNAL, .flags = flags, .peer = peer, .remote = address, .arg = value};
    int code = check_stream(engine, stream, peer);
    return code ? code : signal_in_stream(engine, stream, &op);
}

int nvlx_stream_signal(struct nvlx_engine *engine, void *stream, struct nvlx_peer *peer, uint64_t address,
                       uint64_t value, uint32_t flags) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call,
                             nvlxi_engine_note(engine, stream_signal(engine, stream, peer, address, value, flags)));
}

static int region_ready(struct nvlx_region *region, void *stream) {
    int code = nvlxi_pointer_check(region, "region");
    if (code || (code = nvlxi_engine_check(region->engine)) || (code = nvlxi_pointer_check(stream, "stream")))
        return code;
    if (!region->ready)
        return nvlxi_fail(NVLX_EINVAL, "the region %p was registered without region_options.ready", (void *)region);
    const struct nvlx_op op = {.opcode = NVLX_OP_SIGNAL, .flags = NVLX_OP_ADD, .local = region->ready, .arg = 1};
    return signal_in_stream(region->engine, stream, &op);
}

int nvlx_region_ready(struct nvlx_region *region, void *stream) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    struct nvlx_engine *engine = region ? region->engine : NULL;
    return nvlxi_attempt_end(&call, nvlxi_engine_note(engine, region_ready(region, stream)));
}

static int stream_wait(struct nvlx_engine *engine, void *stream, struct nvlx_peer *peer, const void *address,
                       uint64_t value, const struct nvlx_wait_options *options, uint64_t *wait) {
    struct nvlx_wait_options known;
    nvlx_wait_options_init(&known);
    int code = check_stream(engine, stream, peer);
    if (code || (code = nvlxi_pointer_check(address, "address")) ||
        (code = nvlxi_struct_take(&known, sizeof known, options, "nvlx_wait_options")))
        return code;
    const struct nvlxi_awaited awaited = {.stream = stream,
                                          .peer = peer,
                                          .address = (uint64_t)(uintptr_t)address,
                                          .value = value,
                                          .mark = (uint64_t)(uintptr_t)known.mark,
                                          .reached = (uint64_t)(uintptr_t)known.reached};
    return nvlxi_waits_add(&engine->waits, &awaited, wait);
}

int nvlx_stream_wait(struct nvlx_engine *engine, void *stream, struct nvlx_peer *peer, const void *address,
                     uint64_t value, const struct nvlx_wait_options *options, uint64_t *wait) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, stream_wait(engine, stream, peer, address, value, options, wait));
}

int nvlx_stream_wait_status(struct nvlx_engine *engine, uint64_t wait) {
    int code = nvlxi_engine_check(engine);
    return code ? code : nvlxi_waits_status(&engine->waits, wait);
}

/* ---- For CPUs -------------------------------------------------------------------------------------------- */

static int read_count(struct nvlx_engine *engine, const void *address, uint64_t *value) {
    return nvlxi_read_count(&engine->waits, (uint64_t)(uintptr_t)address, value);
}

int nvlx_signal_read(struct nvlx_engine *engine, const void *address, uint64_t *value) {
    uint64_t read;
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(address, "address")) || (code = nvlxi_pointer_check(value, "value")))
        return code;
    if ((code = read_count(engine, address, &read)))
        return code;
    *value = read;
    return 0;
}

/* The peer is asked before the count: what it has signalled before it was gone counts. */
static int await_count(struct nvlx_engine *engine, const struct nvlx_peer *peer, const void *address, uint64_t value,
                       int64_t timeout_ns) {
    const uint64_t since = nvlxi_now_ns(), deadline = nvlxi_deadline(timeout_ns);
    uint64_t count = 0;
    for (;; nvlxi_pause(since)) {
        const char *gone = peer ? nvlxi_peer_why_gone(peer) : NULL;
        int code = read_count(engine, address, &count);
        if (code || nvlxi_signal_reached(count, value))
            return code;
        if (gone)
            return nvlxi_fail(NVLX_ESTALE, "%s; its count is %" PRIu64 ", not yet %" PRIu64, gone, count, value);
        if (nvlxi_now_ns() >= deadline)
            return nvlxi_fail(NVLX_ETIMEDOUT, "the count at %p is %" PRIu64 ", not yet %" PRIu64, address, count,
                              value);
    }
}

int nvlx_signal_wait(struct nvlx_engine *engine, struct nvlx_peer *peer, const void *address, uint64_t value,
                     int64_t timeout_ns) {
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(address, "address")))
        return code;
    if (peer && peer->engine != engine)
        return nvlxi_fail(NVLX_EINVAL, "the peer %p is not one of this engine", (void *)peer);
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, await_count(engine, peer, address, value, timeout_ns));
}
