/* The contract of device memory and of its sharing between processes: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "device_contract.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int try_map(int gpu, const struct nvlxi_segment_record *record, uint64_t *address) {
    return map_plain(&me, gpu, record, address);
}

/* ---- Memory ------------------------------------------------------------------------------------------ */

static void resolve_interior_pointer(void **state) {
    (void)state;
    const uint64_t length = 3 * MIB + 5;
    for (int gpu = 0; gpu < me.gpus; gpu++) {
        uint64_t address = allocate(gpu, length);
        struct nvlxi_allocation first = resolve(address), last = resolve(address + length - 1);
        assert_int_equal(first.kind, NVLXI_KIND_CUDA_MALLOC);
        assert_int_equal(first.base, address);
        assert_true(first.size >= length);
        assert_int_equal(first.gpu, gpu);
        assert_true(first.serial != 0);
        assert_int_equal(last.base, first.base);
        assert_int_equal(last.size, first.size);
        assert_int_equal(last.serial, first.serial);
        assert_int_equal(last.gpu, first.gpu);
        OK(me.ops->alive(me.device, &last));
        release(address);
    }
}

static void handles_name_allocations(void **state) {
    (void)state;
    uint64_t a = allocate(0, KIB), b = allocate(0, KIB);
    struct nvlxi_allocation of_a = resolve(a), inside_a = resolve(a + 700), of_b = resolve(b);
    struct nvlxi_handle first, again, inside, other;
    OK(me.ops->export_handle(me.device, &of_a, &first));
    OK(me.ops->export_handle(me.device, &of_a, &again));
    OK(me.ops->export_handle(me.device, &inside_a, &inside));
    OK(me.ops->export_handle(me.device, &of_b, &other));
    assert_true(first.length > 0 && first.length <= NVLXI_HANDLE_BYTES);
    assert_int_equal(again.length, first.length);
    assert_int_equal(inside.length, first.length);
    assert_memory_equal(again.bytes, first.bytes, first.length);
    assert_memory_equal(inside.bytes, first.bytes, first.length);
    assert_memory_not_equal(other.bytes, first.bytes, first.length);
    release(a);
    release(b);
}

static void serials_tell_reallocation(void **state) {
    (void)state;
    uint64_t address = allocate(0, 8 * MIB);
    struct nvlxi_allocation old = resolve(address);
    release(address);
    GIVES(NVLX_ESTALE, me.ops->alive(me.device, &old));
    for (int i = 0; i < 20; i++) {
        address = allocate(0, 8 * MIB);
        struct nvlxi_allocation now = resolve(address);
        assert_true(now.serial != old.serial);
        OK(me.ops->alive(me.device, &now));
        GIVES(NVLX_ESTALE, me.ops->alive(me.device, &old));
        release(address);
        old = now;
    }
}

static void unknown_memory_is_refused(void **state) {
    (void)state;
    static char fixed[64];
    char *heap = malloc(MIB);
    struct nvlxi_allocation found = {.base = 77};
    GIVES(NVLX_ENOTSUP, me.ops->resolve(me.device, (uintptr_t)fixed, &found));
    assert_non_null(heap);
    GIVES(NVLX_ENOTSUP, me.ops->resolve(me.device, (uintptr_t)heap, &found));
    GIVES(NVLX_ENOTSUP, me.ops->resolve(me.device, (uintptr_t)heap + 12345, &found));
    GIVES(NVLX_ENOTSUP, me.ops->resolve(me.device, (uintptr_t)&found, &found));
    GIVES(NVLX_ENOTSUP, me.ops->resolve(me.device, 0, &found));
    assert_non_null(strstr(nvlx_last_error(), "nvlx_alloc"));
    assert_int_equal(found.base, 77);
    GIVES(NVLX_EINVAL, me.ops->free(me.device, heap));
    free(heap);
}

static void memcpy_goes_all_ways(void **state) {
    (void)state;
    enum { LENGTH = 100003 };
    struct nvlxi_segment_record record = peer_segment(LENGTH, 3);
    uint64_t mapped = map(me.gpus - 1, &record), a = allocate(0, LENGTH), b = allocate(me.gpus - 1, LENGTH);
    uint8_t *from = malloc(LENGTH), *to = calloc(1, LENGTH);
    const uint64_t chain[] = {(uintptr_t)from, a, b, mapped, a, (uintptr_t)to};
    assert_true(from && to);
    for (size_t i = 0; i < LENGTH; i++)
        from[i] = seed_byte(9, i);
    for (size_t i = 0; i + 1 < NVLXI_COUNT(chain); i++)
        OK(me.ops->memcpy(me.device, (void *)(uintptr_t)chain[i + 1], (void *)(uintptr_t)chain[i], LENGTH));
    assert_memory_equal(from, to, LENGTH);
    memset(to, 0, LENGTH);
    OK(me.ops->memcpy(me.device, to, from, LENGTH));
    assert_memory_equal(from, to, LENGTH);
    free(from);
    free(to);
    unmap(me.gpus - 1, mapped);
    release(a);
    release(b);
}

static void gpu_numbers_are_checked(void **state) {
    (void)state;
    const int bad[] = {-1, me.gpus, INT_MAX, INT_MIN};
    struct nvlxi_segment_record record = peer_segment(KIB, 3);
    struct nvlxi_event *event = NULL;
    struct nvlxi_lane *lane = NULL;
    uint8_t uuid[NVLXI_UUID_BYTES];
    uint64_t mapped;
    void *address = NULL;
    char number[16];
    for (size_t i = 0; i < NVLXI_COUNT(bad); i++) {
        snprintf(number, sizeof number, "%d", bad[i]);
        GIVES(NVLX_EINVAL, alloc_plain(&me, bad[i], KIB, &address));
        assert_non_null(strstr(nvlx_last_error(), number));
        GIVES(NVLX_EINVAL, map_plain(&me, bad[i], &record, &mapped));
        GIVES(NVLX_EINVAL, me.ops->lane_create(me.device, bad[i], 0, &lane));
        GIVES(NVLX_EINVAL, me.ops->event_create(me.device, bad[i], &event));
        GIVES(NVLX_EINVAL, me.ops->uuid(me.device, bad[i], uuid));
    }
    assert_true(!lane && !event && !address);
}

/* The same in every process, and different from GPU to GPU. */
static void uuids_name_gpus(void **state) {
    (void)state;
    uint8_t uuid[NVLXI_UUID_BYTES], other[NVLXI_UUID_BYTES];
    for (int gpu = 0; gpu < me.gpus; gpu++) {
        struct message m = there((struct message){.errand = ERRAND_ALLOC, .gpu = gpu, .length = KIB});
        m.errand = ERRAND_EXPORT;
        OK(me.ops->uuid(me.device, gpu, uuid));
        assert_memory_equal(there(m).record.device, uuid, sizeof uuid);
        for (int i = 0; i < gpu; i++) {
            OK(me.ops->uuid(me.device, i, other));
            assert_memory_not_equal(other, uuid, sizeof uuid);
        }
    }
}

/* ---- Sharing ----------------------------------------------------------------------------------------- */

static void peer_reads_and_writes(void **state) {
    (void)state;
    enum { LENGTH = 5 * MIB + 13 };
    uint64_t address = allocate(0, LENGTH);
    fill(address, LENGTH, 21);
    struct message m = {.errand = ERRAND_EXPORT, .address = address + MIB};
    struct nvlxi_segment_record record = here(m).record;
    int far = me.gpus - 1;
    uint64_t mapped = there((struct message){.errand = ERRAND_MAP, .gpu = far, .record = record}).address;
    m = (struct message){.errand = ERRAND_CHECK, .address = mapped, .length = LENGTH, .seed = 21};
    assert_int_equal(there(m).wrong, 0);
    uint64_t own = there((struct message){.errand = ERRAND_ALLOC, .gpu = far, .length = LENGTH}).address;
    there((struct message){.errand = ERRAND_FILL, .address = own, .length = LENGTH, .seed = 99});
    there((struct message){.errand = ERRAND_COPY, .gpu = far, .address = mapped, .source = own, .length = LENGTH});
    assert_int_equal(wrong(address, LENGTH, 99), 0);
    fill(address, LENGTH, 22);
    there((struct message){.errand = ERRAND_COPY, .gpu = far, .address = own, .source = mapped, .length = LENGTH});
    m = (struct message){.errand = ERRAND_CHECK, .address = own, .length = LENGTH, .seed = 22};
    assert_int_equal(there(m).wrong, 0);
    there((struct message){.errand = ERRAND_UNMAP, .gpu = far, .address = mapped});
    release(address);
}

static void openings_are_counted(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB, 5);
    uint64_t first = map(0, &record);
    assert_int_equal(map(0, &record), first);
    assert_int_equal(map(0, &record), first);
    unmap(0, first);
    assert_int_equal(wrong(first, MIB, 5), 0);
    unmap(0, first);
    assert_int_equal(wrong(first, MIB, 5), 0);
    unmap(0, first);
    assert_int_not_equal(me.ops->unmap(me.device, 0, first), 0);
    first = map(0, &record);
    assert_int_equal(wrong(first, MIB, 5), 0);
    unmap(0, first);
}

static void each_gpu_has_its_mapping(void **state) {
    (void)state;
    need_two_gpus();
    struct nvlxi_segment_record record = peer_segment(MIB, 5);
    uint64_t zero = map(0, &record), one = map(1, &record);
    assert_int_not_equal(zero, one);
    unmap(0, zero);
    assert_int_equal(wrong(one, MIB, 5), 0);
    unmap(1, one);
}

/* Milliseconds that one mapping of the record takes: the best of some, as the driver may be busy for other processes.
 */
static double time_of_mapping(int gpu, const struct nvlxi_segment_record *record) {
    double best = 1e9;
    for (int i = 0; i < 9; i++) {
        const double began = now_ms();
        const uint64_t mapped = map(gpu, record);
        const double took = now_ms() - began;
        best = took < best ? took : best;
        unmap(gpu, mapped);
    }
    return best;
}

/* Two of the same way are two, to be given back in any order. */
static void links_are_held_between_gpus(void **state) {
    (void)state;
    need_two_gpus();
    const uint8_t nobody[NVLXI_UUID_BYTES] = "no such GPU";
    uint8_t uuid[2][NVLXI_UUID_BYTES];
    struct nvlxi_segment_record record = peer_segment(MIB, 5);
    for (int gpu = 0; gpu < 2; gpu++)
        OK(me.ops->uuid(me.device, gpu, uuid[gpu]));
    assert_null(me.ops->link(me.device, 0, uuid[0]));
    assert_null(me.ops->link(me.device, 0, nobody));
    time_of_mapping(1, &record);
    const double without = time_of_mapping(1, &record);
    struct nvlxi_link *first = me.ops->link(me.device, 1, uuid[0]), *second = me.ops->link(me.device, 1, uuid[0]);
    assert_true(first && second);
    const double with = time_of_mapping(1, &record);
    me.ops->unlink(me.device, first);
    const double still = time_of_mapping(1, &record);
    me.ops->unlink(me.device, second);
    print_message("mapping: %.3f ms; with two links %.3f, with one %.3f, with none %.3f\n", without, with, still,
                  time_of_mapping(1, &record));
    assert_true(me.ops == &nvlxi_device_host || (with < without / 2 && still < without / 2));
}

static void bad_handles_are_refused(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB, 5), bad = record;
    const uint32_t lengths[] = {
        0, 1, record.handle.length - 1, record.handle.length + 1, NVLXI_HANDLE_BYTES + 1, UINT32_MAX};
    uint64_t mapped = 77;
    for (size_t i = 0; i < NVLXI_COUNT(lengths); i++) {
        bad.handle.length = lengths[i];
        GIVES(NVLX_EDEVICE, try_map(0, &bad, &mapped));
    }
    bad = record;
    memset(bad.handle.bytes, 0x5a, sizeof bad.handle.bytes);
    GIVES(NVLX_EDEVICE, try_map(0, &bad, &mapped));
    memset(bad.handle.bytes, 0, sizeof bad.handle.bytes);
    GIVES(NVLX_EDEVICE, try_map(0, &bad, &mapped));
    bad = record;
    bad.size += 64 * MIB;
    GIVES(NVLX_EDEVICE, try_map(0, &bad, &mapped));
    assert_int_equal(mapped, 77);
    mapped = map(0, &record);
    assert_int_equal(wrong(mapped, MIB, 5), 0);
    unmap(0, mapped);
}

static void own_handle_is_refused(void **state) {
    (void)state;
    uint64_t address = allocate(0, MIB), mapped;
    struct nvlxi_segment_record record = here((struct message){.errand = ERRAND_EXPORT, .address = address}).record;
    for (int gpu = 0; gpu < me.gpus; gpu++)
        GIVES(NVLX_EDEVICE, try_map(gpu, &record, &mapped));
    release(address);
}

static void mapping_is_not_shared_on(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB, 5);
    uint64_t mapped = map(0, &record);
    struct message m = {.errand = ERRAND_EXPORT, .address = mapped + 100};
    GIVES(NVLX_ENOTSUP, work(&me, &m));
    unmap(0, mapped);
}

/* The exporter frees and allocates again, as CUDA does mostly at the same address: nothing of that is seen. */
static void old_mapping_shows_old_bytes(void **state) {
    (void)state;
    struct nvlxi_segment_record old = peer_segment(4 * MIB, 5);
    uint64_t mapped = map(0, &old);
    there((struct message){.errand = ERRAND_FREE, .address = old.base});
    struct nvlxi_segment_record now = peer_segment(4 * MIB, 66);
    assert_int_not_equal(now.serial, old.serial);
    assert_memory_not_equal(now.handle.bytes, old.handle.bytes, old.handle.length);
    uint64_t fresh = map(0, &now);
    assert_int_not_equal(fresh, mapped);
    assert_int_equal(wrong(mapped, 4 * MIB, 5), 0);
    assert_int_equal(wrong(fresh, 4 * MIB, 66), 0);
    assert_int_equal(map(0, &old), mapped);
    unmap(0, mapped);
    assert_int_equal(wrong(mapped, 4 * MIB, 5), 0);
    unmap(0, mapped);
    unmap(0, fresh);
}

static void memory_outlives_its_exporter(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB, 5), other = peer_segment(MIB, 6);
    uint64_t mapped = map(0, &record), refused;
    peer_kill();
    usleep(100000);
    assert_int_equal(wrong(mapped, MIB, 5), 0);
    assert_int_equal(map(0, &record), mapped);
    unmap(0, mapped);
    unmap(0, mapped);
    GIVES(NVLX_ESTALE, try_map(0, &record, &refused));
    GIVES(NVLX_ESTALE, try_map(0, &other, &refused));
}

enum { OPENERS = 4, ROUNDS = 100 };

struct opener {
    pthread_t thread;
    pthread_barrier_t *barrier;
    const struct nvlxi_segment_record *record;
    const uint64_t *first; /* what the first of them got */
    uint64_t address;
    int failures;
    char error[256]; /* of the first failure */
};

static void count_failure(struct opener *opener, bool failed, const char *what, int round) {
    if (failed && !opener->failures++)
        snprintf(opener->error, sizeof opener->error, "round %d, %s: %s", round, what, nvlx_last_error());
}

/* All at once, then all must have the same mapping, then none has it any more. */
static void *open_and_close(void *argument) {
    struct opener *opener = argument;
    for (int i = 0; i < ROUNDS; i++) {
        uint8_t byte = 0;
        pthread_barrier_wait(opener->barrier);
        count_failure(opener, try_map(0, opener->record, &opener->address) != 0, "map", i);
        pthread_barrier_wait(opener->barrier);
        count_failure(opener, opener->address != *opener->first, "another address", i);
        int code = me.ops->memcpy(me.device, &byte, (void *)(uintptr_t)opener->address, 1);
        count_failure(opener, code != 0, "memcpy", i);
        count_failure(opener, byte != seed_byte(5, 0), "another byte", i);
        pthread_barrier_wait(opener->barrier);
        count_failure(opener, me.ops->unmap(me.device, 0, opener->address) != 0, "unmap", i);
    }
    return NULL;
}

static void threads_open_one_handle(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB, 5);
    struct opener openers[OPENERS];
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, OPENERS);
    for (size_t i = 0; i < OPENERS; i++) {
        openers[i] = (struct opener){.barrier = &barrier, .record = &record, .first = &openers[0].address};
        assert_int_equal(pthread_create(&openers[i].thread, NULL, open_and_close, &openers[i]), 0);
    }
    for (size_t i = 0; i < OPENERS; i++)
        pthread_join(openers[i].thread, NULL);
    for (size_t i = 0; i < OPENERS; i++)
        if (openers[i].failures)
            FAIL("%d failures in a thread, first in %s", openers[i].failures, openers[i].error);
    pthread_barrier_destroy(&barrier);
    assert_int_not_equal(me.ops->unmap(me.device, 0, openers[0].address), 0);
}

const struct contract_case memory_cases[] = {
    {"resolve interior pointer", resolve_interior_pointer},
    {"handles name allocations", handles_name_allocations},
    {"serials tell reallocation", serials_tell_reallocation},
    {"unknown memory is refused", unknown_memory_is_refused},
    {"memcpy goes all ways", memcpy_goes_all_ways},
    {"gpu numbers are checked", gpu_numbers_are_checked},
    {"uuids name gpus", uuids_name_gpus},
    {"peer reads and writes", peer_reads_and_writes},
    {"openings are counted", openings_are_counted},
    {"each gpu has its mapping", each_gpu_has_its_mapping},
    {"links are held between gpus", links_are_held_between_gpus},
    {"bad handles are refused", bad_handles_are_refused},
    {"own handle is refused", own_handle_is_refused},
    {"mapping is not shared on", mapping_is_not_shared_on},
    {"old mapping shows old bytes", old_mapping_shows_old_bytes},
    {"memory outlives its exporter", memory_outlives_its_exporter},
    {"threads open one handle", threads_open_one_handle},
};
const size_t memory_case_count = NVLXI_COUNT(memory_cases);
