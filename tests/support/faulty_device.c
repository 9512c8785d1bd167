/* The host backend with faults on demand: see faulty_device.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "faulty_device.h"

#include <unistd.h>

#include "api/engine.h"
#include "base/error.h"
#include "support.h"

struct faults faults;

static const struct nvlxi_device_ops *const real = &nvlxi_device_host;

/* Counts a call; says whether it is the one to fail. */
static int fault(const char *name) {
    if (atomic_load(&faults.paused))
        return 0;
    long call = atomic_fetch_add(&faults.calls, 1) + 1;
    return call == atomic_load(&faults.fail_at)
               ? nvlxi_fail(NVLX_EDEVICE, "device call %ld (%s) fails on purpose", call, name)
               : 0;
}

static int faulty_count(int *gpus) {
    int code = fault("count");
    return code ? code : real->count(gpus);
}

static int faulty_open(const int *gpus, size_t gpu_count, struct nvlxi_device **device) {
    int code = fault("open");
    return code ? code : real->open(gpus, gpu_count, device);
}

static void faulty_close(struct nvlxi_device *device) {
    real->close(device);
}

static int faulty_uuid(struct nvlxi_device *device, int gpu, uint8_t uuid[NVLXI_UUID_BYTES]) {
    int code = fault("uuid");
    return code ? code : real->uuid(device, gpu, uuid);
}

static int faulty_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address) {
    int code = fault("alloc");
    return code ? code : real->alloc(device, alloc, address);
}

static int faulty_free(struct nvlxi_device *device, void *address) {
    int code = real->free(device, address), failed = fault("free");
    return code ? code : failed;
}

static int faulty_memcpy(struct nvlxi_device *device, void *destination, const void *source, size_t length) {
    int code = fault("memcpy");
    return code ? code : real->memcpy(device, destination, source, length);
}

static int faulty_resolve(struct nvlxi_device *device, uint64_t address, struct nvlxi_allocation *allocation) {
    int code = fault("resolve");
    atomic_fetch_add(&faults.resolves, 1);
    return code ? code : real->resolve(device, address, allocation);
}

static int faulty_let_use(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int gpu) {
    int code = fault("let_use");
    return code ? code : real->let_use(device, allocation, gpu);
}

static int faulty_alive(struct nvlxi_device *device, const struct nvlxi_allocation *allocation) {
    int code = fault("alive");
    return code ? code : real->alive(device, allocation);
}

static int faulty_export(struct nvlxi_device *device, const struct nvlxi_allocation *allocation,
                         struct nvlxi_handle *handle) {
    int code = fault("export_handle");
    atomic_fetch_add(&faults.exports, 1);
    usleep((useconds_t)atomic_load(&faults.export_delay_us));
    return code ? code : real->export_handle(device, allocation, handle);
}

static int faulty_export_file(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int *fd) {
    int code = fault("export_file");
    atomic_fetch_add(&faults.files, 1);
    usleep((useconds_t)atomic_load(&faults.file_delay_us));
    code = code ? code : real->export_file(device, allocation, fd);
    atomic_fetch_add(&faults.files_done, 1);
    return code;
}

static int faulty_map(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address) {
    int code = fault("map");
    atomic_fetch_add(&faults.maps, 1);
    usleep((useconds_t)atomic_load(&faults.map_delay_us));
    const size_t issued = atomic_load(&faults.issued);
    code = code ? code : real->map(device, map, address);
    atomic_store(&faults.issued_in_map, atomic_load(&faults.issued) - issued);
    usleep((useconds_t)atomic_load(&faults.mapped_delay_us));
    return code;
}

static int faulty_unmap(struct nvlxi_device *device, int gpu, uint64_t address) {
    usleep((useconds_t)atomic_load(&faults.unmap_delay_us));
    int code = real->unmap(device, gpu, address), failed = fault("unmap");
    atomic_fetch_add(&faults.unmaps, 1);
    return code ? code : failed;
}

static int faulty_limits(struct nvlxi_device *device, int gpu, struct nvlxi_gpu_limits *limits) {
    int code = fault("limits");
    return code ? code : real->limits(device, gpu, limits);
}

static struct nvlxi_link *faulty_link(struct nvlxi_device *device, int gpu, const uint8_t uuid[NVLXI_UUID_BYTES]) {
    struct nvlxi_link *link = real->link(device, gpu, uuid);
    atomic_fetch_add(&faults.links, link != NULL);
    return link;
}

static _Atomic(struct nvlxi_link *) being_woken;

static void faulty_wake(struct nvlxi_device *device, struct nvlxi_link *link) {
    atomic_store(&being_woken, link);
    atomic_fetch_add(&faults.wakes, 1);
    usleep((useconds_t)atomic_load(&faults.wake_delay_us));
    real->wake(device, link);
    atomic_store(&being_woken, NULL);
    atomic_fetch_add(&faults.woken, 1);
}

static void faulty_unlink(struct nvlxi_device *device, struct nvlxi_link *link) {
    atomic_fetch_add(&faults.unlinked_in_wake, atomic_load(&being_woken) == link);
    atomic_fetch_add(&faults.unlinks, 1);
    real->unlink(device, link);
}

static void faulty_load(struct nvlxi_device *device, int gpu) {
    atomic_fetch_add(&faults.loads, 1);
    real->load(device, gpu);
}

static int faulty_list_alloc(struct nvlxi_device *device, size_t size, void **memory) {
    int code = fault("list_alloc");
    atomic_fetch_add(&faults.list_allocs, 1);
    usleep((useconds_t)atomic_load(&faults.list_delay_us));
    return code ? code : real->list_alloc(device, size, memory);
}

static void faulty_list_free(struct nvlxi_device *device, void *memory) {
    atomic_fetch_add(&faults.list_frees, 1);
    real->list_free(device, memory);
}

static int faulty_lane_create(struct nvlxi_device *device, int gpu, int priority, struct nvlxi_lane **lane) {
    int code = fault("lane_create");
    atomic_fetch_add(&faults.lane_creates, 1);
    return code ? code : real->lane_create(device, gpu, priority, lane);
}

static void faulty_lane_destroy(struct nvlxi_lane *lane) {
    real->lane_destroy(lane);
}

static int faulty_lane_query(struct nvlxi_lane *lane) {
    return atomic_load(&faults.busy) ? NVLX_EAGAIN : real->lane_query(lane);
}

static int faulty_lane_call(struct nvlxi_lane *lane, void (*function)(void *argument), void *argument) {
    int code = fault("lane_call");
    if (!code && atomic_load(&faults.silent))
        return 0;
    return code ? code : real->lane_call(lane, function, argument);
}

static int copy_fault(const char *name) {
    int code = fault(name);
    usleep((useconds_t)atomic_load(&faults.copy_delay_us));
    if (!code && atomic_load(&faults.copies))
        code = nvlxi_fail(NVLX_EDEVICE, "the %s broke on purpose", name);
    return code;
}

static void note_issue(struct nvlxi_lane *lane, uint64_t source) {
    const size_t at = atomic_fetch_add(&faults.issued, 1);
    if (at < COUNT(faults.issues))
        faults.issues[at] = (struct issue){lane, source};
}

static int faulty_copy(struct nvlxi_lane *lane, const struct nvlxi_copy *copy) {
    int code = copy_fault("copy");
    note_issue(lane, copy->source);
    return code ? code : real->copy(lane, copy);
}

static int faulty_copy_list(struct nvlxi_lane *lane, const struct nvlxi_fragment *list, size_t count,
                            int destination_gpu, int source_gpu) {
    int code = copy_fault("copy_list");
    note_issue(lane, list->source);
    if (atomic_exchange(&faults.lane, lane) != lane)
        atomic_fetch_add(&faults.lanes, 1);
    return code ? code : real->copy_list(lane, list, count, destination_gpu, source_gpu);
}

static int faulty_copy_rows(struct nvlxi_lane *lane, const struct nvlxi_rows *list, size_t count, int destination_gpu,
                            int source_gpu) {
    int code = copy_fault("copy_rows");
    atomic_fetch_add(&faults.rows, 1);
    return code ? code : real->copy_rows(lane, list, count, destination_gpu, source_gpu);
}

static int faulty_copy_grid(struct nvlxi_lane *lane, const struct nvlxi_grid *grid, int destination_gpu,
                            int source_gpu) {
    int code = copy_fault("copy_grid");
    atomic_fetch_add(&faults.rows, 1);
    return code ? code : real->copy_grid(lane, grid, destination_gpu, source_gpu);
}

static int faulty_copy_kernel(struct nvlxi_lane *lane, const struct nvlxi_kernel *kernel) {
    int code = copy_fault("copy_kernel");
    atomic_fetch_add(&faults.kernels, 1);
    atomic_fetch_add(&faults.overlapping, kernel->overlaps);
    atomic_store(&faults.average, kernel->average);
    for (uint32_t i = 0; i < kernel->part_count; i++)
        note_issue(lane, kernel->parts[i].list->source);
    size_t at = atomic_fetch_add(&faults.launched, 1);
    if (at < COUNT(faults.launches))
        faults.launches[at] = (struct launch){lane, kernel->sms};
    return code ? code : real->copy_kernel(lane, kernel);
}

static int faulty_copy_blocks(struct nvlxi_lane *lane, const struct nvlxi_block_kernel *kernel) {
    int code = copy_fault("copy_blocks");
    atomic_fetch_add(&faults.kernels, 1);
    atomic_fetch_add(&faults.overlapping, kernel->overlaps);
    size_t at = atomic_fetch_add(&faults.launched, 1);
    if (at < COUNT(faults.launches))
        faults.launches[at] = (struct launch){lane, kernel->sms};
    return code ? code : real->copy_blocks(lane, kernel);
}

static int faulty_ids_check(struct nvlxi_device *device, int gpu, uint64_t address, uint64_t length) {
    int code = fault("ids_check");
    return code ? code : real->ids_check(device, gpu, address, length);
}

static int faulty_digest(struct nvlxi_lane *lane, const struct nvlxi_leaves *leaves) {
    int code = fault("digest");
    for (uint32_t i = 0; i < leaves->span_count; i++)
        atomic_fetch_add(&faults.digested, (long)nvlxi_leaf_count(leaves->spans[i].length));
    atomic_fetch_add(&faults.digests_queued, 1);
    if (!code && atomic_load(&faults.digests))
        code = nvlxi_fail(NVLX_EDEVICE, "the digest broke on purpose");
    return code ? code : real->digest(lane, leaves);
}

static int faulty_signal(struct nvlxi_lane *lane, const struct nvlxi_signal *signal) {
    int code = fault("signal");
    return code ? code : real->signal(lane, signal);
}

static int faulty_await(struct nvlxi_lane *lane, uint64_t address, uint64_t value) {
    int code = fault("await");
    return code ? code : real->await(lane, address, value);
}

static int faulty_await_gated(struct nvlxi_lane *lane, const struct nvlxi_gated *gated) {
    int code = fault("await_gated");
    return code ? code : real->await_gated(lane, gated);
}

static int faulty_signal_read(struct nvlxi_device *device, uint64_t address, uint64_t *value) {
    int code = fault("signal_read");
    return code ? code : real->signal_read(device, address, value);
}

static int faulty_event_create(struct nvlxi_device *device, int gpu, struct nvlxi_event **event) {
    int code = fault("event_create");
    return code ? code : real->event_create(device, gpu, event);
}

static void faulty_event_destroy(struct nvlxi_event *event) {
    real->event_destroy(event);
}

static int faulty_event_record(struct nvlxi_lane *lane, struct nvlxi_event *event) {
    int code = fault("event_record");
    atomic_store(&faults.last, event);
    return code ? code : real->event_record(lane, event);
}

/* How often an event is asked depends on the machine's mood: only the answer "complete" counts as a call. */
static int faulty_event_query(struct nvlxi_event *event) {
    int code = real->event_query(event);
    atomic_fetch_add(&faults.queried, 1);
    if (atomic_load(&faults.hold) || (atomic_load(&faults.hold_last) && atomic_load(&faults.last) == event))
        return NVLX_EAGAIN;
    if (code == 0 && atomic_load(&faults.queries))
        return nvlxi_fail(NVLX_EDEVICE, "the GPU has fallen off the bus on purpose");
    return code ? code : fault("event_query");
}

static int faulty_lane_wait(struct nvlxi_lane *lane, struct nvlxi_event *event) {
    int code = fault("lane_wait");
    return code ? code : real->lane_wait(lane, event);
}

static int faulty_stream_find(struct nvlxi_device *device, void *handle, struct nvlxi_stream *stream) {
    int code = fault("stream_find");
    return code ? code : real->stream_find(device, handle, stream);
}

static int faulty_stream_record(struct nvlxi_device *device, const struct nvlxi_stream *stream,
                                struct nvlxi_event *event) {
    int code = fault("stream_record");
    return code ? code : real->stream_record(device, stream, event);
}

static int faulty_stream_wait(struct nvlxi_device *device, const struct nvlxi_stream *stream,
                              struct nvlxi_event *event) {
    int code = fault("stream_wait");
    return code ? code : real->stream_wait(device, stream, event);
}

static int faulty_stream_lane(struct nvlxi_device *device, const struct nvlxi_stream *stream,
                              struct nvlxi_lane **lane) {
    int code = fault("stream_lane");
    return code ? code : real->stream_lane(device, stream, lane);
}

static void faulty_stream_lane_end(struct nvlxi_lane *lane) {
    real->stream_lane_end(lane);
}

static int faulty_stream_keep(struct nvlxi_device *device, const struct nvlxi_stream *stream,
                              void (*function)(void *argument), void *argument) {
    int code = fault("stream_keep");
    return code ? code : real->stream_keep(device, stream, function, argument);
}

static int faulty_await_paced(struct nvlxi_lane *lane, const struct nvlxi_paced *paced) {
    int code = fault("await_paced");
    return code ? code : real->await_paced(lane, paced);
}

const struct nvlxi_device_ops faulty_device = {
    .name = "host",
    .count = faulty_count,
    .open = faulty_open,
    .close = faulty_close,
    .uuid = faulty_uuid,
    .alloc = faulty_alloc,
    .free = faulty_free,
    .memcpy = faulty_memcpy,
    .resolve = faulty_resolve,
    .alive = faulty_alive,
    .let_use = faulty_let_use,
    .export_handle = faulty_export,
    .export_file = faulty_export_file,
    .map = faulty_map,
    .unmap = faulty_unmap,
    .link = faulty_link,
    .unlink = faulty_unlink,
    .wake = faulty_wake,
    .load = faulty_load,
    .limits = faulty_limits,
    .list_alloc = faulty_list_alloc,
    .list_free = faulty_list_free,
    .lane_create = faulty_lane_create,
    .lane_destroy = faulty_lane_destroy,
    .lane_query = faulty_lane_query,
    .lane_call = faulty_lane_call,
    .copy = faulty_copy,
    .copy_list = faulty_copy_list,
    .copy_rows = faulty_copy_rows,
    .copy_grid = faulty_copy_grid,
    .copy_kernel = faulty_copy_kernel,
    .copy_blocks = faulty_copy_blocks,
    .ids_check = faulty_ids_check,
    .digest = faulty_digest,
    .signal = faulty_signal,
    .await = faulty_await,
    .await_gated = faulty_await_gated,
    .await_paced = faulty_await_paced,
    .signal_read = faulty_signal_read,
    .event_create = faulty_event_create,
    .event_destroy = faulty_event_destroy,
    .event_record = faulty_event_record,
    .event_query = faulty_event_query,
    .lane_wait = faulty_lane_wait,
    .stream_find = faulty_stream_find,
    .stream_record = faulty_stream_record,
    .stream_wait = faulty_stream_wait,
    .stream_lane = faulty_stream_lane,
    .stream_lane_end = faulty_stream_lane_end,
    .stream_keep = faulty_stream_keep,
};

struct nvlx_engine *make_faulty_engine(uint32_t max_requests) {
    struct nvlx_engine *engine;
    struct nvlx_config config;
    fill_config(&config);
    config.max_requests = max_requests;
    OK(nvlxi_engine_create(&config, &faulty_device, &engine));
    return engine;
}

void *release_later(void *unused) {
    (void)unused;
    usleep(50000);
    atomic_store(&faults.hold, false);
    return NULL;
}
