/* What may not be opened by file descriptors, and that nothing leaks: part of device_contract.c.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "device_contract_files.h"

/* What a process can leak by mapping. */
struct footprint {
    int files, maps;
};

static struct footprint footprint(void) {
    struct footprint found = {0, 0};
    char line[1024];
    DIR *fds = opendir("/proc/self/fd");
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_true(fds && maps);
    while (readdir(fds))
        found.files++;
    while (fgets(line, sizeof line, maps))
        found.maps++;
    closedir(fds);
    fclose(maps);
    return found;
}

/* A driver may keep a few things of its own: less than one for each round. */
static void expect_footprint(struct footprint before, int rounds) {
    struct footprint now = footprint();
    if (now.files - before.files >= rounds || now.maps - before.maps >= rounds)
        FAIL("after %d rounds, %d files and %d maps are more", rounds, now.files - before.files,
             now.maps - before.maps);
}

/* ---- Refusals ---------------------------------------------------------------------------------------- */

static int memory_file(uint64_t length) {
    int fd = memfd_create("garbage", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)length), 0);
    return fd;
}

static int plain_file(uint64_t length) {
    char path[] = "/tmp/nvlxfer-contract-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(ftruncate(fd, (off_t)length), 0);
    return fd;
}

enum { GARBAGE = 6 };

/* Something that is no device memory, of the right size if it has one. Of a pipe, also the other end. */
static int garbage(size_t which, uint64_t length, int *other_end) {
    int ends[2];
    *other_end = -1;
    switch (which) {
    case 0:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    case 1:
        return open("/dev/zero", O_RDWR | O_CLOEXEC);
    case 2:
        return memory_file(length);
    case 3:
        return memory_file(length + CHUNK);
    case 4:
        return plain_file(length);
    default:
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        *other_end = ends[1];
        return ends[0];
    }
}

static void refuse_garbage(const struct nvlxi_segment_record *record) {
    for (size_t i = 0; i < GARBAGE; i++) {
        uint64_t mapped = 77;
        int other_end, fd = garbage(i, record->size, &other_end);
        struct source source = source_of(1, &fd);
        GIVES(NVLX_EDEVICE, try_map_from(&source, 0, 1, record, false, &mapped));
        assert_int_equal(mapped, 77);
        assert_int_equal(source.taken, 1);
        assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed */
        if (other_end >= 0)
            close(other_end);
    }
}

static void garbage_files_are_refused(void **state) {
    (void)state;
    struct nvlxi_segment_record record = peer_record(peer_memory(NVLXI_KIND_VMM, CHUNK, 0, 5));
    refuse_garbage(&record);
    uint64_t mapped = map_run(0, 1, &record, false);
    assert_int_equal(wrong(mapped, CHUNK, 5), 0);
    unmap(0, mapped);
}

static void garbage_pools_are_refused(void **state) {
    (void)state;
    need_pools();
    struct nvlxi_segment_record record = peer_record(peer_memory(NVLXI_KIND_POOL, MIB, 0, 5)), bad = record;
    refuse_garbage(&record);
    uint64_t mapped = 77;
    struct source source = files_of(1, &record);
    memset(bad.handle.bytes, 0x5a, sizeof bad.handle.bytes);
    assert_int_not_equal(try_map_from(&source, 0, 1, &bad, false, &mapped), 0);
    if (!source.taken)
        close(source.fds[0]);
    assert_int_equal(mapped, 77);
    mapped = map_run(0, 1, &record, false);
    assert_int_equal(wrong(mapped, MIB, 5), 0);
    unmap(0, mapped);
}

static void lying_chunk_sizes_are_refused(void **state) {
    (void)state;
    const uint64_t sizes[] = {CHUNK, 3 * CHUNK, 64 * CHUNK};
    struct nvlxi_segment_record record = peer_record(peer_memory(NVLXI_KIND_VMM, 2 * CHUNK, 0, 5)), lie = record;
    for (size_t i = 0; i < NVLXI_COUNT(sizes); i++) {
        uint64_t mapped = 77;
        struct source source = files_of(1, &record);
        lie.size = sizes[i];
        GIVES(NVLX_EDEVICE, try_map_from(&source, 0, 1, &lie, false, &mapped));
        assert_int_equal(fcntl(source.fds[0], F_GETFD), -1);
        assert_int_equal(mapped, 77);
    }
    uint64_t mapped = map_run(0, 1, &record, false);
    assert_int_equal(wrong(mapped, 2 * CHUNK, 5), 0);
    unmap(0, mapped);
}

/* Maps the run with the n-th file failing to come, or leading elsewhere. */
static void fail_export_at(size_t n, bool garbled, const struct nvlxi_segment_record *run) {
    struct source source = files_of(garbled ? RUN : n, run);
    uint64_t mapped = 77;
    if (garbled) {
        close(source.fds[n]);
        source.fds[n] = open("/dev/null", O_RDWR | O_CLOEXEC);
    }
    GIVES(garbled ? NVLX_EDEVICE : NVLX_ETIMEDOUT, try_map_from(&source, 0, RUN, run, false, &mapped));
    assert_int_equal(source.taken, n + 1);
    assert_int_equal(mapped, 77);
    for (size_t i = 0; i < source.taken && i < source.count; i++)
        assert_int_equal(fcntl(source.fds[i], F_GETFD), -1);
    for (size_t i = source.taken; i < source.count; i++)
        assert_int_equal(close(source.fds[i]), 0);
}

static void a_failure_in_the_middle_undoes_all(void **state) {
    (void)state;
    enum { ROUNDS = 4 };
    struct nvlxi_segment_record run[RUN];
    peer_run(peer_memory(NVLXI_KIND_VMM, RUN * CHUNK, CHUNK, 5), RUN, run);
    unmap(0, map_run(0, RUN, run, false));
    fail_export_at(RUN - 1, false, run);
    fail_export_at(RUN - 1, true, run);
    struct footprint before = footprint();
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t n = 0; n < RUN; n++) {
            fail_export_at(n, false, run);
            fail_export_at(n, true, run);
        }
    }
    expect_footprint(before, ROUNDS);
    uint64_t mapped = map_run(0, RUN, run, false);
    assert_int_equal(wrong(mapped, RUN * CHUNK, 5), 0);
    unmap(0, mapped);
}

/* Two processes in PID namespaces of their own may have the same number: a legacy handle then seems to be one of this
 * process. A file descriptor is what it is. */
static void equal_pids_are_told(void **state) {
    (void)state;
    struct nvlxi_segment_record plain = peer_segment(MIB, 5);
    struct nvlxi_segment_record chunk = peer_record(peer_memory(NVLXI_KIND_VMM, CHUNK, 0, 6));
    const struct nvlxi_identity owner = {.pid = (uint64_t)getpid(), .pid_namespace = 1, .start_time = 1};
    struct source none = source_of(0, NULL), files = files_of(1, &chunk);
    struct nvlxi_map map = {.owner = &owner, .segments = &plain, .count = 1, .files = &none.files};
    uint64_t mapped = 77;
    char number[24];
    snprintf(number, sizeof number, "pid %d", (int)getpid());
    GIVES(NVLX_ENOTSUP, me.ops->map(me.device, &map, &mapped));
    assert_int_equal(mapped, 77);
    assert_int_equal(none.taken, 0);
    assert_non_null(strstr(nvlx_last_error(), number));
    assert_non_null(strstr(nvlx_last_error(), "NVLX_ALLOC_VMM"));
    assert_non_null(strstr(nvlx_last_error(), "nvlx_serve"));
    map.segments = &chunk;
    map.files = &files.files;
    OK(me.ops->map(me.device, &map, &mapped));
    assert_int_equal(wrong(mapped, CHUNK, 6), 0);
    unmap(0, mapped);
}

/* Another number in another namespace: the handle is as good as any. */
static void other_namespaces_are_no_obstacle(void **state) {
    (void)state;
    struct nvlxi_segment_record plain = peer_segment(MIB, 5);
    const struct nvlxi_identity owner = {.pid = (uint64_t)peer.pid, .pid_namespace = 1, .start_time = 1};
    const struct nvlxi_map map = {.owner = &owner, .segments = &plain, .count = 1};
    uint64_t mapped;
    if (difference("other PID namespaces")) {
        GIVES(NVLX_ENOTSUP, me.ops->map(me.device, &map, &mapped));
        return;
    }
    OK(me.ops->map(me.device, &map, &mapped));
    assert_int_equal(wrong(mapped, MIB, 5), 0);
    unmap(0, mapped);
}

/* ---- Leaks and threads ------------------------------------------------------------------------------- */

/* Of the file descriptors of a source, new ones. */
static struct source source_again(const struct source *source) {
    int fds[FILES_MAX];
    for (size_t i = 0; i < source->count; i++)
        fds[i] = fcntl(source->fds[i], F_DUPFD_CLOEXEC, 0);
    return source_of(source->count, fds);
}

static int map_round(const struct source *files, int gpu, size_t count, const struct nvlxi_segment_record *run) {
    struct source source = source_again(files);
    uint64_t mapped;
    uint8_t byte = 0;
    int code = try_map_from(&source, gpu, count, run, false, &mapped);
    if (code)
        return code;
    code = me.ops->memcpy(me.device, &byte, (void *)(uintptr_t)mapped, 1);
    int failed = me.ops->unmap(me.device, gpu, mapped);
    return code ? code : failed ? failed : byte != seed_byte(5, 0);
}

static void source_close(const struct source *source) {
    for (size_t i = 0; i < source->count; i++)
        close(source->fds[i]);
}

static void check_rounds(int rounds, size_t count, const struct nvlxi_segment_record *run) {
    struct source files = files_of(count, run);
    OK(map_round(&files, 0, count, run));
    struct footprint before = footprint();
    for (int i = 0; i < rounds; i++)
        OK(map_round(&files, 0, count, run));
    expect_footprint(before, strcmp(me.ops->name, "host") ? rounds : 1);
    source_close(&files);
}

static void mappings_leak_nothing(void **state) {
    (void)state;
    struct nvlxi_segment_record run[2];
    peer_run(peer_memory(NVLXI_KIND_VMM, 2 * CHUNK, CHUNK, 5), 2, run);
    check_rounds(1000, 2, run);
}

static void pool_mappings_leak_nothing(void **state) {
    (void)state;
    need_pools();
    struct nvlxi_segment_record record = peer_record(peer_memory(NVLXI_KIND_POOL, 3 * KIB, 0, 5));
    check_rounds(1000, 1, &record);
}

static void exports_leak_nothing(void **state) {
    (void)state;
    enum { ROUNDS = 200 };
    struct footprint before = footprint();
    for (int i = 0; i <= ROUNDS; i++) {
        int fd;
        if (i == 1)
            before = footprint();
        uint64_t address = allocate_kind(NVLXI_KIND_VMM, 0, 3 * CHUNK, CHUNK);
        struct nvlxi_allocation chunk = resolve(address + CHUNK);
        OK(me.ops->export_file(me.device, &chunk, &fd));
        assert_int_equal(close(fd), 0);
        release(address);
    }
    expect_footprint(before, strcmp(me.ops->name, "host") ? ROUNDS : 1);
}

enum { MAPPERS = 4 };

struct mapper {
    pthread_t thread;
    const struct source *files;
    const struct nvlxi_segment_record *run;
    int code;
};

static void *map_often(void *argument) {
    struct mapper *mapper = argument;
    for (int i = 0; i < 50 && !mapper->code; i++)
        mapper->code = map_round(mapper->files, i % me.gpus, 2, mapper->run);
    return NULL;
}

static void threads_map_at_once(void **state) {
    (void)state;
    struct nvlxi_segment_record run[2];
    struct mapper mappers[MAPPERS];
    peer_run(peer_memory(NVLXI_KIND_VMM, 2 * CHUNK, CHUNK, 5), 2, run);
    struct source files = files_of(2, run);
    for (size_t i = 0; i < MAPPERS; i++) {
        mappers[i] = (struct mapper){.files = &files, .run = run};
        assert_int_equal(pthread_create(&mappers[i].thread, NULL, map_often, &mappers[i]), 0);
    }
    for (size_t i = 0; i < MAPPERS; i++)
        pthread_join(mappers[i].thread, NULL);
    for (size_t i = 0; i < MAPPERS; i++)
        assert_int_equal(mappers[i].code, 0);
    source_close(&files);
}

const struct contract_case refusal_cases[] = {
    {"garbage files are refused", garbage_files_are_refused},
    {"garbage pools are refused", garbage_pools_are_refused},
    {"lying chunk sizes are refused", lying_chunk_sizes_are_refused},
    {"a failure in the middle undoes all", a_failure_in_the_middle_undoes_all},
    {"equal pids are told", equal_pids_are_told},
    {"other namespaces are no obstacle", other_namespaces_are_no_obstacle},
    {"mappings leak nothing", mappings_leak_nothing},
    {"pool mappings leak nothing", pool_mappings_leak_nothing},
    {"exports leak nothing", exports_leak_nothing},
    {"threads map at once", threads_map_at_once},
};
const size_t refusal_case_count = NVLXI_COUNT(refusal_cases);
