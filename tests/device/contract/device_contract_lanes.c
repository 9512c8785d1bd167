/* The contract of lanes, events and callers' streams: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "device_contract.h"

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef NVLXI_WITH_CUDA
#include "device/cuda_stream.h"
#endif

/* ---- Helpers ----------------------------------------------------------------------------------------- */

static struct nvlxi_lane *make_lane(int gpu) {
    struct nvlxi_lane *lane;
    OK(me.ops->lane_create(me.device, gpu, 0, &lane));
    return lane;
}

static struct nvlxi_event *make_event(int gpu) {
    struct nvlxi_event *event;
    OK(me.ops->event_create(me.device, gpu, &event));
    return event;
}

static void copy(struct nvlxi_lane *lane, uint64_t destination, uint64_t source, uint64_t length, int to, int from) {
    struct nvlxi_copy one = {
        .destination = destination, .source = source, .length = length, .destination_gpu = to, .source_gpu = from};
    OK(me.ops->copy(lane, &one));
}

static void complete(struct nvlxi_lane *lane, struct nvlxi_event *event) {
    OK(me.ops->event_record(lane, event));
    wait_for(event);
}

/* Buffers for tests of order, all on GPU 0: `source` holds SEED, `middle` and `end` do not. `slow` keeps a lane busy
 * until long after a call has returned. */
enum { SEED = 11, BLANK = 200, SMALL = 4096, SLOW = 8 * MIB, SLOW_COPIES = 40 };
struct desk {
    uint64_t source, middle, end, slow;
};

static struct desk desk_make(void) {
    struct desk desk = {allocate(0, SMALL), allocate(0, SMALL), allocate(0, SMALL), allocate(0, 2 * SLOW)};
    fill(desk.source, SMALL, SEED);
    fill(desk.middle, SMALL, BLANK);
    fill(desk.end, SMALL, BLANK);
    fill(desk.slow, 2 * SLOW, BLANK);
    return desk;
}

static void desk_free(const struct desk *desk) {
    release(desk->source);
    release(desk->middle);
    release(desk->end);
    release(desk->slow);
}

static void slowly_to_middle(struct nvlxi_lane *lane, const struct desk *desk) {
    for (int i = 0; i < SLOW_COPIES; i++)
        copy(lane, desk->slow + SLOW, desk->slow, SLOW, 0, 0);
    copy(lane, desk->middle, desk->source, SMALL, 0, 0);
}

/* ---- The caller's stream: a lane on host, a stream of its own on cuda --------------------------------- */

static bool on_cuda(void) {
    return !strcmp(me.ops->name, "cuda");
}

static void *stream_make(int gpu) {
    void *stream = NULL;
#ifdef NVLXI_WITH_CUDA
    if (on_cuda()) {
        const char *error = cuda_stream_make(gpu, &stream);
        if (error)
            FAIL("a stream: %s", error);
    }
#endif
    return on_cuda() ? stream : make_lane(gpu);
}

static void stream_copy(void *stream, uint64_t destination, uint64_t source, uint64_t length) {
#ifdef NVLXI_WITH_CUDA
    if (on_cuda()) {
        const char *error = cuda_stream_copy(stream, (void *)(uintptr_t)destination, (void *)(uintptr_t)source, length);
        if (error)
            FAIL("a copy in a stream: %s", error);
        return;
    }
#endif
    copy(stream, destination, source, length, 0, 0);
}

static void stream_destroy(void *stream) {
#ifdef NVLXI_WITH_CUDA
    if (on_cuda()) {
        const char *error = cuda_stream_destroy(stream);
        if (error)
            FAIL("destroying a stream: %s", error);
        return;
    }
#endif
    me.ops->lane_destroy(stream);
}

/* ---- Copies ------------------------------------------------------------------------------------------ */

/* Whether a copy moves these bytes, and none around them. */
static void check_copy(struct nvlxi_lane *lane, struct nvlxi_event *event, uint64_t to_offset, uint64_t from_offset,
                       uint64_t length) {
    const uint64_t total = length + 8 * KIB;
    uint64_t from = allocate(0, total), to = allocate(0, total);
    uint8_t *got = malloc(total), *expected = malloc(total);
    assert_true(got && expected);
    fill(from, total, 1);
    fill(to, total, 2);
    copy(lane, to + to_offset, from + from_offset, length, 0, 0);
    complete(lane, event);
    OK(me.ops->memcpy(me.device, got, (void *)(uintptr_t)to, total));
    for (uint64_t i = 0; i < total; i++)
        expected[i] = i - to_offset < length ? seed_byte(1, i - to_offset + from_offset) : seed_byte(2, i);
    assert_true(memcmp(got, expected, total) == 0);
    free(got);
    free(expected);
    release(from);
    release(to);
}

static void copies_move_exactly_their_bytes(void **state) {
    (void)state;
    const uint64_t lengths[] = {1, 3, 4097, 8 * MIB}, offsets[][2] = {{0, 0}, {1, 0}, {0, 3}, {511, 1025}};
    struct nvlxi_lane *lane = make_lane(0);
    struct nvlxi_event *event = make_event(0);
    for (size_t i = 0; i < NVLXI_COUNT(lengths); i++)
        for (size_t j = 0; j < NVLXI_COUNT(offsets); j++)
            check_copy(lane, event, offsets[j][0], offsets[j][1], lengths[i]);
    me.ops->event_destroy(event);
    me.ops->lane_destroy(lane);
}

/* Each copy takes what the one before it has left: the last slot tells whether all of them kept their order. */
static void a_lane_keeps_its_order(void **state) {
    (void)state;
    enum { SLOTS = 2000, SLOT = 256 };
    uint64_t slots = allocate(0, SLOTS * SLOT);
    struct nvlxi_lane *lane = make_lane(0);
    struct nvlxi_event *event = make_event(0);
    fill(slots, SLOTS * SLOT, BLANK);
    fill(slots, SLOT, SEED);
    for (uint64_t i = 0; i + 1 < SLOTS; i++)
        copy(lane, slots + (i + 1) * SLOT, slots + i * SLOT, SLOT, 0, 0);
    complete(lane, event);
    assert_int_equal(wrong(slots + (SLOTS - 1) * SLOT, SLOT, SEED), 0);
    me.ops->event_destroy(event);
    me.ops->lane_destroy(lane);
    release(slots);
}

static void copies_between_gpus(void **state) {
    (void)state;
    need_two_gpus();
    for (int on = 0; on < me.gpus; on++) {
        for (int other = 0; other < me.gpus; other++) {
            uint64_t from = allocate(on, MIB), to = allocate(other, MIB), back = allocate(on, MIB);
            struct nvlxi_lane *lane = make_lane(on);
            struct nvlxi_event *event = make_event(on);
            fill(from, MIB, (uint8_t)(on * 16 + other));
            copy(lane, to, from, MIB, other, on);
            copy(lane, back, to, MIB, on, other);
            complete(lane, event);
            assert_int_equal(wrong(to, MIB, (uint8_t)(on * 16 + other)), 0);
            assert_int_equal(wrong(back, MIB, (uint8_t)(on * 16 + other)), 0);
            me.ops->event_destroy(event);
            me.ops->lane_destroy(lane);
            release(from);
            release(to);
            release(back);
        }
    }
}

static void every_gpu_has_lanes(void **state) {
    (void)state;
    for (int gpu = 0; gpu < me.gpus; gpu++) {
        uint64_t memory = allocate(gpu, 2 * MIB);
        struct nvlxi_lane *lane = make_lane(gpu);
        struct nvlxi_event *event = make_event(gpu);
        fill(memory, MIB, SEED);
        copy(lane, memory + MIB, memory, MIB, gpu, gpu);
        complete(lane, event);
        assert_int_equal(wrong(memory + MIB, MIB, SEED), 0);
        me.ops->event_destroy(event);
        me.ops->lane_destroy(lane);
        release(memory);
    }
}

static size_t entries(const char *path) {
    DIR *directory = opendir(path);
    size_t count = 0;
    assert_non_null(directory);
    while (readdir(directory))
        count++;
    closedir(directory);
    return count;
}

static void hundred_lanes(void) {
    struct nvlxi_lane *lanes[100];
    struct nvlxi_event *events[100];
    uint64_t memory = allocate(0, 2 * KIB);
    for (size_t i = 0; i < NVLXI_COUNT(lanes); i++) {
        lanes[i] = make_lane(0);
        events[i] = make_event(0);
        copy(lanes[i], memory + KIB, memory, 1, 0, 0);
        complete(lanes[i], events[i]);
    }
    for (size_t i = 0; i < NVLXI_COUNT(lanes); i++) {
        me.ops->event_destroy(events[i]);
        me.ops->lane_destroy(lanes[i]);
    }
    release(memory);
}

static void lanes_leak_nothing(void **state) {
    (void)state;
    hundred_lanes(); /* what a driver makes once and keeps is not a leak */
    size_t files = entries("/proc/self/fd"), threads = entries("/proc/self/task");
    hundred_lanes();
    assert_int_equal(entries("/proc/self/fd"), files);
    uint64_t deadline = nvlxi_deadline(5000000000); /* a joined thread stays listed for a moment */
    while (entries("/proc/self/task") > threads && nvlxi_now_ns() < deadline)
        usleep(1000);
    assert_int_equal(entries("/proc/self/task"), threads);
}

/* ---- Events ------------------------------------------------------------------------------------------ */

static void complete_means_copied(void **state) {
    (void)state;
    struct desk desk = desk_make();
    struct nvlxi_lane *lane = make_lane(0);
    struct nvlxi_event *event = make_event(0);
    OK(me.ops->event_query(event));
    for (int i = 0; i < 5; i++) {
        fill(desk.middle, SMALL, BLANK);
        slowly_to_middle(lane, &desk);
        complete(lane, event);
        assert_int_equal(wrong(desk.middle, SMALL, SEED), 0);
    }
    me.ops->event_destroy(event);
    me.ops->lane_destroy(lane);
    desk_free(&desk);
}

/* A lane tells itself when all that it was given is done: not while a copy is on its way. */
static void an_idle_lane_has_copied(void **state) {
    (void)state;
    struct desk desk = desk_make();
    struct nvlxi_lane *lane = make_lane(0);
    int busy = 0;
    OK(me.ops->lane_query(lane));
    for (int i = 0; i < 5; i++) {
        int code;
        fill(desk.middle, SMALL, BLANK);
        slowly_to_middle(lane, &desk);
        while ((code = me.ops->lane_query(lane)) == NVLX_EAGAIN)
            busy++;
        OK(code);
        assert_int_equal(wrong(desk.middle, SMALL, SEED), 0);
    }
    assert_true(busy > 0);
    me.ops->lane_destroy(lane);
    desk_free(&desk);
}

struct called {
    pthread_t by;
    atomic_int times;
};

static void note_call(void *argument) {
    struct called *called = argument;
    called->by = pthread_self();
    atomic_fetch_add(&called->times, 1);
}

static void a_lane_calls_when_it_has_copied(void **state) {
    (void)state;
    const int calls = 100;
    struct desk desk = desk_make();
    struct nvlxi_lane *lane = make_lane(0);
    struct nvlxi_event *event = make_event(0);
    struct called first = {0}, many = {0};
    slowly_to_middle(lane, &desk);
    OK(me.ops->lane_call(lane, note_call, &first));
    while (!atomic_load(&first.times))
        sched_yield();
    assert_false(pthread_equal(first.by, pthread_self()));
    assert_int_equal(wrong(desk.middle, SMALL, SEED), 0);
    for (int i = 0; i < calls; i++)
        OK(me.ops->lane_call(lane, note_call, &many));
    complete(lane, event);
    assert_int_equal(atomic_load(&many.times) + atomic_load(&first.times), calls + 1);
    me.ops->event_destroy(event);
    me.ops->lane_destroy(lane);
    desk_free(&desk);
}

/* An event that is recorded twice tells of the second time, also if the first has long come. */
static void recording_again_replaces(void **state) {
    (void)state;
    struct desk desk = desk_make();
    struct nvlxi_lane *lane = make_lane(0);
    struct nvlxi_event *event = make_event(0);
    complete(lane, event);
    slowly_to_middle(lane, &desk);
    OK(me.ops->event_record(lane, event));
    wait_for(event);
    assert_int_equal(wrong(desk.middle, SMALL, SEED), 0);
    me.ops->event_destroy(event);
    me.ops->lane_destroy(lane);
    desk_free(&desk);
}

/* As the event was at the call: recorded again afterwards, in an idle lane, it releases nobody. */
static void a_wait_keeps_its_point(void **state) {
    (void)state;
    struct desk desk = desk_make();
    struct nvlxi_lane *producer = make_lane(0), *consumer = make_lane(0), *idle = make_lane(0);
    struct nvlxi_event *event = make_event(0), *end = make_event(0);
    slowly_to_middle(producer, &desk);
    OK(me.ops->event_record(producer, event));
    OK(me.ops->lane_wait(consumer, event));
    complete(idle, event);
    me.ops->event_destroy(event);
    copy(consumer, desk.end, desk.middle, SMALL, 0, 0);
    complete(consumer, end);
    assert_int_equal(wrong(desk.end, SMALL, SEED), 0);
    me.ops->event_destroy(end);
    me.ops->lane_destroy(producer);
    me.ops->lane_destroy(consumer);
    me.ops->lane_destroy(idle);
    desk_free(&desk);
}

/* An event that was never recorded holds nobody up, even if what is queued behind the wait records it. */
static void a_wait_for_nothing_passes(void **state) {
    (void)state;
    struct nvlxi_lane *lane = make_lane(0);
    struct nvlxi_event *event = make_event(0);
    OK(me.ops->lane_wait(lane, event));
    complete(lane, event);
    OK(me.ops->lane_wait(lane, event));
    complete(lane, event);
    me.ops->event_destroy(event);
    me.ops->lane_destroy(lane);
}

static void waits_order_lanes(void **state) {
    (void)state;
    enum { LANES = 8 };
    struct desk desk = desk_make();
    uint64_t slots = allocate(0, LANES * SMALL), from = desk.middle;
    struct nvlxi_lane *lanes[LANES];
    struct nvlxi_event *events[LANES];
    fill(slots, LANES * SMALL, BLANK);
    for (int i = 0; i < LANES; i++) {
        lanes[i] = make_lane(0);
        events[i] = make_event(0);
    }
    slowly_to_middle(lanes[0], &desk);
    for (int i = 0; i < LANES; i++) {
        if (i)
            OK(me.ops->lane_wait(lanes[i], events[i - 1]));
        copy(lanes[i], slots + (uint64_t)i * SMALL, from, SMALL, 0, 0);
        OK(me.ops->event_record(lanes[i], events[i]));
        from = slots + (uint64_t)i * SMALL;
    }
    wait_for(events[LANES - 1]);
    assert_int_equal(wrong(from, SMALL, SEED), 0);
    for (int i = 0; i < LANES; i++) {
        me.ops->event_destroy(events[i]);
        me.ops->lane_destroy(lanes[i]);
    }
    release(slots);
    desk_free(&desk);
}

static void events_belong_to_a_gpu(void **state) {
    (void)state;
    need_two_gpus();
    struct desk desk = desk_make();
    struct nvlxi_lane *zero = make_lane(0), *one = make_lane(1);
    struct nvlxi_event *event = make_event(0), *end = make_event(1);
    GIVES(NVLX_EDEVICE, me.ops->event_record(one, event));
    slowly_to_middle(zero, &desk);
    OK(me.ops->event_record(zero, event));
    OK(me.ops->lane_wait(one, event));
    copy(one, desk.end, desk.middle, SMALL, 0, 0);
    complete(one, end);
    assert_int_equal(wrong(desk.end, SMALL, SEED), 0);
    me.ops->event_destroy(event);
    me.ops->event_destroy(end);
    me.ops->lane_destroy(zero);
    me.ops->lane_destroy(one);
    desk_free(&desk);
}

/* ---- Threads ----------------------------------------------------------------------------------------- */

struct sharer {
    pthread_t thread;
    struct nvlxi_lane *lane;
    uint64_t memory; /* two slots of SMALL bytes */
    int failures;
};

/* No assertions here: cmocka's belong to the thread that runs the case. */
static void *share_lane(void *argument) {
    struct sharer *sharer = argument;
    struct nvlxi_copy one = {.destination = sharer->memory + SMALL, .source = sharer->memory, .length = SMALL};
    struct nvlxi_event *event;
    if ((sharer->failures = me.ops->event_create(me.device, 0, &event) != 0))
        return NULL;
    for (int i = 0; i < 100; i++) {
        struct message m = {.errand = ERRAND_FILL, .address = one.source, .length = SMALL, .seed = (uint8_t)i};
        sharer->failures += work(&me, &m) || me.ops->copy(sharer->lane, &one);
        sharer->failures += me.ops->event_record(sharer->lane, event) || await(me.ops, event);
        m.errand = ERRAND_CHECK;
        m.address = one.destination;
        sharer->failures += work(&me, &m) || m.wrong;
    }
    me.ops->event_destroy(event);
    return NULL;
}

static void threads_share_a_lane(void **state) {
    (void)state;
    struct sharer sharers[4];
    struct nvlxi_lane *lane = make_lane(0);
    for (size_t i = 0; i < NVLXI_COUNT(sharers); i++) {
        sharers[i] = (struct sharer){.lane = lane, .memory = allocate(0, 2 * SMALL)};
        assert_int_equal(pthread_create(&sharers[i].thread, NULL, share_lane, &sharers[i]), 0);
    }
    for (size_t i = 0; i < NVLXI_COUNT(sharers); i++) {
        pthread_join(sharers[i].thread, NULL);
        assert_int_equal(sharers[i].failures, 0);
        release(sharers[i].memory);
    }
    me.ops->lane_destroy(lane);
}

struct stranger {
    uint64_t memory;
    const struct nvlxi_segment_record *record;
    int failures;
};

/* A thread that CUDA has never seen: it has no current context. */
static void *call_everything(void *argument) {
    struct stranger *stranger = argument;
    struct nvlxi_allocation found;
    struct nvlxi_handle handle;
    uint64_t mapped;
    uint8_t byte;
    int *failures = &stranger->failures;
    *failures += me.ops->resolve(me.device, stranger->memory + 5, &found) != 0;
    *failures += me.ops->alive(me.device, &found) != 0;
    *failures += me.ops->export_handle(me.device, &found, &handle) != 0;
    *failures += map_plain(&me, 0, stranger->record, &mapped) != 0;
    *failures += me.ops->memcpy(me.device, &byte, (void *)(uintptr_t)mapped, 1) != 0;
    struct message m = {.errand = ERRAND_COPY, .address = stranger->memory, .source = mapped, .length = SMALL};
    *failures += work(&me, &m) != 0;
    *failures += me.ops->unmap(me.device, 0, mapped) != 0;
    return NULL;
}

static void a_new_thread_may_call(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(SMALL, SEED);
    struct stranger stranger = {.memory = allocate(0, SMALL), .record = &record};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, call_everything, &stranger), 0);
    pthread_join(thread, NULL);
    assert_int_equal(stranger.failures, 0);
    assert_int_equal(wrong(stranger.memory, SMALL, SEED), 0);
    release(stranger.memory);
}

/* ---- The caller's stream ----------------------------------------------------------------------------- */

static void streams_have_a_gpu(void **state) {
    (void)state;
    for (int gpu = 0; gpu < me.gpus; gpu++) {
        struct nvlxi_stream found, again, other_found;
        void *stream = stream_make(gpu), *other = stream_make(gpu);
        OK(me.ops->stream_find(me.device, stream, &found));
        OK(me.ops->stream_find(me.device, stream, &again));
        OK(me.ops->stream_find(me.device, other, &other_found));
        assert_int_equal(found.gpu, gpu);
        assert_ptr_equal(found.handle, stream);
        assert_true(found.id == again.id && found.id != other_found.id);
        stream_destroy(stream);
        stream_destroy(other);
    }
}

/* CUDA gives a handle to another stream once the first is destroyed; not so the id. */
static void ids_of_streams_are_not_used_again(void **state) {
    (void)state;
    uint64_t ids[100];
    for (size_t i = 0; i < NVLXI_COUNT(ids); i++) {
        struct nvlxi_stream found;
        void *stream = stream_make(0);
        OK(me.ops->stream_find(me.device, stream, &found));
        ids[i] = found.id;
        stream_destroy(stream);
        for (size_t j = 0; j < i; j++)
            assert_true(ids[j] != ids[i]);
    }
}

static void default_streams(void **state) {
    (void)state;
    int wanted = difference("default streams") ? NVLX_ENOTSUP : 0;
    struct nvlxi_stream legacy = {0}, own = {0};
    void *stream = stream_make(0); /* on cuda this makes GPU 0 the current device */
    GIVES(wanted, me.ops->stream_find(me.device, NVLX_STREAM_LEGACY, &legacy));
    GIVES(wanted, me.ops->stream_find(me.device, NVLX_STREAM_PER_THREAD, &own));
    assert_true(!wanted || strstr(nvlx_last_error(), "it knows no CUDA streams"));
    assert_true(legacy.gpu == 0 && own.gpu == 0 && (wanted || legacy.id != own.id));
    stream_destroy(stream);
}

/* The caller's work, the transfer after it, and the caller's next work after that. */
static void transfers_take_their_place_in_a_stream(void **state) {
    (void)state;
    struct desk desk = desk_make();
    uint64_t last = allocate(0, SMALL);
    void *handle = stream_make(0);
    struct nvlxi_stream found, *stream = &found;
    struct nvlxi_lane *lane = make_lane(0);
    struct nvlxi_event *before = make_event(0), *after = make_event(0), *end = make_event(0);
    fill(last, SMALL, BLANK);
    OK(me.ops->stream_find(me.device, handle, stream));
    for (int i = 0; i < SLOW_COPIES; i++)
        stream_copy(handle, desk.slow + SLOW, desk.slow, SLOW);
    stream_copy(handle, desk.middle, desk.source, SMALL);
    OK(me.ops->stream_record(me.device, stream, before));
    OK(me.ops->lane_wait(lane, before));
    for (int i = 0; i < SLOW_COPIES; i++)
        copy(lane, desk.slow + SLOW, desk.slow, SLOW, 0, 0);
    copy(lane, desk.end, desk.middle, SMALL, 0, 0);
    OK(me.ops->event_record(lane, after));
    OK(me.ops->stream_wait(me.device, stream, after));
    stream_copy(handle, last, desk.end, SMALL);
    OK(me.ops->stream_record(me.device, stream, end));
    wait_for(end);
    assert_int_equal(wrong(desk.end, SMALL, SEED), 0);
    assert_int_equal(wrong(last, SMALL, SEED), 0);
    me.ops->event_destroy(before);
    me.ops->event_destroy(after);
    me.ops->event_destroy(end);
    me.ops->lane_destroy(lane);
    stream_destroy(handle);
    release(last);
    desk_free(&desk);
}

const struct contract_case lane_cases[] = {
    {"copies move exactly their bytes", copies_move_exactly_their_bytes},
    {"a lane keeps its order", a_lane_keeps_its_order},
    {"copies between gpus", copies_between_gpus},
    {"every gpu has lanes", every_gpu_has_lanes},
    {"lanes leak nothing", lanes_leak_nothing},
    {"complete means copied", complete_means_copied},
    {"an idle lane has copied", an_idle_lane_has_copied},
    {"a lane calls when it has copied", a_lane_calls_when_it_has_copied},
    {"recording again replaces", recording_again_replaces},
    {"a wait keeps its point", a_wait_keeps_its_point},
    {"a wait for nothing passes", a_wait_for_nothing_passes},
    {"waits order lanes", waits_order_lanes},
    {"events belong to a gpu", events_belong_to_a_gpu},
    {"threads share a lane", threads_share_a_lane},
    {"a new thread may call", a_new_thread_may_call},
    {"streams have a gpu", streams_have_a_gpu},
    {"ids of streams are not used again", ids_of_streams_are_not_used_again},
    {"default streams", default_streams},
    {"transfers take their place in a stream", transfers_take_their_place_in_a_stream},
};
const size_t lane_case_count = NVLXI_COUNT(lane_cases);
