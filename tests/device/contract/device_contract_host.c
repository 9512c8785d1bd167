/* The contract of host memory, pinned and in chunks: part of device_contract.c. SPDX-License-Identifier: Apache-2.0 */
#include "device_contract_files.h"

#include <stdlib.h>
#include <string.h>

#include "device/host/host.h"

#ifdef NVLXI_WITH_CUDA
#include "device/cuda_stream.h"
#endif

enum { LENGTH = 1 << 20, PAGE = 4096 };

/* ---- Memory, as programs pin it -------------------------------------------------------------------------- */

#ifdef NVLXI_WITH_CUDA
static bool on_cuda(void) {
    return !strcmp(me.ops->name, "cuda");
}

static void expect_done(const char *error) {
    if (error)
        FAIL("pinned memory: %s", error);
}
#endif

static void pin(void *address, size_t length) {
#ifdef NVLXI_WITH_CUDA
    if (on_cuda()) {
        expect_done(cuda_host_register(address, length));
        return;
    }
#endif
    OK(nvlxi_host_pin(0, address, length));
}

static void unpin(void *address) {
#ifdef NVLXI_WITH_CUDA
    if (on_cuda()) {
        expect_done(cuda_host_unregister(address));
        return;
    }
#endif
    assert_true(nvlxi_host_unpin(address));
}

/* LENGTH bytes: registered, or allocated pinned. */
static uint8_t *make_pinned(bool allocated) {
    void *made = NULL;
#ifdef NVLXI_WITH_CUDA
    if (on_cuda() && allocated) {
        expect_done(cuda_host_alloc(LENGTH, &made));
        return made;
    }
#endif
    (void)allocated;
    made = aligned_alloc(PAGE, LENGTH);
    assert_non_null(made);
    pin(made, LENGTH);
    return made;
}

static void free_pinned(uint8_t *memory, bool allocated) {
#ifdef NVLXI_WITH_CUDA
    if (on_cuda() && allocated) {
        expect_done(cuda_host_free(memory));
        return;
    }
#endif
    (void)allocated;
    unpin(memory);
    free(memory);
}

/* ---- What it is -------------------------------------------------------------------------------------------- */

static void expect_pinned(uint64_t address, uint64_t base, struct nvlxi_allocation *found) {
    *found = resolve(address);
    assert_int_equal(found->kind, NVLXI_KIND_PINNED);
    assert_true(!found->file && !found->joins && found->serial);
    assert_int_equal(found->gpu, 0);
    assert_int_equal(found->base, base);
    assert_true(found->size >= LENGTH);
    OK(me.ops->alive(me.device, found));
    OK(me.ops->let_use(me.device, found, me.gpus - 1));
}

static void pinned_memory_is_known(void **state) {
    (void)state;
    for (int allocated = 0; allocated < 2; allocated++) {
        uint8_t *memory = make_pinned(allocated);
        const uint64_t base = (uintptr_t)memory, places[] = {base, base + 1, base + LENGTH / 2 + 3, base + LENGTH - 1};
        struct nvlxi_allocation first, found;
        struct nvlxi_handle handle;
        int fd = -1;
        expect_pinned(base, base, &first);
        for (size_t i = 0; i < NVLXI_COUNT(places); i++) {
            expect_pinned(places[i], base, &found);
            assert_int_equal(found.serial, first.serial);
        }
        GIVES(NVLX_ENOTSUP, me.ops->export_handle(me.device, &first, &handle));
        GIVES(NVLX_ENOTSUP, me.ops->export_file(me.device, &first, &fd));
        GIVES(NVLX_EINVAL, me.ops->free(me.device, memory));
        GIVES(NVLX_EINVAL, me.ops->ids_check(me.device, 0, base, 64));
        free_pinned(memory, allocated);
        GIVES(NVLX_ESTALE, me.ops->alive(me.device, &first));
    }
}

static void pinned_again_is_another(void **state) {
    (void)state;
    uint8_t *memory = make_pinned(false);
    struct nvlxi_allocation old, now;
    expect_pinned((uintptr_t)memory, (uintptr_t)memory, &old);
    for (int i = 0; i < 5; i++) {
        unpin(memory);
        GIVES(NVLX_ESTALE, me.ops->alive(me.device, &old));
        GIVES(NVLX_ENOTSUP, me.ops->resolve(me.device, (uintptr_t)memory, &now));
        assert_non_null(strstr(nvlx_last_error(), "cudaHostRegister"));
        pin(memory, LENGTH);
        expect_pinned((uintptr_t)memory, (uintptr_t)memory, &now);
        assert_true(now.serial != old.serial);
        GIVES(NVLX_ESTALE, me.ops->alive(me.device, &old));
        old = now;
    }
    free_pinned(memory, false);
}

/* ---- Copies -------------------------------------------------------------------------------------------------- */

enum way { ONE, LIST, ROWS, GRID, KERNEL, KERNEL_OF_ROWS, WAYS };
enum { PARTS = 9, PART = 7000, STEP = 8000 };

struct ends {
    struct nvlxi_lane *lane;
    uint64_t to, from;
    int to_gpu, from_gpu;
    void *list; /* from list_alloc */
};

static int copy_rows_by(const struct ends *ends, enum way way) {
    struct nvlxi_rows rows = {ends->to, ends->from, PART, PARTS, STEP, STEP};
    const struct nvlxi_part part = {.list = ends->list, .count = 1};
    const struct nvlxi_kernel kernel = {.parts = &part, .part_count = 1, .rows = true, .sms = 4, .average = PART};
    if (way == ROWS)
        return me.ops->copy_rows(ends->lane, &rows, 1, ends->to_gpu, ends->from_gpu);
    if (way == KERNEL_OF_ROWS) {
        memcpy(ends->list, &rows, sizeof rows);
        return me.ops->copy_kernel(ends->lane, &kernel);
    }
    rows.count = 3;
    const struct nvlxi_grid grid = {.rows = rows, .times = 3, .destination_step = 3 * STEP, .source_step = 3 * STEP};
    return me.ops->copy_grid(ends->lane, &grid, ends->to_gpu, ends->from_gpu);
}

/* PARTS parts, one every STEP bytes. */
static int copy_by(const struct ends *ends, enum way way) {
    struct nvlxi_fragment list[PARTS];
    const struct nvlxi_part part = {.list = ends->list, .count = PARTS};
    const struct nvlxi_kernel kernel = {.parts = &part, .part_count = 1, .sms = 4, .average = PART};
    int code = 0;
    for (size_t i = 0; i < PARTS; i++)
        list[i] = (struct nvlxi_fragment){ends->to + i * STEP, ends->from + i * STEP, PART};
    memcpy(ends->list, list, sizeof list);
    for (size_t i = 0; i < PARTS && way == ONE && !code; i++) {
        const struct nvlxi_copy copy = {list[i].destination, list[i].source, PART, ends->to_gpu, ends->from_gpu};
        code = me.ops->copy(ends->lane, &copy);
    }
    if (way == ONE)
        return code;
    if (way == LIST)
        return me.ops->copy_list(ends->lane, list, PARTS, ends->to_gpu, ends->from_gpu);
    return way == KERNEL ? me.ops->copy_kernel(ends->lane, &kernel) : copy_rows_by(ends, way);
}

static void check_copy(const struct ends *ends, enum way way, uint8_t seed) {
    fill(ends->to, PARTS * STEP, 200);
    fill(ends->from, PARTS * STEP, seed);
    OK(copy_by(ends, way));
    while (me.ops->lane_query(ends->lane) == NVLX_EAGAIN)
        continue;
    OK(me.ops->lane_query(ends->lane));
    uint8_t *got = malloc(PARTS * STEP);
    assert_non_null(got);
    OK(me.ops->memcpy(me.device, got, (void *)(uintptr_t)ends->to, PARTS * STEP));
    for (uint64_t i = 0; i < PARTS * STEP; i++)
        assert_int_equal(got[i], seed_byte(i % STEP < PART ? seed : 200, i));
    free(got);
}

/* Both ways between host memory and memory on a GPU, either of this process or of another one. */
static void check_copies(uint64_t host, uint64_t other, int gpu) {
    struct ends ends = {.to_gpu = NVLXI_HOST_MEMORY, .from_gpu = gpu, .to = host + 3, .from = other + 3};
    OK(me.ops->lane_create(me.device, gpu, 0, &ends.lane));
    OK(me.ops->list_alloc(me.device, PARTS * sizeof(struct nvlxi_fragment), &ends.list));
    for (int back = 0; back < 2; back++) {
        for (enum way way = ONE; way < WAYS; way++)
            check_copy(&ends, way, (uint8_t)(10 + 10 * back + way));
        ends = (struct ends){ends.lane, ends.from, ends.to, ends.from_gpu, ends.to_gpu, ends.list};
    }
    me.ops->list_free(me.device, ends.list);
    me.ops->lane_destroy(ends.lane);
}

static void pinned_memory_is_copied(void **state) {
    (void)state;
    for (int allocated = 0; allocated < 2; allocated++) {
        uint8_t *memory = make_pinned(allocated);
        for (int gpu = 0; gpu < me.gpus; gpu++) {
            const uint64_t own = allocate(gpu, LENGTH);
            check_copies((uintptr_t)memory, own, gpu);
            release(own);
        }
        struct nvlxi_segment_record record = peer_segment(LENGTH, 3);
        const uint64_t mapped = map(0, &record);
        check_copies((uintptr_t)memory, mapped, 0);
        unmap(0, mapped);
        free_pinned(memory, allocated);
    }
}

static void copies_end_with_pinned_memory(void **state) {
    (void)state;
    uint8_t *memory = make_pinned(false);
    const uint64_t own = allocate(0, LENGTH), base = (uintptr_t)memory;
    unpin(memory);
    pin(memory, LENGTH / 2);
    pin(memory + LENGTH / 2, LENGTH / 2);
    const struct nvlxi_copy crossing = {own, base + LENGTH / 2 - 10, 20, 0, NVLXI_HOST_MEMORY};
    struct nvlxi_lane *lane;
    OK(me.ops->lane_create(me.device, 0, 0, &lane));
    GIVES(NVLX_EDEVICE, me.ops->copy(lane, &crossing));
    unpin(memory + LENGTH / 2);
    unpin(memory);
    pin(memory, LENGTH - PAGE);
    const struct nvlxi_copy beyond = {own, base + LENGTH - PAGE - 10, 20, 0, NVLXI_HOST_MEMORY};
    GIVES(NVLX_EDEVICE, me.ops->copy(lane, &beyond));
    OK(me.ops->lane_query(lane));
    me.ops->lane_destroy(lane);
    release(own);
    free_pinned(memory, false);
}

static void pinned_memory_is_digested(void **state) {
    (void)state;
    uint8_t *memory = make_pinned(true);
    const uint64_t own = allocate(0, LENGTH);
    uint64_t digests[2][2];
    for (uint64_t i = 0; i < LENGTH; i++)
        memory[i] = seed_byte(77, i);
    OK(me.ops->memcpy(me.device, (void *)(uintptr_t)own, memory, LENGTH));
    for (int i = 0; i < 2; i++) {
        const struct nvlxi_digest_span span = {(i ? own : (uintptr_t)memory) + 5, 2 * NVLXI_LEAF_BYTES};
        struct nvlxi_lane *lane;
        void *list;
        OK(me.ops->lane_create(me.device, 0, 0, &lane));
        OK(me.ops->list_alloc(me.device, sizeof digests[i], &list));
        OK(me.ops->digest(lane, &(struct nvlxi_leaves){.spans = &span, .span_count = 1, .digests = list}));
        while (me.ops->lane_query(lane) == NVLX_EAGAIN)
            continue;
        OK(me.ops->lane_query(lane));
        memcpy(digests[i], list, sizeof digests[i]);
        me.ops->list_free(me.device, list);
        me.ops->lane_destroy(lane);
    }
    assert_memory_equal(digests[0], digests[1], sizeof digests[0]);
    release(own);
    free_pinned(memory, true);
}

/* ---- Chunks -------------------------------------------------------------------------------------------------- */

/* On a GPU, if it has them. */
static uint64_t allocate_chunks(int gpu, uint64_t length) {
    struct message made = {
        .errand = ERRAND_ALLOC, .gpu = gpu, .length = length, .kind = NVLXI_KIND_HOST, .chunk = CHUNK};
    if (work(&me, &made) == NVLX_ENOTSUP && me.ops != &nvlxi_device_host)
        skip();
    assert_int_equal(made.code, 0);
    return made.address;
}

static void chunks_of_host_memory_are_known(void **state) {
    (void)state;
    for (int gpu = 0; gpu < me.gpus; gpu++) {
        const uint64_t base = allocate_chunks(gpu, 3 * CHUNK);
        for (uint64_t i = 0; i < 3; i++) {
            const struct nvlxi_allocation found = resolve(base + i * CHUNK + 5);
            struct nvlxi_handle handle = {.length = 1};
            assert_int_equal(found.kind, NVLXI_KIND_HOST);
            assert_int_equal(found.gpu, gpu);
            assert_int_equal(found.base, base + i * CHUNK);
            assert_int_equal(found.size, CHUNK);
            assert_true(found.file && found.joins && found.reservation == base);
            OK(me.ops->export_handle(me.device, &found, &handle));
            assert_int_equal(handle.length, 0);
            OK(me.ops->alive(me.device, &found));
        }
        GIVES(NVLX_EINVAL, me.ops->ids_check(me.device, gpu, base, 64));
        release(base);
    }
}

/* By CPUs as it is, by its GPU, and by others that are let. */
static void chunks_of_host_memory_are_used(void **state) {
    (void)state;
    const int far = me.gpus - 1;
    const uint64_t base = allocate_chunks(0, 2 * CHUNK);
    uint8_t *bytes = (uint8_t *)(uintptr_t)base;
    for (uint64_t i = 0; i < 2 * CHUNK; i++)
        bytes[i] = seed_byte(31, i);
    assert_int_equal(wrong(base, 2 * CHUNK, 31), 0);
    fill(base, 2 * CHUNK, 32);
    for (uint64_t i = 0; i < 2 * CHUNK; i++)
        assert_int_equal(bytes[i], seed_byte(32, i));
    const struct nvlxi_allocation first = resolve(base);
    OK(me.ops->let_use(me.device, &first, far));
    for (int gpu = 0; gpu <= far; gpu += far ? far : 1) {
        const uint64_t own = allocate(gpu, LENGTH);
        check_copies(base, own, gpu);
        release(own);
    }
    release(base);
}

/* Of the peer, back to back, and for reading alone. */
static void chunks_of_host_memory_are_mapped(void **state) {
    (void)state;
    struct nvlxi_segment_record run[3];
    release(allocate_chunks(0, CHUNK)); /* or this case is skipped */
    const uint64_t remote = peer_memory(NVLXI_KIND_HOST, 3 * CHUNK, CHUNK, 7);
    peer_run(remote, 3, run);
    assert_int_equal(run[1].kind, NVLXI_KIND_HOST);
    for (int gpu = 0; gpu < me.gpus; gpu++) {
        const uint64_t mapped = map_run(gpu, 3, run, false), own = allocate(gpu, LENGTH);
        check_copies(mapped + 2 * CHUNK - LENGTH / 2, own, gpu); /* across a border */
        assert_int_equal(peer_wrong(remote, CHUNK, 7), 0);
        release(own);
        unmap(gpu, mapped);
    }
    const uint64_t locked = map_run(0, 3, run, true), own = allocate(0, LENGTH);
    const struct nvlxi_copy copy = {
        .destination = locked, .source = own, .length = 100, .destination_gpu = NVLXI_HOST_MEMORY, .source_gpu = 0};
    struct nvlxi_lane *lane;
    OK(me.ops->lane_create(me.device, 0, 0, &lane));
    GIVES(NVLX_EDEVICE, me.ops->copy(lane, &copy));
    me.ops->lane_destroy(lane);
    unmap(0, locked);
    release(own);
}

const struct contract_case host_cases[] = {
    {"pinned memory is known", pinned_memory_is_known},
    {"pinned again is another", pinned_again_is_another},
    {"pinned memory is copied", pinned_memory_is_copied},
    {"copies end with pinned memory", copies_end_with_pinned_memory},
    {"pinned memory is digested", pinned_memory_is_digested},
    {"chunks of host memory are known", chunks_of_host_memory_are_known},
    {"chunks of host memory are used", chunks_of_host_memory_are_used},
    {"chunks of host memory are mapped", chunks_of_host_memory_are_mapped},
};
const size_t host_case_count = NVLXI_COUNT(host_cases);
