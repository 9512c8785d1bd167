/* The contract of signals and of waits for them: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "device_contract.h"

#include <unistd.h>

#include "device_contract_files.h"

enum { SEED = 41, BLANK = 90, BYTES = 8 * MIB, COPIES = 20, BRIEF_US = 20000 };

struct desk { /* two lanes of GPU 0, and counts there */
    struct nvlxi_lane *lane, *other;
    struct nvlxi_event *event;
    uint64_t counts;
};

static struct desk desk_make(void) {
    struct desk desk = {.counts = allocate(0, KIB)};
    const uint8_t zeros[KIB] = {0};
    OK(me.ops->lane_create(me.device, 0, 0, &desk.lane));
    OK(me.ops->lane_create(me.device, 0, 0, &desk.other));
    OK(me.ops->event_create(me.device, 0, &desk.event));
    OK(me.ops->memcpy(me.device, (void *)(uintptr_t)desk.counts, zeros, KIB));
    return desk;
}

static void desk_free(const struct desk *desk) {
    me.ops->event_destroy(desk->event);
    me.ops->lane_destroy(desk->other);
    me.ops->lane_destroy(desk->lane);
    release(desk->counts);
}

static void complete(const struct desk *desk, struct nvlxi_lane *lane) {
    OK(me.ops->event_record(lane, desk->event));
    wait_for(desk->event);
}

static int queue_signal(struct nvlxi_lane *lane, uint64_t address, uint64_t value, bool add) {
    const struct nvlxi_signal signal = {address, value, add};
    return me.ops->signal(lane, &signal);
}

static uint64_t count_at(uint64_t address) {
    uint64_t count = 0;
    OK(me.ops->signal_read(me.device, address, &count));
    return count;
}

static void signals_set_and_add(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    OK(queue_signal(desk.lane, desk.counts + 8, UINT64_C(0x123456789abcdef0), false));
    OK(queue_signal(desk.lane, desk.counts + 16, 5, true));
    OK(queue_signal(desk.lane, desk.counts + 16, UINT64_MAX, true));
    complete(&desk, desk.lane);
    assert_int_equal(count_at(desk.counts), 0);
    assert_true(count_at(desk.counts + 8) == UINT64_C(0x123456789abcdef0));
    assert_int_equal(count_at(desk.counts + 16), 4);
    assert_int_equal(count_at(desk.counts + 24), 0);
    desk_free(&desk);
}

/* Queues a wait, and says whether it holds up what is behind it. */
static bool holds_up(const struct desk *desk, uint64_t awaited) {
    OK(me.ops->await(desk->lane, desk->counts, awaited));
    OK(me.ops->event_record(desk->lane, desk->event));
    usleep(BRIEF_US);
    return me.ops->event_query(desk->event) == NVLX_EAGAIN;
}

static void set_now(const struct desk *desk, uint64_t value) {
    OK(queue_signal(desk->other, desk->counts, value, false));
}

static void a_wait_ends_when_the_count_is_reached(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    assert_true(holds_up(&desk, 3));
    set_now(&desk, 2);
    usleep(BRIEF_US);
    assert_int_equal(me.ops->event_query(desk.event), NVLX_EAGAIN);
    set_now(&desk, 4);
    wait_for(desk.event);
    OK(me.ops->await(desk.lane, desk.counts, 4));
    OK(me.ops->await(desk.lane, desk.counts, 1));
    complete(&desk, desk.lane);
    desk_free(&desk);
}

static void counts_wrap_around(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    OK(me.ops->await(desk.lane, desk.counts, UINT64_MAX)); /* 0 is one more */
    OK(me.ops->await(desk.lane, desk.counts, (UINT64_C(1) << 63) + 1));
    complete(&desk, desk.lane);
    assert_true(holds_up(&desk, UINT64_C(1) << 63));
    set_now(&desk, 1);
    usleep(BRIEF_US);
    assert_int_equal(me.ops->event_query(desk.event), NVLX_EAGAIN); /* 2^63 - 1 behind */
    set_now(&desk, UINT64_C(1) << 63);
    wait_for(desk.event);
    desk_free(&desk);
}

/* Behind slow copies; another lane copies on as soon as it sees the signal. */
static void a_signal_comes_after_what_is_before_it(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    const uint64_t from = allocate(0, BYTES), middle = allocate(0, BYTES), to = allocate(0, BYTES);
    fill(from, BYTES, SEED);
    for (uint64_t round = 1; round <= 20; round++) {
        fill(middle, BYTES, BLANK);
        fill(to, BYTES, BLANK);
        const struct nvlxi_copy there = {middle, from, BYTES, 0, 0}, on = {to, middle, BYTES, 0, 0};
        OK(me.ops->await(desk.other, desk.counts, round));
        OK(me.ops->copy(desk.other, &on));
        for (int i = 0; i < COPIES; i++)
            OK(me.ops->copy(desk.lane, &there));
        OK(queue_signal(desk.lane, desk.counts, 1, true));
        complete(&desk, desk.other);
        assert_int_equal(wrong(to, BYTES, SEED), 0);
        complete(&desk, desk.lane);
    }
    release(from);
    release(middle);
    release(to);
    desk_free(&desk);
}

static void signal_there(int gpu, const struct nvlxi_segment_record *record, uint64_t offset, uint64_t value,
                         bool add) {
    struct message m = there((struct message){.errand = ERRAND_MAP, .gpu = gpu, .record = *record});
    m.errand = ERRAND_SIGNAL;
    m.address += offset;
    m.value = value;
    m.add = add;
    m = there(m);
    m.errand = ERRAND_UNMAP;
    m.address -= offset;
    there(m);
}

static void a_peer_ends_a_wait(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    struct nvlxi_segment_record record = here((struct message){.errand = ERRAND_EXPORT, .address = desk.counts}).record;
    const uint64_t offset = desk.counts - record.base;
    const int gpu = me.gpus > 1 ? 1 : 0;
    assert_true(holds_up(&desk, 7));
    signal_there(gpu, &record, offset, 7, false);
    wait_for(desk.event);
    assert_true(holds_up(&desk, 9));
    signal_there(gpu, &record, offset, 2, true);
    wait_for(desk.event);
    assert_int_equal(count_at(desk.counts), 9);
    desk_free(&desk);
}

/* Nobody signals any more: the owner of the count ends the wait. */
static void its_own_side_ends_a_wait_for_a_dead_peer(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    const struct nvlxi_segment_record record =
        here((struct message){.errand = ERRAND_EXPORT, .address = desk.counts}).record;
    there((struct message){.errand = ERRAND_MAP, .record = record});
    assert_true(holds_up(&desk, 1));
    peer_kill();
    usleep(BRIEF_US);
    assert_int_equal(me.ops->event_query(desk.event), NVLX_EAGAIN);
    set_now(&desk, 1);
    wait_for(desk.event);
    desk_free(&desk);
}

/* A reader waits for a count of its peer's: as for the readiness of what it reads. */
static void a_wait_for_a_mapped_count(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    const struct nvlxi_segment_record record = peer_segment(KIB, 0);
    const uint64_t mapped = map(0, &record);
    OK(queue_signal(desk.other, mapped, 0, false));
    complete(&desk, desk.other);
    OK(me.ops->await(desk.lane, mapped, 6));
    OK(me.ops->event_record(desk.lane, desk.event));
    usleep(BRIEF_US);
    assert_int_equal(me.ops->event_query(desk.event), NVLX_EAGAIN);
    there((struct message){.errand = ERRAND_SIGNAL, .address = record.base, .value = 6});
    wait_for(desk.event);
    assert_int_equal(count_at(mapped), 6);
    unmap(0, mapped);
    desk_free(&desk);
}

static const uint32_t kinds[] = {NVLXI_KIND_CUDA_MALLOC, NVLXI_KIND_VMM, NVLXI_KIND_POOL};

static void change_count(const struct desk *desk, uint64_t count) {
    OK(queue_signal(desk->lane, count, 3, false));
    OK(queue_signal(desk->lane, count, 1, true));
    complete(desk, desk->lane);
    assert_int_equal(count_at(count), 4);
}

/* Streams do not wait for memory of pools. */
static void counts_lie_in_memory_of_every_kind(void **state) {
    (void)state;
    need_pools();
    const struct desk desk = desk_make();
    for (size_t i = 0; i < NVLXI_COUNT(kinds); i++) {
        const uint64_t memory = allocate_kind(kinds[i], 0, CHUNK, CHUNK), count = memory + 64;
        change_count(&desk, count);
        GIVES(kinds[i] == NVLXI_KIND_POOL ? NVLX_ENOTSUP : 0, me.ops->await(desk.lane, count, 4));
        complete(&desk, desk.lane);
        release(memory);
    }
    desk_free(&desk);
}

static void counts_of_a_peer_lie_in_memory_of_every_kind(void **state) {
    (void)state;
    need_pools();
    const struct desk desk = desk_make();
    for (size_t i = 0; i < NVLXI_COUNT(kinds); i++) {
        const struct nvlxi_segment_record record = peer_record(peer_memory(kinds[i], CHUNK, CHUNK, 0));
        const uint64_t mapped = record.file ? map_run(0, 1, &record, false) : map(0, &record);
        change_count(&desk, mapped + 8);
        unmap(0, mapped);
    }
    desk_free(&desk);
}

static void what_is_no_count_is_refused(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    uint64_t none[2] = {0}, value;
    GIVES(NVLX_EDEVICE, queue_signal(desk.lane, desk.counts + 4, 1, false));
    GIVES(NVLX_EDEVICE, queue_signal(desk.lane, desk.counts + 1, 1, true));
    GIVES(NVLX_EDEVICE, me.ops->await(desk.lane, desk.counts + 4, 0));
    GIVES(NVLX_EDEVICE, queue_signal(desk.lane, 0x1000, 1, false));
    GIVES(NVLX_EDEVICE, queue_signal(desk.lane, (uintptr_t)none, 1, false));
    GIVES(NVLX_EDEVICE, me.ops->await(desk.lane, (uintptr_t)none, 0));
    GIVES(NVLX_EDEVICE, me.ops->signal_read(me.device, 0x1000, &value));
    complete(&desk, desk.lane);
    assert_int_equal(count_at(desk.counts), 0);
    desk_free(&desk);
}

static void a_signal_into_a_read_only_mapping_is_refused(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    struct message m = there((struct message){.errand = ERRAND_ALLOC, .kind = NVLXI_KIND_VMM, .length = 2 * MIB});
    m.errand = ERRAND_EXPORT;
    const struct nvlxi_segment_record record = there(m).record;
    const uint64_t mapped = map_run(0, 1, &record, true), before = count_at(mapped);
    if (me.ops == &nvlxi_device_host) /* it costs another one's context */
        GIVES(NVLX_EDEVICE, queue_signal(desk.lane, mapped, before + 1, false));
    GIVES(NVLX_EDEVICE, queue_signal(desk.lane, mapped, 1, true));
    OK(me.ops->await(desk.lane, mapped, before));
    complete(&desk, desk.lane);
    assert_true(count_at(mapped) == before);
    unmap(0, mapped);
    desk_free(&desk);
}

/* Queues one behind what is there, and says whether it holds up what is behind it. */
static bool gated_holds_up(const struct desk *desk, uint64_t address, uint64_t value, uint64_t pass) {
    const struct nvlxi_gated gated = {address, value, desk->counts + 8, pass};
    OK(me.ops->await_gated(desk->lane, &gated));
    OK(me.ops->event_record(desk->lane, desk->event));
    usleep(BRIEF_US);
    return me.ops->event_query(desk->event) == NVLX_EAGAIN;
}

/* A count that is only read here: it stays as it is. */
static void a_gated_wait_ends_with_the_count_or_the_gate(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    struct message m = there((struct message){.errand = ERRAND_ALLOC, .kind = NVLXI_KIND_VMM, .length = 2 * MIB});
    m.errand = ERRAND_EXPORT;
    const struct nvlxi_segment_record record = there(m).record;
    const uint64_t mapped = map_run(0, 1, &record, true), before = count_at(mapped);
    assert_false(gated_holds_up(&desk, mapped, before, 1));
    assert_true(gated_holds_up(&desk, mapped, before + 1, 7));
    OK(queue_signal(desk.other, desk.counts + 8, 6, false));
    usleep(BRIEF_US);
    GIVES(NVLX_EAGAIN, me.ops->event_query(desk.event));
    OK(queue_signal(desk.other, desk.counts + 8, 7, false));
    wait_for(desk.event);
    assert_true(gated_holds_up(&desk, desk.counts, 5, 8));
    set_now(&desk, 5);
    wait_for(desk.event);
    assert_true(count_at(mapped) == before && count_at(desk.counts + 8) == 7);
    const struct nvlxi_gated odd = {desk.counts + 4, 1, desk.counts + 8, 1}, gateless = {desk.counts, 1, 8, 1};
    GIVES(NVLX_EDEVICE, me.ops->await_gated(desk.lane, &odd));
    GIVES(NVLX_EDEVICE, me.ops->await_gated(desk.lane, &gateless));
    unmap(0, mapped);
    desk_free(&desk);
}

/* Queues one, as a graph does each time, and says whether it holds up what is behind it. */
static bool paced_holds_up(const struct desk *desk, uint64_t value, uint64_t reached, const uint64_t *gate) {
    const struct nvlxi_paced paced = {
        .address = desk->counts, .value = value, .reached = reached, .gate = gate, .mark = desk->counts + 16};
    OK(me.ops->await_paced(desk->lane, &paced));
    OK(me.ops->event_record(desk->lane, desk->event));
    usleep(BRIEF_US);
    return me.ops->event_query(desk->event) == NVLX_EAGAIN;
}

static void a_paced_wait_goes_on_from_what_was_reached(void **state) {
    (void)state;
    const struct desk desk = desk_make();
    const uint64_t reached = desk.counts + 8;
    void *gate;
    OK(me.ops->list_alloc(me.device, sizeof(uint64_t), &gate));
    __atomic_store_n((uint64_t *)gate, 0, __ATOMIC_RELEASE);
    assert_true(paced_holds_up(&desk, 2, reached, gate));
    set_now(&desk, 3);
    wait_for(desk.event);
    assert_int_equal(count_at(reached), 2);
    assert_true(paced_holds_up(&desk, 2, reached, gate));
    set_now(&desk, 4);
    wait_for(desk.event);
    assert_int_equal(count_at(reached), 4);
    assert_false(paced_holds_up(&desk, 4, 0, gate));
    assert_int_equal(count_at(desk.counts + 16), 0);
    assert_true(paced_holds_up(&desk, 1, reached, gate));
    __atomic_store_n((uint64_t *)gate, 77, __ATOMIC_RELEASE);
    wait_for(desk.event);
    assert_int_equal(count_at(desk.counts + 16), 77);
    assert_int_equal(count_at(reached), 4);
    assert_false(paced_holds_up(&desk, 9, 0, gate)); /* from now on none does */
    const struct nvlxi_paced odd = {.address = desk.counts, .reached = reached + 4, .gate = gate},
                             nowhere = {.address = desk.counts, .mark = 8, .gate = gate};
    GIVES(NVLX_EDEVICE, me.ops->await_paced(desk.lane, &odd));
    GIVES(NVLX_EDEVICE, me.ops->await_paced(desk.lane, &nowhere));
    me.ops->list_free(me.device, gate);
    desk_free(&desk);
}

const struct contract_case signal_cases[] = {
    {"signals set and add", signals_set_and_add},
    {"a wait ends when the count is reached", a_wait_ends_when_the_count_is_reached},
    {"counts wrap around", counts_wrap_around},
    {"a signal comes after what is before it", a_signal_comes_after_what_is_before_it},
    {"a peer ends a wait", a_peer_ends_a_wait},
    {"its own side ends a wait for a dead peer", its_own_side_ends_a_wait_for_a_dead_peer},
    {"a wait for a mapped count", a_wait_for_a_mapped_count},
    {"counts lie in memory of every kind", counts_lie_in_memory_of_every_kind},
    {"counts of a peer lie in memory of every kind", counts_of_a_peer_lie_in_memory_of_every_kind},
    {"what is no count is refused", what_is_no_count_is_refused},
    {"a signal into a read-only mapping is refused", a_signal_into_a_read_only_mapping_is_refused},
    {"a gated wait ends with the count or the gate", a_gated_wait_ends_with_the_count_or_the_gate},
    {"a paced wait goes on from what was reached", a_paced_wait_goes_on_from_what_was_reached},
};
const size_t signal_case_count = NVLXI_COUNT(signal_cases);
