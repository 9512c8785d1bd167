/* The host backend's kinds of memory beyond the contract: forged records and files, and what runs out.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host_support.h"

#define CHUNK (2 * MIB)
#define POOL  (1024 * (uint64_t)MIB)
#define NAME  "nvlxfer-host-gpu"

/* Gives out new descriptors of one file. */
struct source {
    struct nvlxi_files files;
    int fd, taken;
};

static int take(struct nvlxi_files *files, int *fd) {
    struct source *source = nvlxi_container_of(files, struct source, files);
    source->taken++;
    *fd = fcntl(source->fd, F_DUPFD_CLOEXEC, 0);
    return *fd < 0 ? NVLX_ETIMEDOUT : 0;
}

/* Maps records of the peer's with the file of one descriptor, which stays open, and unmaps them; -1: without files.
 * Whatever happens, as many files are open afterwards as before. */
static int try_map(size_t count, const struct nvlxi_segment_record *records, int fd, int *taken) {
    const struct nvlxi_identity owner = {.pid = 0};
    struct source source = {.files = {take}, .fd = fd};
    const struct nvlxi_map map = {
        .owner = &owner, .segments = records, .count = count, .files = fd < 0 ? NULL : &source.files};
    uint64_t address = 77;
    int lowest = dup(0);
    close(lowest);
    int code = ops->map(me.device, &map, &address);
    if (!code)
        OK(ops->unmap(me.device, 0, address));
    else
        assert_int_equal(address, 77);
    int now = dup(0);
    close(now);
    assert_int_equal(now, lowest);
    *taken = source.taken;
    return code;
}

/* What the peer exported, and its file. */
struct exported {
    struct nvlxi_segment_record record;
    int fd;
};

static struct exported export_again(uint64_t address) {
    struct message m = there((struct message){.errand = ERRAND_EXPORT, .address = address});
    m.errand = ERRAND_FILE;
    m = there(m);
    return (struct exported){m.record, m.fd};
}

static struct exported exported_by_peer(uint32_t kind, uint64_t length) {
    return export_again(there((struct message){.errand = ERRAND_ALLOC, .length = length, .kind = kind}).address);
}

static void peer_free(uint64_t address) {
    there((struct message){.errand = ERRAND_FREE, .address = address});
}

/* `wanted`, and the file taken or not. */
static void refuse(int wanted, int files, struct nvlxi_segment_record record, int fd) {
    int taken;
    GIVES(wanted, try_map(1, &record, fd, &taken));
    assert_int_equal(taken, files);
}

static uint64_t allocate(uint32_t kind, uint64_t length, uint64_t chunk) {
    struct message m = {.errand = ERRAND_ALLOC, .length = length, .kind = kind, .chunk = chunk};
    OK(work(&me, &m));
    return m.address;
}

static int try_allocate(uint32_t kind, uint64_t length, uint64_t chunk) {
    struct message m = {.errand = ERRAND_ALLOC, .length = length, .kind = kind, .chunk = chunk};
    return work(&me, &m);
}

static void release(uint64_t address) {
    OK(ops->free(me.device, (void *)(uintptr_t)address));
}

/* ---- Records ----------------------------------------------------------------------------------------- */

static void unknown_kinds_are_refused(void **state) {
    (void)state;
    struct exported chunk = exported_by_peer(NVLXI_KIND_VMM, CHUNK);
    chunk.record.kind = NVLXI_KIND_FABRIC;
    refuse(NVLX_ENOTSUP, 0, chunk.record, chunk.fd);
    chunk.record.kind = 99;
    refuse(NVLX_ENOTSUP, 0, chunk.record, chunk.fd);
    close(chunk.fd);
    GIVES(NVLX_ENOTSUP, try_allocate(NVLXI_KIND_FABRIC, CHUNK, 0));
    GIVES(NVLX_ENOTSUP, try_allocate(99, CHUNK, 0));
}

static void forged_chunks_are_refused(void **state) {
    (void)state;
    const struct exported chunk = exported_by_peer(NVLXI_KIND_VMM, CHUNK);
    const uint64_t sizes[] = {0, 1, CHUNK - 1, CHUNK + 1};
    struct nvlxi_segment_record forged = chunk.record;
    for (size_t i = 0; i < NVLXI_COUNT(sizes); i++) {
        forged.size = sizes[i];
        refuse(NVLX_EDEVICE, 0, forged, chunk.fd);
    }
    forged.size = UINT64_C(1) << 60; /* more than there are addresses */
    refuse(NVLX_EDEVICE, 0, forged, chunk.fd);
    forged = chunk.record;
    forged.handle.length = 1;
    refuse(NVLX_EDEVICE, 0, forged, chunk.fd);
    forged = chunk.record;
    forged.file = false;
    refuse(NVLX_EDEVICE, 0, forged, chunk.fd);
    refuse(NVLX_EINVAL, 0, chunk.record, -1);
    refuse(0, 1, chunk.record, chunk.fd);
    close(chunk.fd);
}

static void runs_must_be_adjacent(void **state) {
    (void)state;
    const struct exported chunk = exported_by_peer(NVLXI_KIND_VMM, CHUNK);
    struct nvlxi_segment_record run[2] = {chunk.record, chunk.record};
    const uint64_t bases[] = {0, chunk.record.base, chunk.record.base + CHUNK - 1, chunk.record.base + CHUNK + 1,
                              chunk.record.base + 2 * CHUNK};
    int taken;
    for (size_t i = 0; i < NVLXI_COUNT(bases); i++) {
        run[1].base = bases[i];
        GIVES(NVLX_EINVAL, try_map(2, run, chunk.fd, &taken));
        assert_int_equal(taken, 0);
    }
    run[0].base = UINT64_MAX - CHUNK + 1;
    GIVES(NVLX_EINVAL, try_map(2, run, chunk.fd, &taken));
    run[0].base = chunk.record.base;
    run[1].base = chunk.record.base + CHUNK;
    run[1].kind = NVLXI_KIND_CUDA_MALLOC;
    GIVES(NVLX_EDEVICE, try_map(2, run, chunk.fd, &taken));
    assert_int_equal(taken, 0);
    run[1].kind = NVLXI_KIND_VMM;
    OK(try_map(2, run, chunk.fd, &taken));
    assert_int_equal(taken, 2);
    run[0] = run[1] = peer_segment(MIB);
    run[1].base = run[0].base + MIB;
    GIVES(NVLX_EINVAL, try_map(2, run, chunk.fd, &taken)); /* this kind does not join */
    close(chunk.fd);
}

/* Sealed, but not by this backend: so as to shrink, or not to be written. */
static void other_seals_are_refused(void **state) {
    (void)state;
    const struct exported chunk = exported_by_peer(NVLXI_KIND_VMM, CHUNK);
    const int seals[] = {F_SEAL_GROW | F_SEAL_SEAL, F_SEAL_SHRINK | F_SEAL_GROW,
                         F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL};
    for (size_t i = 0; i < NVLXI_COUNT(seals); i++) {
        int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(ftruncate(fd, CHUNK), 0);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, seals[i]), 0);
        refuse(NVLX_EDEVICE, 1, chunk.record, fd);
        close(fd);
    }
    close(chunk.fd);
}

static void vmm_mappings_belong_to_a_gpu(void **state) {
    (void)state;
    const struct exported chunk = exported_by_peer(NVLXI_KIND_VMM, CHUNK);
    const struct nvlxi_identity owner = {.pid = 0};
    struct source source = {.files = {take}, .fd = chunk.fd};
    const struct nvlxi_map map = {
        .gpu = 1, .owner = &owner, .segments = &chunk.record, .count = 1, .files = &source.files};
    struct nvlxi_allocation found;
    uint64_t mapped;
    OK(ops->map(me.device, &map, &mapped));
    GIVES(NVLX_ENOTSUP, ops->resolve(me.device, mapped + 5, &found));
    expect_words("a mapping of another process's memory");
    GIVES(NVLX_EINVAL, ops->unmap(me.device, 0, mapped));
    GIVES(NVLX_EINVAL, ops->unmap(me.device, 1, mapped + 1));
    GIVES(NVLX_EINVAL, ops->free(me.device, (void *)(uintptr_t)mapped));
    OK(ops->unmap(me.device, 1, mapped));
    GIVES(NVLX_EINVAL, ops->unmap(me.device, 1, mapped));
    close(chunk.fd);
}

static void kernels_do_not_write_what_is_read_only(void **state) {
    (void)state;
    const struct exported chunk = exported_by_peer(NVLXI_KIND_VMM, CHUNK);
    const struct nvlxi_identity owner = {.pid = 0};
    struct source source = {.files = {take}, .fd = chunk.fd};
    const struct nvlxi_map map = {
        .owner = &owner, .segments = &chunk.record, .count = 1, .files = &source.files, .read_only = true};
    struct nvlxi_lane *lane;
    uint64_t mapped;
    OK(ops->map(me.device, &map, &mapped));
    OK(ops->lane_create(me.device, 0, 0, &lane));
    /* Begins before the mapping, and goes into it. */
    const struct nvlxi_fragment fragment = {mapped - 1, (uintptr_t)&mapped, 2};
    const struct nvlxi_part part = {&fragment, 1};
    const struct nvlxi_kernel kernel = {.parts = &part, .part_count = 1};
    GIVES(NVLX_EDEVICE, ops->copy_kernel(lane, &kernel));
    expect_words("may only be read");
    OK(ops->lane_query(lane));
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(read(ends[0], (void *)(uintptr_t)mapped, 1), -1); /* nor does the kernel of the system */
    assert_int_equal(errno, EFAULT);
    close(ends[0]);
    close(ends[1]);
    ops->lane_destroy(lane);
    OK(ops->unmap(me.device, 0, mapped));
    close(chunk.fd);
}

/* ---- Legacy handles ---------------------------------------------------------------------------------- */

static void other_namespaces_are_told(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_segment(MIB);
    struct nvlxi_identity owner = {.pid = (uint64_t)peer.pid, .pid_namespace = 1};
    const struct nvlxi_map map = {.owner = &owner, .segments = &record, .count = 1};
    struct stat mine;
    uint64_t mapped;
    GIVES(NVLX_ENOTSUP, ops->map(me.device, &map, &mapped));
    expect_words("in another PID namespace");
    expect_words("NVLX_ALLOC_VMM");
    expect_words("nvlx_serve");
    assert_int_equal(stat("/proc/self/ns/pid", &mine), 0);
    owner.pid_namespace = mine.st_ino;
    OK(ops->map(me.device, &map, &mapped));
    OK(ops->unmap(me.device, 0, mapped));
}

/* ---- Pools ------------------------------------------------------------------------------------------- */

static struct nvlxi_host_pool_handle handle_of(const struct nvlxi_segment_record *record) {
    struct nvlxi_host_pool_handle handle;
    assert_int_equal(record->handle.length, sizeof handle);
    memcpy(&handle, record->handle.bytes, sizeof handle);
    return handle;
}

static void refuse_pool(int wanted, int files, struct exported exported, struct nvlxi_host_pool_handle handle) {
    memcpy(exported.record.handle.bytes, &handle, sizeof handle);
    refuse(wanted, files, exported.record, exported.fd);
}

static void forged_pool_handles_are_refused(void **state) {
    (void)state;
    struct exported real = exported_by_peer(NVLXI_KIND_POOL, 3000), lie = real;
    const struct nvlxi_host_pool_handle handle = handle_of(&real.record);
    const uint64_t offsets[] = {1, handle.offset + 511, POOL, UINT64_MAX - 511};
    const uint64_t sizes[] = {0, POOL + 1, UINT64_MAX};
    struct nvlxi_host_pool_handle forged = handle;
    for (size_t i = 0; i < NVLXI_COUNT(offsets); i++) {
        forged.offset = offsets[i];
        refuse_pool(NVLX_EDEVICE, 0, real, forged);
    }
    forged.offset = handle.offset + 512; /* inside the allocation, where none begins */
    refuse_pool(NVLX_ESTALE, 1, real, forged);
    forged = handle;
    for (size_t i = 0; i < NVLXI_COUNT(sizes); i++) {
        forged.size = lie.record.size = sizes[i];
        refuse_pool(NVLX_EDEVICE, 0, real, forged);
        refuse_pool(NVLX_EDEVICE, 0, lie, handle);
        refuse_pool(NVLX_EDEVICE, 0, lie, forged);
    }
    forged.size = lie.record.size = handle.size + 1; /* both agree */
    refuse_pool(NVLX_EDEVICE, 1, lie, forged);
    forged = handle;
    forged.serial = lie.record.serial = handle.serial + 1;
    refuse_pool(NVLX_EDEVICE, 0, real, forged);
    lie.record.size = handle.size;
    refuse_pool(NVLX_EDEVICE, 1, lie, forged);
    forged = handle;
    forged.tag ^= 1;
    refuse_pool(NVLX_ESTALE, 1, real, forged);
    forged = handle;
    forged.magic++;
    refuse_pool(NVLX_EDEVICE, 0, real, forged);
    lie = real;
    lie.record.file = false;
    refuse_pool(NVLX_EDEVICE, 0, lie, handle);
    refuse(NVLX_EINVAL, 0, real.record, -1);
    refuse(0, 1, real.record, real.fd);
    close(real.fd);
}

/* Each kind's file is refused for the other. */
static void files_are_not_mixed_up(void **state) {
    (void)state;
    const struct exported chunk = exported_by_peer(NVLXI_KIND_VMM, CHUNK), part = exported_by_peer(NVLXI_KIND_POOL, 10);
    refuse(NVLX_EDEVICE, 1, chunk.record, part.fd);
    refuse(NVLX_EDEVICE, 1, part.record, chunk.fd);
    close(chunk.fd);
    close(part.fd);
}

/* Freed; allocated again at the same place; and when the pool is gone as well. */
static void stale_pool_handles_are_refused(void **state) {
    (void)state;
    const struct exported keep = exported_by_peer(NVLXI_KIND_POOL, 10), old = exported_by_peer(NVLXI_KIND_POOL, 3000);
    refuse(0, 1, old.record, old.fd);
    peer_free(old.record.base);
    refuse(NVLX_ESTALE, 1, old.record, old.fd);
    const struct exported now = exported_by_peer(NVLXI_KIND_POOL, 3000);
    assert_int_equal(now.record.base, old.record.base);
    assert_int_not_equal(now.record.serial, old.record.serial);
    refuse(NVLX_ESTALE, 1, old.record, now.fd);
    refuse(0, 1, now.record, old.fd); /* it is the same pool */
    peer_free(now.record.base);
    peer_free(keep.record.base);
    refuse(NVLX_ESTALE, 1, keep.record, keep.fd);
    const struct exported later = exported_by_peer(NVLXI_KIND_POOL, 3000);
    refuse(NVLX_ESTALE, 1, now.record, later.fd);
    refuse(0, 1, later.record, later.fd);
    close(keep.fd);
    close(old.fd);
    close(now.fd);
    close(later.fd);
}

static void pools_fill_their_gaps(void **state) {
    (void)state;
    uint64_t a = allocate(NVLXI_KIND_POOL, 1, 0), b = allocate(NVLXI_KIND_POOL, 513, 0);
    uint64_t c = allocate(NVLXI_KIND_POOL, 512, 0);
    struct nvlxi_allocation found;
    assert_int_equal(b, a + 512);
    assert_int_equal(c, b + 1024);
    OK(ops->resolve(me.device, b + 512, &found));
    assert_int_equal(found.base, b);
    GIVES(NVLX_ENOTSUP, ops->resolve(me.device, b + 513, &found));
    GIVES(NVLX_ENOTSUP, ops->resolve(me.device, a + 1, &found));
    release(b);
    assert_int_equal(allocate(NVLXI_KIND_POOL, 1025, 0), c + 512);
    assert_int_equal(allocate(NVLXI_KIND_POOL, 1024, 0), b);
    release(a);
    assert_int_equal(allocate(NVLXI_KIND_POOL, 512, 0), a);
    release(a);
    release(b);
    release(c);
    release(c + 512);
    assert_int_equal(lines_with("/proc/self/maps", NAME), 0);
}

static void pools_are_exhausted(void **state) {
    (void)state;
    GIVES(NVLX_EDEVICE, try_allocate(NVLXI_KIND_POOL, POOL + 1, 0));
    GIVES(NVLX_EDEVICE, try_allocate(NVLXI_KIND_POOL, UINT64_MAX, 0));
    assert_int_equal(lines_with("/proc/self/maps", NAME), 0);
    uint64_t half = allocate(NVLXI_KIND_POOL, POOL / 2, 0), rest = allocate(NVLXI_KIND_POOL, POOL / 2 - 511, 0);
    GIVES(NVLX_EDEVICE, try_allocate(NVLXI_KIND_POOL, 1, 0));
    expect_words("the pool of GPU 0 has no 1 bytes");
    struct message other = {.errand = ERRAND_ALLOC, .gpu = 1, .length = POOL, .kind = NVLXI_KIND_POOL};
    OK(work(&me, &other)); /* each GPU has its own */
    release(other.address);
    release(half);
    assert_int_equal(allocate(NVLXI_KIND_POOL, 1, 0), half);
    GIVES(NVLX_EDEVICE, try_allocate(NVLXI_KIND_POOL, POOL / 2, 0));
    release(half);
    release(rest);
    assert_int_equal(lines_with("/proc/self/maps", NAME), 0);
}

/* ---- Exhaustion -------------------------------------------------------------------------------------- */

static void addresses_run_out(void **state) {
    (void)state;
    const uint64_t lengths[] = {UINT64_C(1) << 60, UINT64_MAX, UINT64_MAX - CHUNK};
    for (size_t i = 0; i < NVLXI_COUNT(lengths); i++) {
        GIVES(NVLX_EDEVICE, try_allocate(NVLXI_KIND_VMM, lengths[i], 0));
        GIVES(NVLX_EDEVICE, try_allocate(NVLXI_KIND_VMM, lengths[i], CHUNK));
        GIVES(NVLX_EDEVICE, try_allocate(NVLXI_KIND_VMM, CHUNK, UINT64_MAX));
        expect_words("out of memory: 18446744073709551615 bytes in a chunk were asked for");
    }
    GIVES(NVLX_EINVAL, try_allocate(NVLXI_KIND_VMM, 0, 0));
    GIVES(NVLX_EINVAL, try_allocate(NVLXI_KIND_POOL, 0, 0));
}

/* With `spare` more file descriptors than are open. */
static struct rlimit limit_files(rlim_t spare) {
    struct rlimit old, few;
    int lowest = dup(0);
    close(lowest);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    few = (struct rlimit){(rlim_t)lowest + spare, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    return old;
}

static void files_run_out(void **state) {
    (void)state;
    enum { ROUNDS = 50 };
    struct nvlxi_allocation chunk;
    int lines = lines_with("/proc/self/maps", ""), fd = -1;
    for (int i = 0; i < ROUNDS; i++) {
        rlim_t spare = (rlim_t)i % 5;
        struct rlimit old = limit_files(spare);
        int chunks = try_allocate(NVLXI_KIND_VMM, 5 * CHUNK, CHUNK);
        int part = spare ? 0 : try_allocate(NVLXI_KIND_POOL, 10, 0);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        GIVES(NVLX_ENOMEM, chunks);
        GIVES(spare ? 0 : NVLX_ENOMEM, part);
        assert_int_equal(lines_with("/proc/self/maps", NAME), 0);
    }
    assert_true(lines_with("/proc/self/maps", "") < lines + ROUNDS); /* the heap may have grown */
    struct rlimit old = limit_files(5);
    uint64_t address = allocate(NVLXI_KIND_VMM, 5 * CHUNK, CHUNK);
    OK(ops->resolve(me.device, address, &chunk));
    int code = ops->export_file(me.device, &chunk, &fd);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    GIVES(NVLX_ENOMEM, code);
    assert_int_equal(fd, -1);
    OK(ops->export_file(me.device, &chunk, &fd));
    close(fd);
    release(address);
}

static const struct CMUnitTest cases[] = {CASE(unknown_kinds_are_refused),
                                          CASE(forged_chunks_are_refused),
                                          CASE(runs_must_be_adjacent),
                                          CASE(other_seals_are_refused),
                                          CASE(vmm_mappings_belong_to_a_gpu),
                                          CASE(kernels_do_not_write_what_is_read_only),
                                          CASE(other_namespaces_are_told),
                                          CASE(forged_pool_handles_are_refused),
                                          CASE(files_are_not_mixed_up),
                                          CASE(stale_pool_handles_are_refused),
                                          CASE(pools_fill_their_gaps),
                                          CASE(pools_are_exhausted),
                                          CASE(addresses_run_out),
                                          CASE(files_run_out)};
static const struct role roles[] = {PEER_ROLE, {0}};
const struct program program = {
    .name = "host kinds", .cases = cases, .count = COUNT(cases), .roles = roles, .child_seconds = PEER_SECONDS};
