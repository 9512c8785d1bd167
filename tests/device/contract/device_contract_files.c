/* Memory that is shared by file descriptors: part of device_contract.c. SPDX-License-Identifier: Apache-2.0 */
#include "device_contract_files.h"

#include <string.h>

static int take(struct nvlxi_files *files, int *fd) {
    struct source *source = nvlxi_container_of(files, struct source, files);
    size_t i = source->taken++;
    if (i >= source->count)
        return NVLX_ETIMEDOUT;
    *fd = source->fds[i];
    return 0;
}

struct source source_of(size_t count, const int *fds) {
    struct source source = {.files = {take}, .count = count};
    if (count)
        memcpy(source.fds, fds, count * sizeof *fds);
    return source;
}

uint64_t allocate_kind(uint32_t kind, int gpu, uint64_t length, uint64_t chunk) {
    return here((struct message){.errand = ERRAND_ALLOC, .gpu = gpu, .length = length, .kind = kind, .chunk = chunk})
        .address;
}

uint64_t peer_memory(uint32_t kind, uint64_t length, uint64_t chunk, uint8_t seed) {
    struct message m = there((struct message){.errand = ERRAND_ALLOC, .length = length, .kind = kind, .chunk = chunk});
    m.errand = ERRAND_FILL;
    m.seed = seed;
    return there(m).address;
}

void peer_free(uint64_t address) {
    there((struct message){.errand = ERRAND_FREE, .address = address});
}

uint64_t peer_wrong(uint64_t address, uint64_t length, uint8_t seed) {
    return there((struct message){.errand = ERRAND_CHECK, .address = address, .length = length, .seed = seed}).wrong;
}

struct nvlxi_segment_record peer_record(uint64_t address) {
    return there((struct message){.errand = ERRAND_EXPORT, .address = address}).record;
}

static int peer_file(uint64_t address) {
    return there((struct message){.errand = ERRAND_FILE, .address = address}).fd;
}

void peer_run(uint64_t address, size_t count, struct nvlxi_segment_record *run) {
    for (size_t i = 0; i < count; i++) {
        run[i] = peer_record(address);
        address = run[i].base + run[i].size;
    }
}

struct source files_of(size_t count, const struct nvlxi_segment_record *run) {
    int fds[FILES_MAX];
    assert_true(count <= FILES_MAX);
    for (size_t i = 0; i < count; i++)
        fds[i] = peer_file(run[i].base);
    return source_of(count, fds);
}

int try_map_from(struct source *source, int gpu, size_t count, const struct nvlxi_segment_record *run, bool read_only,
                 uint64_t *address) {
    const struct nvlxi_identity owner = {.pid = 0}; /* another one's */
    const struct nvlxi_map map = {
        .gpu = gpu, .owner = &owner, .segments = run, .count = count, .read_only = read_only, .files = &source->files};
    return me.ops->map(me.device, &map, address);
}

uint64_t map_run(int gpu, size_t count, const struct nvlxi_segment_record *run, bool read_only) {
    struct source source = files_of(count, run);
    uint64_t address = 0;
    OK(try_map_from(&source, gpu, count, run, read_only, &address));
    assert_int_equal(source.taken, count);
    return address;
}

void copy_here(int gpu, uint64_t destination, uint64_t from, uint64_t length) {
    here((struct message){.errand = ERRAND_COPY, .gpu = gpu, .address = destination, .source = from, .length = length});
}

void need_pools(void) {
    struct message m = {.errand = ERRAND_ALLOC, .length = KIB, .kind = NVLXI_KIND_POOL};
    int code = work(&me, &m);
    if (code == NVLX_ENOTSUP) {
        print_message("SKIP: GPU 0 has no pools that can be shared: %s\n", nvlx_last_error());
        skip();
    }
    OK(code);
    release(m.address);
}
