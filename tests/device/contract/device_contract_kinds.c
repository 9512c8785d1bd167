/* The contract of memory that is shared by file descriptors, VMM chunks and pools: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

#include "device_contract_files.h"

/* ---- Own memory -------------------------------------------------------------------------------------- */

static void expect_chunk(uint64_t base, uint64_t size, int gpu, struct nvlxi_allocation *chunk) {
    const uint64_t places[] = {base, base + 1, base + size / 2, base + size - 1};
    for (size_t i = 0; i < NVLXI_COUNT(places); i++) {
        *chunk = resolve(places[i]);
        assert_int_equal(chunk->kind, NVLXI_KIND_VMM);
        assert_int_equal(chunk->base, base);
        assert_int_equal(chunk->size, size);
        assert_int_equal(chunk->gpu, gpu);
        assert_true(chunk->file && chunk->joins && chunk->serial);
    }
}

static void vmm_is_made_of_chunks(void **state) {
    (void)state;
    struct nvlxi_allocation chunks[2 * RUN];
    for (int gpu = 0; gpu < me.gpus; gpu++) {
        for (size_t round = 0; round < 2; round++) {
            uint64_t address = allocate_kind(NVLXI_KIND_VMM, gpu, RUN * CHUNK, CHUNK);
            for (size_t i = round * RUN; i < (round + 1) * RUN; i++) {
                expect_chunk(address + i % RUN * CHUNK, CHUNK, gpu, &chunks[i]);
                for (size_t j = 0; j < i; j++)
                    assert_true(chunks[i].serial != chunks[j].serial);
                OK(me.ops->alive(me.device, &chunks[i]));
            }
            GIVES(NVLX_EINVAL, me.ops->free(me.device, (void *)(uintptr_t)(address + CHUNK)));
            GIVES(NVLX_EINVAL, me.ops->free(me.device, (void *)(uintptr_t)(address + 1)));
            release(address);
            for (size_t i = 0; i < (round + 1) * RUN; i++)
                GIVES(NVLX_ESTALE, me.ops->alive(me.device, &chunks[i]));
        }
    }
}

/* The sizes of the chunks of an allocation, summed up: all except the last are alike. */
static uint64_t sum_of_chunks(uint64_t length, uint64_t chunk, uint64_t *first) {
    uint64_t address = allocate_kind(NVLXI_KIND_VMM, 0, length, chunk), sum = 0;
    *first = resolve(address).size;
    while (sum < length) {
        struct nvlxi_allocation found = resolve(address + sum);
        assert_int_equal(found.base, address + sum);
        assert_true(found.size == *first || (found.size < *first && sum + found.size >= length));
        sum += found.size;
    }
    release(address);
    return sum;
}

static void vmm_sizes_are_rounded_up(void **state) {
    (void)state;
    uint64_t first;
    assert_int_equal(sum_of_chunks(1, 0, &first), CHUNK);
    assert_int_equal(sum_of_chunks(5 * MIB + 1, 0, &first), 6 * MIB);
    assert_int_equal(first, 6 * MIB);
    assert_int_equal(sum_of_chunks(5 * MIB, 1, &first), 6 * MIB);
    assert_int_equal(first, CHUNK);
    assert_int_equal(sum_of_chunks(10 * MIB, 3 * MIB, &first), 10 * MIB);
    assert_int_equal(first, 4 * MIB);
    assert_int_equal(sum_of_chunks(CHUNK, 64 * MIB, &first), CHUNK);
}

/* One copy, in a lane, from the middle of the first chunk to the middle of the last. */
static void copies_cross_own_chunks(void **state) {
    (void)state;
    const uint64_t length = (RUN - 1) * CHUNK + 3, offset = CHUNK / 2 - 1;
    uint64_t a = allocate_kind(NVLXI_KIND_VMM, 0, RUN * CHUNK, CHUNK);
    uint64_t b = allocate_kind(NVLXI_KIND_VMM, 0, RUN * CHUNK, 2 * CHUNK);
    fill(a + offset, length, 31);
    copy_here(0, b + offset, a + offset, length);
    assert_int_equal(wrong(b + offset, length, 31), 0);
    release(a);
    release(b);
}

static void expect_new_file(int fd) {
    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void chunks_are_exported_as_files(void **state) {
    (void)state;
    uint64_t address = allocate_kind(NVLXI_KIND_VMM, 0, 2 * CHUNK, CHUNK), plain = allocate(0, KIB);
    struct nvlxi_allocation chunk = resolve(address + CHUNK), other = resolve(plain);
    struct nvlxi_handle handle = {.length = 77};
    int first = -1, second = -1, none = -1;
    OK(me.ops->export_handle(me.device, &chunk, &handle));
    assert_int_equal(handle.length, 0);
    OK(me.ops->export_file(me.device, &chunk, &first));
    OK(me.ops->export_file(me.device, &chunk, &second));
    expect_new_file(first);
    expect_new_file(second);
    assert_int_not_equal(first, second);
    close(first);
    close(second);
    assert_false(other.file || other.joins);
    GIVES(NVLX_ENOTSUP, me.ops->export_file(me.device, &other, &none));
    release(address);
    GIVES(NVLX_ESTALE, me.ops->export_file(me.device, &chunk, &none));
    assert_int_equal(none, -1);
    release(plain);
}

static void pool_allocations_are_their_own(void **state) {
    (void)state;
    need_pools();
    const uint64_t length = 3 * MIB + 5;
    uint64_t keep = allocate_kind(NVLXI_KIND_POOL, 0, KIB, 0); /* keeps the pool busy */
    struct nvlxi_allocation old = {.serial = 0};
    for (int i = 0; i < 5; i++) {
        uint64_t address = allocate_kind(NVLXI_KIND_POOL, 0, length, 0);
        struct nvlxi_allocation found = resolve(address), last = resolve(address + length - 1), beside = resolve(keep);
        struct nvlxi_handle handle, again;
        int fd = -1;
        assert_int_equal(found.kind, NVLXI_KIND_POOL);
        assert_int_equal(found.base, address);
        assert_true(found.size >= length);
        assert_true(found.file && !found.joins);
        assert_int_equal(last.serial, found.serial);
        assert_int_not_equal(beside.serial, found.serial);
        assert_int_not_equal(old.serial, found.serial);
        OK(me.ops->export_file(me.device, &found, &fd));
        expect_new_file(fd);
        close(fd);
        OK(me.ops->export_handle(me.device, &found, &handle));
        OK(me.ops->export_handle(me.device, &last, &again));
        assert_int_equal(handle.length, NVLXI_HANDLE_BYTES);
        assert_memory_equal(again.bytes, handle.bytes, NVLXI_HANDLE_BYTES);
        GIVES(NVLX_EINVAL, me.ops->free(me.device, (void *)(uintptr_t)(address + 512)));
        release(address);
        GIVES(NVLX_ESTALE, me.ops->alive(me.device, &found));
        GIVES(NVLX_ESTALE, me.ops->export_file(me.device, &found, &fd));
        old = found;
    }
    release(keep);
}

/* ---- Mappings ---------------------------------------------------------------------------------------- */

static void a_chunk_is_mapped(void **state) {
    (void)state;
    const int far = me.gpus - 1;
    uint64_t remote = peer_memory(NVLXI_KIND_VMM, 3 * CHUNK, CHUNK, 7);
    struct nvlxi_segment_record record = peer_record(remote + CHUNK + 5);
    assert_int_equal(record.base, remote + CHUNK);
    assert_int_equal(record.handle.length, 0);
    uint64_t mapped = map_run(far, 1, &record, false), own = allocate(far, CHUNK);
    there((struct message){.errand = ERRAND_FILL, .address = record.base, .length = CHUNK, .seed = 8});
    assert_int_equal(wrong(mapped, CHUNK, 8), 0);
    fill(own, CHUNK, 9);
    copy_here(far, mapped, own, CHUNK);
    assert_int_equal(peer_wrong(record.base, CHUNK, 9), 0);
    assert_int_equal(peer_wrong(remote, CHUNK, 7), 0); /* its neighbour */
    unmap(far, mapped);
    assert_int_not_equal(me.ops->unmap(me.device, far, mapped), 0);
    release(own);
}

/* Of 7 chunks the middle 5, read and written by single copies that cross all borders. */
static void a_run_is_mapped_back_to_back(void **state) {
    (void)state;
    const int far = me.gpus - 1;
    const uint64_t length = RUN * CHUNK;
    struct nvlxi_segment_record run[RUN];
    uint64_t remote = peer_memory(NVLXI_KIND_VMM, (RUN + 2) * CHUNK, CHUNK, 7) + CHUNK;
    peer_run(remote, RUN, run);
    there((struct message){.errand = ERRAND_FILL, .address = remote, .length = length, .seed = 40});
    uint64_t mapped = map_run(far, RUN, run, false), own = allocate(far, length);
    assert_int_equal(wrong(mapped, length, 40), 0);
    copy_here(far, own, mapped, length);
    assert_int_equal(wrong(own, length, 40), 0);
    fill(own, length, 41);
    copy_here(far, mapped + 100, own, length - 200);
    assert_int_equal(peer_wrong(remote + 100, length - 200, 41), 0);
    unmap(far, mapped);
    release(own);
}

/* Chunks of different sizes, the last one short. */
static void sizes_may_differ_in_a_run(void **state) {
    (void)state;
    struct nvlxi_segment_record run[3];
    uint64_t remote = peer_memory(NVLXI_KIND_VMM, 5 * CHUNK, 2 * CHUNK, 12);
    peer_run(remote, 3, run);
    assert_int_equal(run[2].size, CHUNK);
    uint64_t mapped = map_run(0, 3, run, false);
    assert_int_equal(wrong(mapped, 5 * CHUNK, 12), 0);
    unmap(0, mapped);
}

static void vmm_maps_again_and_unmaps_in_any_order(void **state) {
    (void)state;
    static const size_t orders[][3] = {{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {0, 2, 1}};
    struct nvlxi_segment_record run[2];
    uint64_t mapped[3];
    peer_run(peer_memory(NVLXI_KIND_VMM, 2 * CHUNK, CHUNK, 5), 2, run);
    for (size_t i = 0; i < NVLXI_COUNT(orders); i++) {
        for (size_t k = 0; k < 3; k++)
            mapped[k] = map_run((int)k % me.gpus, 2, run, k == 1);
        assert_true(mapped[0] != mapped[1] && mapped[1] != mapped[2] && mapped[0] != mapped[2]);
        for (size_t k = 0; k < 3; k++) {
            for (size_t left = k; left < 3; left++)
                assert_int_equal(wrong(mapped[orders[i][left]], 2 * CHUNK, 5), 0);
            unmap((int)orders[i][k] % me.gpus, mapped[orders[i][k]]);
        }
    }
}

static void files_keep_chunks_of_the_freed_and_the_dead(void **state) {
    (void)state;
    struct nvlxi_segment_record run[2], other[2];
    uint64_t remote = peer_memory(NVLXI_KIND_VMM, 2 * CHUNK, CHUNK, 5);
    peer_run(remote, 2, run);
    uint64_t mapped = map_run(0, 2, run, false), late;
    struct source source = files_of(2, run);
    peer_free(remote);
    struct message m = {.errand = ERRAND_FILE, .address = remote};
    GIVES(NVLX_ENOTSUP, peer_work(&m));
    remote = peer_memory(NVLXI_KIND_VMM, 2 * CHUNK, CHUNK, 66); /* mostly where the old memory was */
    peer_run(remote, 2, other);
    assert_true(other[0].serial != run[0].serial && other[1].serial != run[1].serial);
    assert_int_equal(wrong(mapped, 2 * CHUNK, 5), 0);
    OK(try_map_from(&source, 0, 2, run, false, &late));
    assert_int_equal(wrong(late, 2 * CHUNK, 5), 0);
    unmap(0, late);
    late = map_run(0, 2, other, false);
    source = files_of(2, other);
    peer_kill();
    usleep(100000);
    assert_int_equal(wrong(mapped, 2 * CHUNK, 5), 0);
    assert_int_equal(wrong(late, 2 * CHUNK, 66), 0);
    unmap(0, late);
    OK(try_map_from(&source, 0, 2, other, false, &late));
    assert_int_equal(wrong(late, 2 * CHUNK, 66), 0);
    unmap(0, mapped);
    unmap(0, late);
}

static void pool_allocations_are_mapped(void **state) {
    (void)state;
    need_pools();
    const uint64_t lengths[] = {1000, 3 * MIB + 5};
    struct nvlxi_segment_record records[2];
    uint64_t mapped[2];
    for (size_t i = 0; i < 2; i++)
        records[i] = peer_record(peer_memory(NVLXI_KIND_POOL, lengths[i], 0, (uint8_t)(20 + i)));
    for (size_t i = 0; i < 2; i++)
        mapped[i] = map_run(0, 1, &records[i], false);
    uint64_t again = map_run(0, 1, &records[1], false), own = allocate(0, lengths[1]);
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(wrong(mapped[i], lengths[i], (uint8_t)(20 + i)), 0);
    fill(own, lengths[1], 33);
    copy_here(0, mapped[1], own, lengths[1]);
    assert_int_equal(peer_wrong(records[1].base, lengths[1], 33), 0);
    assert_int_equal(peer_wrong(records[0].base, lengths[0], 20), 0);
    unmap(0, mapped[1]);
    assert_int_equal(wrong(again, lengths[1], 33), 0);
    unmap(0, mapped[0]);
    unmap(0, again);
    mapped[0] = map_run(0, 1, &records[0], false);
    assert_int_equal(wrong(mapped[0], lengths[0], 20), 0);
    unmap(0, mapped[0]);
    release(own);
}

/* ---- Read only --------------------------------------------------------------------------------------- */

struct readable {
    uint64_t remote, mapped, own;
    struct nvlxi_segment_record run[2];
};

static struct readable readable_make(void) {
    struct readable made = {.remote = peer_memory(NVLXI_KIND_VMM, 2 * CHUNK, CHUNK, 5)};
    peer_run(made.remote, 2, made.run);
    made.mapped = map_run(0, 2, made.run, true);
    made.own = allocate(0, 2 * CHUNK);
    fill(made.own, 2 * CHUNK, 99);
    return made;
}

/* Nothing was written, and all works on. */
static void readable_end(const struct readable *readable) {
    assert_int_equal(wrong(readable->mapped, 2 * CHUNK, 5), 0);
    assert_int_equal(peer_wrong(readable->remote, 2 * CHUNK, 5), 0);
    uint64_t writable = map_run(0, 2, readable->run, false);
    copy_here(0, writable, readable->own, 2 * CHUNK);
    assert_int_equal(wrong(readable->mapped, 2 * CHUNK, 99), 0);
    assert_int_equal(peer_wrong(readable->remote, 2 * CHUNK, 99), 0);
    copy_here(0, readable->own, readable->mapped, 2 * CHUNK);
    unmap(0, readable->mapped);
    unmap(0, writable);
    release(readable->own);
}

static void a_copy_into_a_read_only_mapping_is_refused(void **state) {
    (void)state;
    struct readable readable = readable_make();
    const uint64_t offsets[] = {0, CHUNK - 1, 2 * CHUNK - 16};
    struct nvlxi_lane *lane;
    OK(me.ops->lane_create(me.device, 0, 0, &lane));
    for (size_t i = 0; i < NVLXI_COUNT(offsets); i++) {
        const struct nvlxi_copy copy = {readable.mapped + offsets[i], readable.own, 16, 0, 0};
        GIVES(NVLX_EDEVICE, me.ops->copy(lane, &copy));
        OK(me.ops->lane_query(lane));
    }
    me.ops->lane_destroy(lane);
    uint8_t byte = 1;
    GIVES(NVLX_EDEVICE, me.ops->memcpy(me.device, (void *)(uintptr_t)(readable.mapped + 1), &byte, 1));
    readable_end(&readable);
}

/* Within a process nothing is mapped: the GPU that copies must be let use what another one holds. */
static void own_memory_is_lent_to_another_gpu(void **state) {
    (void)state;
    static const uint32_t kinds[] = {NVLXI_KIND_VMM, NVLXI_KIND_POOL, NVLXI_KIND_CUDA_MALLOC};
    const int far = me.gpus - 1;
    need_pools();
    if (far == 0)
        skip();
    for (size_t i = 0; i < NVLXI_COUNT(kinds); i++) {
        const uint64_t lent = allocate_kind(kinds[i], far, CHUNK, CHUNK), own = allocate(0, CHUNK);
        const struct nvlxi_allocation allocation = resolve(lent);
        const struct nvlxi_copy copy = {own, lent, CHUNK, 0, far};
        struct nvlxi_lane *lane;
        fill(lent, CHUNK, 5);
        OK(me.ops->lane_create(me.device, 0, 0, &lane));
        for (int twice = 0; twice < 2; twice++) {
            OK(me.ops->let_use(me.device, &allocation, 0));
            OK(me.ops->copy(lane, &copy));
            while (me.ops->lane_query(lane) == NVLX_EAGAIN)
                usleep(100);
            assert_int_equal(wrong(own, CHUNK, 5), 0);
            fill(own, CHUNK, 6);
        }
        me.ops->lane_destroy(lane);
        release(own);
        release(lent);
    }
}

/* The one fragment among many that goes there is enough. */
static void a_list_into_a_read_only_mapping_is_refused(void **state) {
    (void)state;
    enum { COUNT = 9 };
    struct readable readable = readable_make();
    uint64_t to = allocate(0, COUNT * KIB);
    struct nvlxi_fragment list[COUNT];
    struct nvlxi_lane *lane;
    fill(to, COUNT * KIB, 3);
    OK(me.ops->lane_create(me.device, 0, 0, &lane));
    for (size_t bad = 0; bad < COUNT; bad += COUNT / 2) {
        for (size_t i = 0; i < COUNT; i++)
            list[i] = (struct nvlxi_fragment){i == bad ? readable.mapped + CHUNK - 1 : to + i * KIB,
                                              readable.own + i * KIB, 16};
        GIVES(NVLX_EDEVICE, me.ops->copy_list(lane, list, COUNT, 0, 0));
        while (me.ops->lane_query(lane) == NVLX_EAGAIN) /* what came before it may have been queued */
            usleep(100);
        OK(me.ops->lane_query(lane));
    }
    me.ops->lane_destroy(lane);
    release(to);
    readable_end(&readable);
}

const struct contract_case kind_cases[] = {
    {"vmm is made of chunks", vmm_is_made_of_chunks},
    {"vmm sizes are rounded up", vmm_sizes_are_rounded_up},
    {"copies cross own chunks", copies_cross_own_chunks},
    {"chunks are exported as files", chunks_are_exported_as_files},
    {"pool allocations are their own", pool_allocations_are_their_own},
    {"a chunk is mapped", a_chunk_is_mapped},
    {"a run is mapped back to back", a_run_is_mapped_back_to_back},
    {"sizes may differ in a run", sizes_may_differ_in_a_run},
    {"vmm maps again and unmaps in any order", vmm_maps_again_and_unmaps_in_any_order},
    {"files keep chunks of the freed and the dead", files_keep_chunks_of_the_freed_and_the_dead},
    {"pool allocations are mapped", pool_allocations_are_mapped},
    {"a copy into a read-only mapping is refused", a_copy_into_a_read_only_mapping_is_refused},
    {"own memory is lent to another gpu", own_memory_is_lent_to_another_gpu},
    {"a list into a read-only mapping is refused", a_list_into_a_read_only_mapping_is_refused},
};
const size_t kind_case_count = NVLXI_COUNT(kind_cases);
