/* The host backend's memory: what this process knows of it. SPDX-License-Identifier: Apache-2.0
 *
 * What a CUDA driver knows of a process's memory is known here once for the process, whatever the engine: a tree of
 * blocks by address. A block is either
 *
 *     OWN      allocated here: it has a serial
 *     MAPPED   another process's memory, opened on one GPU. `openings` >= 1; the last unmap removes it. Those of a kind
 *              that counts openings are also in a tree by GPU and handle, where opening the same handle again finds
 *              them; those that may only be read also in a tree of their own, for copies to look at
 *
 * A mapping keeps its file alive: it shows the same bytes after the exporter freed them or died, and if it counts, can
 * be opened again as long as it is open. Blocks never overlap. `mutex` guards the trees; it is not held while memory is
 * opened, so who opened some that counts looks again before entering it: the first one in is everybody's. */
#define _GNU_SOURCE
#include "device/host/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <search.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/error.h"
#include "device/host/file.h"
#include "device/host/host.h"

static const struct nvlxi_host_kind *const kinds[] = {&nvlxi_host_legacy, &nvlxi_host_vmm, &nvlxi_host_chunks,
                                                      &nvlxi_host_pool};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void *blocks;    /* all, by address */
static void *counted;   /* mappings that count their openings, by GPU and handle */
static void *read_only; /* mappings that may only be read, by address */
static atomic_uint_fast64_t last_serial;

uint64_t nvlxi_host_new_serial(void) {
    return atomic_fetch_add(&last_serial, 1) + 1;
}

static const struct nvlxi_host_kind *find_kind(uint32_t kind) {
    for (size_t i = 0; i < NVLXI_COUNT(kinds); i++)
        if (kinds[i]->kind == kind)
            return kinds[i];
    return NULL;
}

/* ---- Trees ------------------------------------------------------------------------------------------- */

/* Blocks compare equal if they overlap: so a block of one byte finds the one that holds it. */
static int by_address(const void *left, const void *right) {
    const struct nvlxi_host_block *a = left, *b = right;
    if (a->base < b->base)
        return b->base - a->base < a->size ? 0 : -1;
    return a->base - b->base < b->size ? 0 : 1;
}

static int by_handle(const void *left, const void *right) {
    const struct nvlxi_host_block *a = left, *b = right;
    if (a->gpu != b->gpu)
        return a->gpu < b->gpu ? -1 : 1;
    return memcmp(a->handle.bytes, b->handle.bytes, sizeof a->handle.bytes);
}

static struct nvlxi_host_block *find_block(uint64_t address) {
    struct nvlxi_host_block key = {.base = address, .size = 1};
    struct nvlxi_host_block **found = tfind(&key, &blocks, by_address);
    return found ? *found : NULL;
}

/* The block of an allocation that was not freed, or NULL. */
static struct nvlxi_host_block *find_own(const struct nvlxi_allocation *allocation) {
    struct nvlxi_host_block *block = find_block(allocation->base);
    return block && block->serial && block->serial == allocation->serial ? block : NULL;
}

static void leave_own(struct nvlxi_host_block *first, const struct nvlxi_host_block *end) {
    for (struct nvlxi_host_block *block = first; block != end; block = block->next)
        tdelete(block, &blocks, by_address);
}

static bool enter_own(struct nvlxi_host_block *first) {
    for (struct nvlxi_host_block *block = first; block; block = block->next) {
        if (!tsearch(block, &blocks, by_address)) {
            leave_own(first, block);
            return false;
        }
    }
    return true;
}

static void leave_mapping(struct nvlxi_host_block *block) {
    tdelete(block, &blocks, by_address);
    if (block->handle.length)
        tdelete(block, &counted, by_handle);
    if (block->read_only)
        tdelete(block, &read_only, by_address);
}

static bool enter_mapping(struct nvlxi_host_block *block) {
    if (tsearch(block, &blocks, by_address) && (!block->handle.length || tsearch(block, &counted, by_handle)) &&
        (!block->read_only || tsearch(block, &read_only, by_address)))
        return true;
    leave_mapping(block); /* from where it got to */
    return false;
}

/* Counts one more opening, if there is a mapping of the GPU and the handle of `key`. */
static bool open_again(const struct nvlxi_host_block *key, uint64_t *address) {
    struct nvlxi_host_block **found = key->handle.length ? tfind(key, &counted, by_handle) : NULL;
    if (!found)
        return false;
    (*found)->openings++;
    *address = (*found)->base;
    return true;
}

/* What the parent allocated and mapped is not the child's, though it can be seen there. */
void nvlxi_host_memory_fork(enum nvlxi_fork_phase phase) {
    if (phase == NVLXI_BEFORE_FORK) {
        pthread_mutex_lock(&mutex);
        return;
    }
    if (phase == NVLXI_IN_CHILD)
        blocks = counted = read_only = NULL;
    pthread_mutex_unlock(&mutex);
}

/* ---- Own memory -------------------------------------------------------------------------------------- */

int nvlxi_host_alloc(struct nvlxi_device *device, const struct nvlxi_alloc *alloc, void **address) {
    const struct nvlxi_host_kind *kind = find_kind(alloc->kind);
    struct nvlxi_host_block *made;
    int code = nvlxi_host_name_gpu(device, alloc->gpu);
    if (code)
        return code;
    if (!kind)
        return nvlxi_fail(NVLX_ENOTSUP, "the host backend has no memory of kind %" PRIu32, alloc->kind);
    if (alloc->length == 0)
        return nvlxi_fail(NVLX_EINVAL, "an allocation of 0 bytes on GPU %d", alloc->gpu);
    const uint64_t most = nvlxi_max(alloc->length, alloc->chunk);
    if (most > NVLXI_HOST_GPU_BYTES)
        return nvlxi_fail(NVLX_EDEVICE,
                          "out of memory: %" PRIu64 " bytes%s were asked for, and GPU %d has %" PRIu64 " in all", most,
                          most > alloc->length ? " in a chunk" : "", alloc->gpu, NVLXI_HOST_GPU_BYTES);
    code = kind->make(alloc, &made);
    if (code)
        return code;
    uint64_t base = made->base;
    for (struct nvlxi_host_block *block = made; block; block = block->next) {
        block->kind = kind;
        block->gpu = alloc->gpu;
        block->device = device;
    }
    pthread_mutex_lock(&mutex);
    bool entered = enter_own(made);
    pthread_mutex_unlock(&mutex);
    if (!entered) {
        kind->destroy(made);
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep a block of GPU %d", alloc->gpu);
    }
    *address = nvlxi_host_pointer(base);
    return 0;
}

int nvlxi_host_free(struct nvlxi_device *device, void *address) {
    pthread_mutex_lock(&mutex);
    struct nvlxi_host_block *block = find_block((uintptr_t)address);
    if (block && block->serial && !block->inner && block->base == (uintptr_t)address && block->device == device)
        leave_own(block, NULL);
    else
        block = NULL;
    pthread_mutex_unlock(&mutex);
    if (!block)
        return nvlxi_fail(NVLX_EINVAL, "%p was not allocated by this engine, or is freed", address);
    block->kind->destroy(block);
    return 0;
}

int nvlxi_host_pin(int gpu, void *address, uint64_t size) {
    struct nvlxi_host_block *block = nvlxi_host_pinned_make(gpu, address, size);
    if (!block)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep a block of host memory");
    pthread_mutex_lock(&mutex);
    struct nvlxi_host_block **found = tsearch(block, &blocks, by_address);
    pthread_mutex_unlock(&mutex);
    if (found && *found == block)
        return 0;
    nvlxi_host_pinned.destroy(block);
    return found ? nvlxi_fail(NVLX_EINVAL, "some of the %" PRIu64 " bytes at %p is known already", size, address)
                 : nvlxi_fail(NVLX_ENOMEM, "no memory to keep a block of host memory");
}

bool nvlxi_host_unpin(void *address) {
    pthread_mutex_lock(&mutex);
    struct nvlxi_host_block *block = find_block((uintptr_t)address);
    const bool known = block && block->kind == &nvlxi_host_pinned && block->base == (uintptr_t)address;
    if (known)
        tdelete(block, &blocks, by_address);
    pthread_mutex_unlock(&mutex);
    if (known)
        nvlxi_host_pinned.destroy(block);
    return known;
}

static bool is_chunk(const struct nvlxi_host_block *block) {
    return block && block->serial && (block->kind == &nvlxi_host_vmm || block->kind == &nvlxi_host_chunks);
}

struct nvlxi_host_block *nvlxi_host_put_to_sleep(void *address) {
    pthread_mutex_lock(&mutex);
    struct nvlxi_host_block *first = find_block((uintptr_t)address);
    const bool known = is_chunk(first) && first->base == (uintptr_t)address;
    if (known)
        leave_own(first, NULL);
    pthread_mutex_unlock(&mutex);
    return known && nvlxi_host_vmm_empty(first) ? first : NULL;
}

bool nvlxi_host_take_out(void *address) {
    pthread_mutex_lock(&mutex);
    struct nvlxi_host_block *chunk = find_block((uintptr_t)address);
    const bool known = is_chunk(chunk) && chunk->inner && chunk->base == (uintptr_t)address;
    if (known)
        tdelete(chunk, &blocks, by_address);
    pthread_mutex_unlock(&mutex);
    return known && nvlxi_host_vmm_take_out(chunk);
}

int nvlxi_host_wake(struct nvlxi_host_block *sleeping) {
    int code = nvlxi_host_vmm_fill(sleeping);
    if (code)
        return code;
    pthread_mutex_lock(&mutex);
    const bool entered = enter_own(sleeping);
    pthread_mutex_unlock(&mutex);
    return entered ? 0 : nvlxi_fail(NVLX_ENOMEM, "no memory to keep a block of GPU %d", sleeping->gpu);
}

int nvlxi_host_resolve(struct nvlxi_device *device, uint64_t address, struct nvlxi_allocation *allocation) {
    struct nvlxi_allocation found = {.kind = NVLXI_KIND_UNKNOWN};
    pthread_mutex_lock(&mutex);
    const struct nvlxi_host_block *block = find_block(address);
    bool mapped = block && !block->serial;
    if (block && !mapped)
        found = (struct nvlxi_allocation){.kind = block->kind->kind,
                                          .gpu = block->gpu,
                                          .base = block->base,
                                          .size = block->size,
                                          .serial = block->serial,
                                          .file = block->kind->file,
                                          .joins = block->kind->joins,
                                          .reservation = block->reservation};
    pthread_mutex_unlock(&mutex);
    if (mapped)
        return nvlxi_fail(NVLX_ENOTSUP,
                          "0x%" PRIx64 " lies in a mapping of another process's memory, which only its owner can share",
                          address);
    if (found.kind == NVLXI_KIND_UNKNOWN)
        return nvlxi_fail(
            NVLX_ENOTSUP,
            "0x%" PRIx64
            " is not memory of the host backend, on which this engine runs: use memory of nvlx_alloc. Plain "
            "host memory is pinned by cudaHostRegister, with CUDA; memory of a real GPU needs NVLX_BACKEND=cuda",
            address);
    if (found.kind == NVLXI_KIND_PINNED)
        found.gpu = nvlxi_host_home(device, found.gpu);
    int code = nvlxi_host_check_gpu(device, found.gpu);
    if (!code)
        *allocation = found;
    return code;
}

int nvlxi_host_alive(struct nvlxi_device *device, const struct nvlxi_allocation *allocation) {
    (void)device;
    pthread_mutex_lock(&mutex);
    bool same = find_own(allocation) != NULL;
    pthread_mutex_unlock(&mutex);
    return same ? 0 : NVLX_ESTALE;
}

static int fail_freed(const struct nvlxi_allocation *allocation) {
    return nvlxi_fail(NVLX_ESTALE, "the allocation at 0x%" PRIx64 " was freed", allocation->base);
}

int nvlxi_host_let_use(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int gpu) {
    int code = nvlxi_host_name_gpu(device, gpu);
    if (code)
        return code;
    pthread_mutex_lock(&mutex);
    struct nvlxi_host_block *block = find_own(allocation);
    if (block)
        block->users |= UINT64_C(1) << gpu;
    pthread_mutex_unlock(&mutex);
    return block ? 0 : fail_freed(allocation);
}

int nvlxi_host_export(struct nvlxi_device *device, const struct nvlxi_allocation *allocation,
                      struct nvlxi_handle *handle) {
    (void)device;
    if (allocation->kind == NVLXI_KIND_PINNED)
        return nvlxi_fail(NVLX_ENOTSUP, "pinned host memory at 0x%" PRIx64 " cannot be shared", allocation->base);
    pthread_mutex_lock(&mutex);
    const struct nvlxi_host_block *block = find_own(allocation);
    if (block)
        *handle = block->handle;
    pthread_mutex_unlock(&mutex);
    return block ? 0 : fail_freed(allocation);
}

int nvlxi_host_export_file(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int *fd) {
    (void)device;
    if (!allocation->file)
        return nvlxi_fail(NVLX_ENOTSUP, "the allocation at 0x%" PRIx64 " is not shared by a file descriptor",
                          allocation->base);
    int made = -1;
    pthread_mutex_lock(&mutex);
    const struct nvlxi_host_block *block = find_own(allocation);
    if (block)
        made = fcntl(block->fd, F_DUPFD_CLOEXEC, 0);
    int error = errno;
    pthread_mutex_unlock(&mutex);
    if (!block)
        return fail_freed(allocation);
    if (made < 0)
        return nvlxi_fail(nvlxi_system_code(error, NVLX_EDEVICE),
                          "no file descriptor for the allocation at 0x%" PRIx64 ": %s", allocation->base,
                          strerror(error));
    *fd = made;
    return 0;
}

/* ---- Mappings ---------------------------------------------------------------------------------------- */

static void close_mapping(struct nvlxi_host_block *block) {
    nvlxi_host_file_unmap(block->base, block->size);
    free(block);
}

static int check_map(struct nvlxi_device *device, const struct nvlxi_map *map, const struct nvlxi_host_kind **kind,
                     struct nvlxi_handle *handle) {
    int code = nvlxi_host_name_gpu(device, map->gpu);
    if (code)
        return code;
    *kind = find_kind(map->segments->kind);
    if (!*kind)
        return nvlxi_fail(NVLX_ENOTSUP, "a segment of kind '%s' cannot be opened", map->segments->kind_name);
    if (map->count != 1 && !(*kind)->joins)
        return nvlxi_fail(NVLX_EINVAL, "%zu segments of kind '%s' cannot be opened as one", map->count,
                          map->segments->kind_name);
    code = (*kind)->check(map, handle);
    if (!code && (*kind)->file && !map->files)
        return nvlxi_fail(NVLX_EINVAL, "segment 0x%" PRIx64 " takes a file descriptor, and there is none",
                          map->segments->base);
    return code;
}

static int open_block(const struct nvlxi_host_kind *kind, const struct nvlxi_map *map,
                      const struct nvlxi_host_block *key, struct nvlxi_host_block **opened) {
    struct nvlxi_host_block *block = malloc(sizeof *block);
    if (!block)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep a mapping on GPU %d", map->gpu);
    *block = *key;
    block->kind = kind;
    block->openings = 1;
    int code = kind->open(map, block);
    if (code)
        free(block);
    else
        *opened = block;
    return code;
}

int nvlxi_host_map(struct nvlxi_device *device, const struct nvlxi_map *map, uint64_t *address) {
    const struct nvlxi_host_kind *kind = NULL;
    struct nvlxi_host_block key = {.gpu = map->gpu}, *made = NULL;
    int code = check_map(device, map, &kind, &key.handle);
    if (code)
        return code;
    pthread_mutex_lock(&mutex);
    bool again = open_again(&key, address);
    pthread_mutex_unlock(&mutex);
    if (again)
        return 0;
    code = open_block(kind, map, &key, &made);
    if (code)
        return code;
    uint64_t base = made->base;
    pthread_mutex_lock(&mutex);
    again = open_again(&key, address); /* another thread was faster */
    bool entered = !again && enter_mapping(made);
    pthread_mutex_unlock(&mutex);
    if (entered)
        *address = base;
    else if (map->watch)
        map->watch->failed(map->watch->context);
    if (!entered)
        close_mapping(made);
    if (!entered && !again)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to keep a mapping on GPU %d", map->gpu);
    return 0;
}

int nvlxi_host_unmap(struct nvlxi_device *device, int gpu, uint64_t address) {
    (void)device;
    pthread_mutex_lock(&mutex);
    struct nvlxi_host_block *block = find_block(address);
    bool known = block && !block->serial && block->base == address && block->gpu == gpu;
    bool last = known && --block->openings == 0;
    if (last)
        leave_mapping(block);
    pthread_mutex_unlock(&mutex);
    if (!known)
        return nvlxi_fail(NVLX_EINVAL, "nothing is mapped at 0x%" PRIx64 " on GPU %d", address, gpu);
    if (last)
        close_mapping(block);
    return 0;
}

/* ---- What copies may touch ----------------------------------------------------------------------------- */

/* Where one copy may be: a block, or chunks of its reservation without a hole. Of host memory, any: size 0. */
struct reach {
    uint64_t base, size;
    bool barred; /* to this GPU */
};

/* Own chunks and memory of pools are for their own GPU, until another one is let use them. */
static bool is_barred(const struct nvlxi_host_block *block, int gpu) {
    return gpu != NVLXI_ANY_GPU && block->serial && block->kind->file && block->gpu != gpu &&
           !(block->users >> gpu & 1);
}

static bool reach_holds(const struct reach *reach, uint64_t address, uint64_t length) {
    const uint64_t offset = address - reach->base;
    return offset < reach->size && length <= reach->size - offset;
}

/* Where the chunks end that follow on a block in its reservation, as far as `end`. Under the mutex. */
static uint64_t chunks_until(const struct nvlxi_host_block *block, uint64_t end) {
    const uint64_t reservation = block->reservation;
    uint64_t at = block->base + block->size;
    while (at < end && (block = find_block(at)) && block->reserved && block->reservation == reservation)
        at = block->base + block->size;
    return at;
}

/* Where a copy of these bytes may be. They may begin in host memory. Under the mutex. */
static struct reach find_reach(int gpu, uint64_t address, uint64_t length) {
    struct nvlxi_host_block key = {.base = address, .size = length};
    const struct nvlxi_host_block *block = find_block(address);
    struct nvlxi_host_block **found = block ? NULL : tfind(&key, &blocks, by_address);
    if (!block && !found)
        return (struct reach){0};
    block = block ? block : *found;
    const uint64_t end = block->reserved ? chunks_until(block, address + length) : block->base + block->size;
    return (struct reach){block->base, end - block->base, is_barred(block, gpu)};
}

/* Whether one side of a copy stays in its reach, which is looked up if it is not that of the copy before. Under the
 * mutex. */
static bool stays(int gpu, struct reach *reach, uint64_t address, uint64_t length) {
    if (reach_holds(reach, address, length))
        return true;
    *reach = find_reach(gpu, address, length);
    return !reach->size || reach_holds(reach, address, length);
}

struct span { /* one side of a copy */
    uint64_t address, length;
};

struct reaches { /* of both sides, and what is wrong with them */
    struct reach to, from;
    bool locked, outside_to, outside_from;
};

static bool is_read_only(const struct span *span) {
    struct nvlxi_host_block key = {.base = span->address, .size = span->length};
    return tfind(&key, &read_only, by_address) != NULL;
}

static int fail_crossing(int code, const struct span *span, const struct reach *reach) {
    return nvlxi_fail(code,
                      "%" PRIu64 " bytes at 0x%" PRIx64 " leave their allocation, which is 0x%" PRIx64 " + %" PRIu64,
                      span->length, span->address, reach->base, reach->size);
}

/* Whether a copy may be. Under the mutex. */
static bool stays_inside(int gpu, struct reaches *reaches, const struct span *to, const struct span *from) {
    reaches->locked = read_only && is_read_only(to);
    reaches->outside_to = !stays(gpu, &reaches->to, to->address, to->length);
    reaches->outside_from = !stays(gpu, &reaches->from, from->address, from->length);
    return !reaches->locked && !reaches->outside_to && !reaches->outside_from && !reaches->to.barred &&
           !reaches->from.barred;
}

static int fail_copy(int gpu, const struct reaches *reaches, const struct span *to, const struct span *from,
                     int crossing) {
    if (reaches->to.barred || reaches->from.barred)
        return nvlxi_fail(NVLX_EDEVICE, "GPU %d may not use the memory at 0x%" PRIx64, gpu,
                          reaches->to.barred ? to->address : from->address);
    if (reaches->locked)
        return nvlxi_fail(NVLX_EDEVICE, "%" PRIu64 " bytes at 0x%" PRIx64 " are in a mapping that may only be read",
                          to->length, to->address);
    return reaches->outside_to ? fail_crossing(crossing, to, &reaches->to)
                               : fail_crossing(crossing, from, &reaches->from);
}

int nvlxi_host_check_copies(int gpu, const struct nvlxi_fragment *list, size_t count, int crossing) {
    struct reaches reaches = {0};
    struct span to, from;
    bool good = true;
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < count && good; i++) {
        to = (struct span){list[i].destination, list[i].length};
        from = (struct span){list[i].source, list[i].length};
        good = stays_inside(gpu, &reaches, &to, &from);
    }
    pthread_mutex_unlock(&mutex);
    return good ? 0 : fail_copy(gpu, &reaches, &to, &from, crossing);
}

/* As a copy of all from the first byte to the last, on either side. */
int nvlxi_host_check_rows(int gpu, const struct nvlxi_grid *grid) {
    const struct nvlxi_rows *rows = &grid->rows;
    const uint64_t last = grid->times - 1;
    const struct span to = {rows->destination,
                            last * grid->destination_step + nvlxi_rows_span(rows, rows->destination_pitch)},
                      from = {rows->source, last * grid->source_step + nvlxi_rows_span(rows, rows->source_pitch)};
    struct reaches reaches = {0};
    pthread_mutex_lock(&mutex);
    const bool good = stays_inside(gpu, &reaches, &to, &from);
    pthread_mutex_unlock(&mutex);
    return good ? 0 : fail_copy(gpu, &reaches, &to, &from, NVLX_EDEVICE);
}

/* ---- What digests may touch ---------------------------------------------------------------------------- */

/* How far memory of a GPU goes on from `address`, which is returned if there is none; or also host memory that is the
 * GPU's own. Under the mutex. */
static uint64_t follow(int gpu, bool host_too, uint64_t address, uint64_t length) {
    uint64_t at = address;
    const struct nvlxi_host_block *block;
    while (at - address < length && (block = find_block(at)) && block->gpu == gpu &&
           (host_too || !nvlxi_kind_is_host(block->kind->kind)))
        at = block->base + block->size;
    return at;
}

bool nvlxi_host_holds(int gpu, uint64_t address, uint64_t length) {
    pthread_mutex_lock(&mutex);
    const bool holds = follow(gpu, false, address, length) - address >= length;
    pthread_mutex_unlock(&mutex);
    return holds;
}

int nvlxi_host_check_digest(int gpu, const struct nvlxi_digest_span *spans, size_t count) {
    uint64_t at = 0;
    size_t i = 0;
    pthread_mutex_lock(&mutex);
    while (i < count && spans[i].length &&
           (at = follow(gpu, true, spans[i].address, spans[i].length)) - spans[i].address >= spans[i].length)
        i++;
    pthread_mutex_unlock(&mutex);
    if (i == count)
        return 0;
    return nvlxi_fail(NVLX_EDEVICE,
                      "of span %zu, %" PRIu64 " bytes at 0x%" PRIx64 ", what is at 0x%" PRIx64
                      " is not memory of GPU %d",
                      i, spans[i].length, spans[i].address, spans[i].length ? at : spans[i].address, gpu);
}

/* ---- Where counts of signals may be ------------------------------------------------------------------------ */

static const char *no_count(int gpu, uint64_t address, enum nvlxi_host_count_use use, int *code) {
    const struct span span = {address, sizeof address};
    if (address % sizeof address)
        return "it is no multiple of 8";
    const struct nvlxi_host_block *block = find_block(address);
    if (!block || nvlxi_kind_is_host(block->kind->kind) || (gpu != NVLXI_ANY_GPU && block->gpu != gpu))
        return "it is not memory of the GPU";
    if (use == NVLXI_HOST_AWAIT && block->kind == &nvlxi_host_pool) {
        *code = NVLX_ENOTSUP;
        return "a stream cannot wait for it: it lies in memory of a pool";
    }
    return use == NVLXI_HOST_CHANGE && is_read_only(&span) ? "it is in a mapping that may only be read" : NULL;
}

int nvlxi_host_check_count(int gpu, uint64_t address, enum nvlxi_host_count_use use) {
    int code = NVLX_EDEVICE;
    pthread_mutex_lock(&mutex);
    const char *wrong = no_count(gpu, address, use, &code);
    pthread_mutex_unlock(&mutex);
    return wrong ? nvlxi_fail(code, "a count of GPU %d at 0x%" PRIx64 ": %s", gpu, address, wrong) : 0;
}
