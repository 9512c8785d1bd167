/* What only the host backend promises: its strictness about handles, its setting, and that it leaves nothing behind.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host_support.h"

static struct nvlxi_host_handle handle_of(const struct nvlxi_segment_record *record) {
    struct nvlxi_host_handle handle;
    assert_int_equal(record->handle.length, sizeof handle);
    memcpy(&handle, record->handle.bytes, sizeof handle);
    return handle;
}

static int map_forged(struct nvlxi_segment_record record, struct nvlxi_host_handle handle) {
    uint64_t address;
    memcpy(record.handle.bytes, &handle, sizeof handle);
    int code = map_plain(&me, 0, &record, &address);
    if (!code)
        OK(ops->unmap(me.device, 0, address));
    return code;
}

/* ---- Settings ---------------------------------------------------------------------------------------- */

static void setting_is_checked(void **state) {
    (void)state;
    static const char *const bad[] = {
        "", "0", "65", "-1", "+2", " 2", "2 ", "two", "2x", "0x2", "99999999999999999999"};
    static const int good[] = {1, 2, 64};
    char text[16];
    int gpus = 77;
    for (size_t i = 0; i < NVLXI_COUNT(bad); i++) {
        setenv("NVLX_HOST_GPUS", bad[i], 1);
        GIVES(NVLX_EBACKEND, ops->count(&gpus));
        expect_words(bad[i]);
        expect_words("NVLX_HOST_GPUS");
        assert_int_equal(gpus, 77);
        struct nvlxi_device *device = NULL;
        GIVES(NVLX_EBACKEND, ops->open(NULL, 0, &device));
        assert_null(device);
    }
    for (size_t i = 0; i < NVLXI_COUNT(good); i++) {
        snprintf(text, sizeof text, "%d", good[i]);
        setenv("NVLX_HOST_GPUS", text, 1);
        OK(ops->count(&gpus));
        assert_int_equal(gpus, good[i]);
    }
    unsetenv("NVLX_HOST_GPUS");
    OK(ops->count(&gpus));
    assert_int_equal(gpus, 2);
}

static void listed_gpus_only(void **state) {
    (void)state;
    const int one[] = {1}, none[] = {0, 2}, negative[] = {-1};
    struct nvlxi_device *device;
    struct nvlxi_event *event;
    struct nvlxi_lane *lane;
    struct nvlxi_segment_record record = peer_segment(MIB);
    struct nvlxi_allocation found;
    struct party party = {.ops = ops};
    uint64_t mapped;
    void *address;
    GIVES(NVLX_EINVAL, ops->open(none, 2, &device));
    expect_words("is 2, but there are 2");
    GIVES(NVLX_EINVAL, ops->open(negative, 1, &device));
    OK(ops->open(one, 1, &device));
    party.device = device;
    GIVES(NVLX_EINVAL, alloc_plain(&party, 0, MIB, &address));
    expect_words("config.gpus");
    GIVES(NVLX_EINVAL, map_plain(&party, 0, &record, &mapped));
    GIVES(NVLX_EINVAL, ops->lane_create(device, 0, 0, &lane));
    GIVES(NVLX_EINVAL, ops->event_create(device, 0, &event));
    OK(alloc_plain(&me, 0, MIB, &address));
    GIVES(NVLX_EINVAL, ops->resolve(device, (uintptr_t)address, &found));
    expect_words("config.gpus");
    OK(ops->free(me.device, address));
    OK(map_plain(&party, 1, &record, &mapped));
    OK(ops->unmap(device, 1, mapped));
    ops->close(device);
}

static bool has_context(struct nvlxi_device *device, int gpu) {
    struct nvlxi_event *event;
    int code = ops->event_create(device, gpu, &event);
    if (!code)
        ops->event_destroy(event);
    return code == 0;
}

/* Without a list: on GPUs that alloc and map name, for the device's life; by others where a context is active. */
static void contexts_where_named(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB);
    struct nvlxi_device *device, *other;
    struct nvlxi_lane *lane;
    uint64_t mapped;
    void *address;
    ops->close(me.device); /* it has one on all of them */
    OK(ops->open(NULL, 0, &device));
    OK(ops->open(NULL, 0, &other));
    struct party party = {.ops = ops, .device = device};
    GIVES(NVLX_EINVAL, ops->lane_create(device, 0, 0, &lane));
    expect_words("no active context");
    OK(alloc_plain(&party, 1, MIB, &address));
    OK(ops->free(device, address));
    assert_true(has_context(device, 1) && !has_context(device, 0) && !has_context(other, 0));
    OK(map_plain(&party, 0, &record, &mapped));
    OK(ops->unmap(device, 0, mapped));
    assert_true(has_context(device, 0) && has_context(other, 0));
    ops->close(device);
    assert_true(has_context(other, 0) && !has_context(other, 1));
    ops->close(other);
    OK(party_open(ops, &me));
}

/* ---- Memory ------------------------------------------------------------------------------------------ */

static void memcpy_stays_inside(void **state) {
    (void)state;
    static uint8_t bytes[4 * 1024];
    void *address;
    OK(alloc_plain(&me, 0, 1024, &address));
    OK(ops->memcpy(me.device, address, bytes, 1024));
    OK(ops->memcpy(me.device, (char *)address + 1024 - 1, bytes, 1));
    GIVES(NVLX_ERANGE, ops->memcpy(me.device, (char *)address + 1, bytes, 1024));
    expect_words("leave their allocation");
    GIVES(NVLX_ERANGE, ops->memcpy(me.device, bytes, address, sizeof bytes));
    OK(ops->free(me.device, address));
}

static void memory_is_known_to_all_engines(void **state) {
    (void)state;
    struct nvlxi_allocation found;
    struct nvlxi_device *other;
    void *address, *gone;
    OK(ops->open(NULL, 0, &other));
    OK(alloc_plain(&me, 1, 100, &address));
    OK(ops->resolve(other, (uintptr_t)address + 99, &found));
    assert_int_equal(found.base, (uintptr_t)address);
    assert_int_equal(found.size, 100);
    GIVES(NVLX_ENOTSUP, ops->resolve(other, (uintptr_t)address + 100, &found));
    GIVES(NVLX_ENOTSUP, ops->resolve(other, (uintptr_t)address - 1, &found));
    GIVES(NVLX_ENOTSUP, ops->resolve(other, UINT64_MAX, &found));
    GIVES(NVLX_EINVAL, ops->free(other, address));
    GIVES(NVLX_EINVAL, ops->free(me.device, (char *)address + 1));
    GIVES(NVLX_EINVAL, alloc_plain(&me, 0, 0, &gone));
    GIVES(NVLX_EDEVICE, alloc_plain(&me, 0, SIZE_MAX, &gone));
    GIVES(NVLX_EDEVICE, alloc_plain(&me, 0, (size_t)1 << 60, &gone));
    expect_words("out of memory: 1152921504606846976 bytes were asked for, and GPU 0 has ");
    OK(ops->free(me.device, address));
    GIVES(NVLX_EINVAL, ops->free(me.device, address));
    ops->close(other);
}

/* Of the first, the middle and the last of many, while others come and go. */
static void many_allocations_are_found(void **state) {
    (void)state;
    enum { COUNT = 500 };
    void *addresses[COUNT];
    struct nvlxi_allocation found;
    uint64_t serial = 0;
    for (int i = 0; i < COUNT; i++)
        OK(alloc_plain(&me, i % 2, (size_t)(1 + i * 37), &addresses[i]));
    for (int i = 0; i < COUNT; i += 2)
        OK(ops->free(me.device, addresses[i]));
    for (int i = 1; i < COUNT; i += 2) {
        OK(ops->resolve(me.device, (uintptr_t)addresses[i] + (uint64_t)i * 37, &found));
        assert_int_equal(found.base, (uintptr_t)addresses[i]);
        assert_true(found.serial > serial);
        serial = found.serial;
        OK(ops->free(me.device, addresses[i]));
    }
}

/* ---- Handles ----------------------------------------------------------------------------------------- */

static void lying_sizes_are_refused(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB), lie = record;
    struct nvlxi_host_handle handle = handle_of(&record);
    const uint64_t sizes[] = {0, 1, MIB - 1, MIB + 1, 64 * MIB, (uint64_t)1 << 46, UINT64_MAX};
    for (size_t i = 0; i < NVLXI_COUNT(sizes); i++) {
        lie.size = sizes[i];
        GIVES(NVLX_EDEVICE, map_forged(lie, handle));
        struct nvlxi_host_handle forged = handle;
        forged.size = sizes[i];
        GIVES(NVLX_EDEVICE, map_forged(record, forged));
        GIVES(NVLX_EDEVICE, map_forged(lie, forged));
    }
    OK(map_forged(record, handle));
}

static void forged_handles_are_refused(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB), other = record;
    const struct nvlxi_host_handle handle = handle_of(&record);
    struct nvlxi_host_handle forged = handle;
    forged.start_time++;
    GIVES(NVLX_ESTALE, map_forged(record, forged));
    expect_words("is gone");
    forged = handle;
    forged.fd = 100000;
    GIVES(NVLX_ESTALE, map_forged(record, forged));
    expect_words("has freed");
    forged = handle;
    forged.inode++;
    GIVES(NVLX_ESTALE, map_forged(record, forged));
    forged = handle;
    forged.device++;
    GIVES(NVLX_ESTALE, map_forged(record, forged));
    forged = handle;
    forged.pid = -handle.pid;
    GIVES(NVLX_EDEVICE, map_forged(record, forged));
    forged = handle;
    forged.fd = -1;
    GIVES(NVLX_EDEVICE, map_forged(record, forged));
    forged = handle;
    forged.serial++;
    GIVES(NVLX_EDEVICE, map_forged(record, forged));
    forged = handle;
    forged.offset = 512;
    GIVES(NVLX_EDEVICE, map_forged(record, forged));
    forged.offset = UINT64_MAX - 511;
    GIVES(NVLX_EDEVICE, map_forged(record, forged));
    other.kind = NVLXI_KIND_UNKNOWN;
    GIVES(NVLX_ENOTSUP, map_forged(other, handle));
    OK(map_forged(record, handle));
}

/* The exporter's descriptor number now leads elsewhere: to a pipe, then to another segment. */
static void reused_numbers_are_noticed(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB);
    const struct nvlxi_host_handle old = handle_of(&record);
    there((struct message){.errand = ERRAND_FREE, .address = record.base});
    GIVES(NVLX_ESTALE, map_forged(record, old));
    struct nvlxi_segment_record next = peer_segment(MIB);
    struct nvlxi_host_handle now = handle_of(&next);
    assert_int_equal(now.fd, old.fd);
    GIVES(NVLX_ESTALE, map_forged(record, old));
    OK(map_forged(next, now));
    there((struct message){.errand = ERRAND_REPLACE, .fd = now.fd});
    GIVES(NVLX_ESTALE, map_forged(next, now));
}

/* Not even a segment's owner can shrink it under those who mapped it. */
static void segments_keep_their_size(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB);
    struct nvlxi_host_handle handle = handle_of(&record);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)handle.pid, (int)handle.fd);
    assert_int_not_equal(truncate(path, 1), 0);
    assert_int_not_equal(truncate(path, 2 * MIB), 0);
    OK(map_forged(record, handle));
}

static void mappings_belong_to_a_gpu(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB);
    struct nvlxi_allocation found;
    uint64_t mapped;
    OK(map_plain(&me, 0, &record, &mapped));
    GIVES(NVLX_ENOTSUP, ops->resolve(me.device, mapped + 5, &found));
    expect_words("a mapping of another process's memory");
    GIVES(NVLX_EINVAL, ops->unmap(me.device, 1, mapped));
    GIVES(NVLX_EINVAL, ops->unmap(me.device, 0, mapped + 1));
    GIVES(NVLX_EINVAL, ops->free(me.device, (void *)(uintptr_t)mapped));
    OK(ops->unmap(me.device, 0, mapped));
    GIVES(NVLX_EINVAL, ops->unmap(me.device, 0, mapped));
}

/* ---- Lanes ------------------------------------------------------------------------------------------- */

/* What CUDA copies wrongly, or does not say that it can: device.h leaves it to the caller. */
static void rows_beyond_limits_are_refused(void **state) {
    (void)state;
    struct nvlxi_lane *lane;
    void *memory;
    const struct nvlxi_alloc alloc = {.length = 4 * MIB, .kind = NVLXI_KIND_CUDA_MALLOC};
    OK(ops->alloc(me.device, &alloc, &memory));
    OK(ops->lane_create(me.device, 0, 0, &lane));
    const uint64_t from = (uint64_t)(uintptr_t)memory, to = from + 2 * MIB;
    const struct nvlxi_rows good = {to, from, 1, NVLXI_ROWS_MAX, 1, 1};
    struct nvlxi_rows wrong_forms[] = {good, good, good};
    wrong_forms[0].count++;
    wrong_forms[1].count = 2;
    wrong_forms[1].destination_pitch = NVLXI_PITCH_MAX + 1;
    wrong_forms[2].count = (UINT64_C(1) << 32) + 1;
    for (size_t i = 0; i < NVLXI_COUNT(wrong_forms); i++) {
        GIVES(NVLX_EDEVICE, ops->copy_rows(lane, &wrong_forms[i], 1, 0, 0));
        expect_words("are not for one copy by an engine");
    }
    OK(ops->copy_rows(lane, &good, 1, 0, 0));
    while (ops->lane_query(lane) == NVLX_EAGAIN)
        continue;
    ops->lane_destroy(lane);
    OK(ops->free(me.device, memory));
}

static void only_lanes_are_streams(void **state) {
    (void)state;
    struct nvlxi_lane *lane;
    void *const strangers[] = {NULL, NVLX_STREAM_LEGACY, NVLX_STREAM_PER_THREAD, &me};
    struct nvlxi_stream stream = {.gpu = 77};
    OK(ops->lane_create(me.device, 1, 0, &lane));
    for (size_t i = 0; i < NVLXI_COUNT(strangers); i++)
        GIVES(NVLX_ENOTSUP, ops->stream_find(me.device, strangers[i], &stream));
    assert_int_equal(stream.gpu, 77);
    OK(ops->stream_find(me.device, lane, &stream));
    assert_int_equal(stream.gpu, 1);
    ops->lane_destroy(lane);
    GIVES(NVLX_ENOTSUP, ops->stream_find(me.device, lane, &stream));
}

/* The signals that the one worker of this process blocks. */
static unsigned long long blocked_in_worker(void) {
    char path[300], line[256];
    unsigned long long blocked = 0;
    DIR *tasks = opendir("/proc/self/task");
    assert_non_null(tasks);
    for (struct dirent *task; (task = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/self/task/%s/status", task->d_name);
        FILE *file = fopen(path, "re");
        bool worker = false;
        while (file && fgets(line, sizeof line, file)) {
            worker |= strstr(line, "nvlx-host-lane") != NULL;
            if (worker)
                sscanf(line, "SigBlk: %llx", &blocked);
        }
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return blocked;
}

/* The program's handlers run in the program's threads: in a worker all signals are blocked that can be, except those of
 * its own crash. */
static void workers_take_no_signals(void **state) {
    (void)state;
    struct nvlxi_lane *lane;
    struct nvlxi_event *event;
    OK(ops->lane_create(me.device, 0, 0, &lane));
    OK(ops->event_create(me.device, 0, &event));
    OK(ops->event_record(lane, event)); /* until it runs, glibc blocks signals in any case */
    OK(await(ops, event));
    ops->event_destroy(event);
    static const int open[] = {SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGABRT};
    unsigned long long expected = 0x7fffffff;
    for (size_t i = 0; i < NVLXI_COUNT(open); i++)
        expected &= ~(1ull << (open[i] - 1));
    assert_int_equal(blocked_in_worker() & 0x7fffffff, expected);
    ops->lane_destroy(lane);
}

static void nothing_is_left(void **state) {
    (void)state;
    peer_kill();
    assert_int_equal(lines_with("/proc/self/maps", "nvlxfer-host-gpu"), 0);
    struct nvlxi_segment_record record = peer_segment(MIB);
    struct nvlxi_lane *lane;
    uint64_t mapped;
    void *address;
    OK(alloc_plain(&me, 0, MIB, &address));
    OK(map_plain(&me, 0, &record, &mapped));
    OK(ops->lane_create(me.device, 0, 0, &lane));
    assert_int_equal(lines_with("/proc/self/maps", "nvlxfer-host-gpu"), 2);
    int unused = dup(0);
    ops->lane_destroy(lane);
    OK(ops->unmap(me.device, 0, mapped));
    OK(ops->free(me.device, address));
    assert_int_equal(lines_with("/proc/self/maps", "nvlxfer-host-gpu"), 0);
    int lower = dup(0); /* the segment's number is free again, the mapping never kept one */
    assert_true(unused >= 0 && lower == unused - 1);
    close(unused);
    close(lower);
}

static const struct CMUnitTest cases[] = {CASE(setting_is_checked),
                                          CASE(listed_gpus_only),
                                          CASE(contexts_where_named),
                                          CASE(memcpy_stays_inside),
                                          CASE(memory_is_known_to_all_engines),
                                          CASE(many_allocations_are_found),
                                          CASE(lying_sizes_are_refused),
                                          CASE(forged_handles_are_refused),
                                          CASE(reused_numbers_are_noticed),
                                          CASE(segments_keep_their_size),
                                          CASE(mappings_belong_to_a_gpu),
                                          CASE(rows_beyond_limits_are_refused),
                                          CASE(only_lanes_are_streams),
                                          CASE(workers_take_no_signals),
                                          CASE(nothing_is_left)};
static const struct role roles[] = {PEER_ROLE, {0}};
const struct program program = {
    .name = "host", .cases = cases, .count = COUNT(cases), .roles = roles, .child_seconds = PEER_SECONDS};
