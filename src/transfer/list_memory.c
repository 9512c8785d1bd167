/* Memory for lists of fragments: see list_memory.h. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/list_memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <utlist.h>

#include "base/error.h"

#define ALIGNMENT 256 /* of extents: whole sectors and lines for who reads them */

struct nvlxi_list_extent {
    struct nvlxi_chunk chunk; /* of a taken one */
    char *start;
    size_t bytes;
    bool free;
    struct nvlxi_list_extent *before, *behind; /* neighbours in the block */
    struct nvlxi_list_extent *prev, *next;     /* in the list of free ones */
};

static const uint32_t chunk_sizes[NVLXI_CHUNK_SIZES] = {256, 4096, 32768};

/* The size of the next chunk of a list: the first ones of a long list are short, the others are not. */
static int size_class(uint64_t count) {
    return count < chunk_sizes[0] ? 0 : count < chunk_sizes[1] ? 1 : 2;
}

static size_t bytes_of(uint64_t count) {
    return nvlxi_ceil_div(count * sizeof(struct nvlxi_fragment), ALIGNMENT) * ALIGNMENT;
}

static struct nvlxi_list_extent *extent_of(struct nvlxi_chunk *chunk) {
    return nvlxi_container_of(chunk, struct nvlxi_list_extent, chunk);
}

void nvlxi_list_memory_init(struct nvlxi_list_memory *memory, const struct nvlxi_context *context, size_t limit) {
    memory->context = context;
    memory->limit = limit;
    pthread_mutex_init(&memory->mutex, NULL);
}

/* ---- Extents: all under the mutex -------------------------------------------------------------------- */

static void add_free(struct nvlxi_list_memory *memory, struct nvlxi_list_extent *extent) {
    extent->free = true;
    DL_PREPEND(memory->free, extent);
}

/* Puts what is behind an extent to it. */
static void swallow(struct nvlxi_list_extent *front, struct nvlxi_list_extent *back) {
    front->bytes += back->bytes;
    front->behind = back->behind;
    if (front->behind)
        front->behind->before = front;
    free(back);
}

static void release(struct nvlxi_list_memory *memory, struct nvlxi_list_extent *extent) {
    struct nvlxi_list_extent *before = extent->before, *behind = extent->behind;
    memory->taken_bytes -= extent->bytes;
    if (behind && behind->free) {
        DL_DELETE(memory->free, behind);
        swallow(extent, behind);
    }
    if (before && before->free)
        swallow(before, extent);
    else
        add_free(memory, extent);
}

/* Cuts off what is more than `bytes`. Without memory for that, the extent stays longer than asked for. */
static void cut(struct nvlxi_list_memory *memory, struct nvlxi_list_extent *extent, size_t bytes) {
    struct nvlxi_list_extent *rest = extent->bytes > bytes ? malloc(sizeof *rest) : NULL;
    if (!rest)
        return;
    *rest = (struct nvlxi_list_extent){
        .start = extent->start + bytes, .bytes = extent->bytes - bytes, .before = extent, .behind = extent->behind};
    if (rest->behind)
        rest->behind->before = rest;
    extent->behind = rest;
    extent->bytes = bytes;
    add_free(memory, rest);
}

/* A chunk of `capacity` fragments, or NULL. */
static struct nvlxi_chunk *take(struct nvlxi_list_memory *memory, uint32_t capacity) {
    const size_t bytes = bytes_of(capacity);
    struct nvlxi_list_extent *extent;
    DL_FOREACH(memory->free, extent) {
        if (extent->bytes >= bytes)
            break;
    }
    if (!extent)
        return NULL;
    DL_DELETE(memory->free, extent);
    extent->free = false;
    cut(memory, extent, bytes);
    memory->taken_bytes += extent->bytes;
    extent->chunk = (struct nvlxi_chunk){.capacity = capacity, .kernel = true, .fragment = (void *)extent->start};
    return &extent->chunk;
}

static struct nvlxi_chunk *take_idle(struct nvlxi_list_memory *memory, bool kernel, int class) {
    struct nvlxi_chunk *idle = memory->idle[kernel][class];
    if (idle)
        LL_DELETE(memory->idle[kernel][class], idle);
    return idle;
}

static void release_idle(struct nvlxi_list_memory *memory) {
    struct nvlxi_chunk *idle;
    for (int class = 0; class < NVLXI_CHUNK_SIZES; class ++)
        while ((idle = take_idle(memory, true, class)))
            release(memory, extent_of(idle));
}

static bool may_grow(const struct nvlxi_list_memory *memory, size_t bytes) {
    return bytes <= memory->limit - memory->block_bytes;
}

/* ---- Blocks ------------------------------------------------------------------------------------------ */

/* As long as a block is, and no longer than is allowed. */
static size_t reserve_block(struct nvlxi_list_memory *memory) {
    pthread_mutex_lock(&memory->mutex);
    const size_t bytes = nvlxi_min(memory->limit - memory->block_bytes, NVLXI_BLOCK_BYTES) / ALIGNMENT * ALIGNMENT;
    memory->block_bytes += bytes;
    pthread_mutex_unlock(&memory->mutex);
    return bytes;
}

static void unreserve_block(struct nvlxi_list_memory *memory, size_t bytes) {
    pthread_mutex_lock(&memory->mutex);
    memory->block_bytes -= bytes;
    pthread_mutex_unlock(&memory->mutex);
}

static int add_block(struct nvlxi_list_memory *memory, size_t bytes) {
    void *start;
    struct nvlxi_list_extent *extent = malloc(sizeof *extent);
    if (!extent)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a list of fragments");
    int code = memory->context->ops->list_alloc(memory->context->device, bytes, &start);
    if (code) {
        free(extent);
        return code;
    }
    *extent = (struct nvlxi_list_extent){.start = start, .bytes = bytes};
    pthread_mutex_lock(&memory->mutex);
    add_free(memory, extent);
    pthread_mutex_unlock(&memory->mutex);
    return 0;
}

int nvlxi_list_memory_grow(struct nvlxi_list_memory *memory, size_t bytes) {
    for (size_t grown = 0; grown < bytes;) {
        const size_t block = reserve_block(memory);
        if (!block)
            return 0;
        int code = add_block(memory, block);
        if (code) {
            unreserve_block(memory, block);
            return code;
        }
        grown += block;
    }
    return 0;
}

void nvlxi_list_memory_free(struct nvlxi_list_memory *memory) {
    struct nvlxi_list_extent *extent, *next;
    struct nvlxi_chunk *chunk;
    release_idle(memory);
    for (int class = 0; class < NVLXI_CHUNK_SIZES; class ++) {
        while ((chunk = take_idle(memory, false, class))) {
            free(chunk->fragment);
            free(chunk);
        }
    }
    DL_FOREACH_SAFE(memory->free, extent, next) { /* each is a whole block now */
        memory->context->ops->list_free(memory->context->device, extent->start);
        free(extent);
    }
    pthread_mutex_destroy(&memory->mutex);
}

/* ---- Chunks ------------------------------------------------------------------------------------------ */

/* The shortest chunks that a list of `count` fragments may fill, or begin: of the sizes that it is given where there is
 * enough. */
static uint64_t units_of(uint64_t count) {
    uint64_t room = 0;
    while (room < count)
        room += chunk_sizes[size_class(room)];
    return room / chunk_sizes[0];
}

static size_t own_bytes(const struct nvlxi_list *list) {
    size_t bytes = 0;
    for (struct nvlxi_chunk *chunk = list->first; chunk; chunk = chunk->next)
        if (chunk->kernel)
            bytes += extent_of(chunk)->bytes;
    return bytes;
}

/* What others have taken of what is allowed. */
static size_t taken_by_others(struct nvlxi_list_memory *memory, size_t own) {
    pthread_mutex_lock(&memory->mutex);
    release_idle(memory);
    const size_t taken = memory->taken_bytes - own;
    pthread_mutex_unlock(&memory->mutex);
    return taken;
}

/* One list ends with short chunks where there are no others; of several, each but the last may have begun a long one.
 * The end of a block that is shorter than the shortest chunk is of no use to them. */
int nvlxi_list_memory_refuse(struct nvlxi_list_memory *memory, const struct nvlxi_plan *plan) {
    const uint64_t in_block = NVLXI_BLOCK_BYTES / bytes_of(chunk_sizes[0]),
                   pieces = plan->fragments[NVLXI_BY_KERNEL] + plan->fragments[NVLXI_ROWS_BY_KERNEL];
    uint64_t units = 0, lists = 0, room = 0;
    size_t own = 0;
    for (const struct nvlxi_group *group = plan->groups; group; group = group->following) {
        for (int way = 0; way < NVLXI_WAYS; way++) {
            const struct nvlxi_list *list = &group->lists[way];
            if (way == NVLXI_BY_ENGINES || way == NVLXI_ROWS_BY_ENGINES)
                continue;
            units += units_of(list->count);
            lists += list->count > 0;
            room += list->count;
            own += own_bytes(list);
        }
    }
    if (lists == 1)
        units = nvlxi_ceil_div(room, chunk_sizes[0]);
    const uint64_t needed = units / in_block * NVLXI_BLOCK_BYTES + units % in_block * bytes_of(chunk_sizes[0]);
    if (needed > memory->limit)
        return nvlxi_fail(
            NVLX_EBUSY,
            "the list's %" PRIu64 " pieces for kernels take up to %" PRIu64
            " bytes of list memory, and config.list_memory allows %zu: raise it to that, or split the list",
            pieces, needed, memory->limit);
    return nvlxi_fail(NVLX_EBUSY,
                      "the list's %" PRIu64 " pieces for kernels take up to %" PRIu64
                      " bytes of list memory; config.list_memory allows %zu, of which other lists have %zu: wait for "
                      "them, or raise it",
                      pieces, needed, memory->limit, taken_by_others(memory, own));
}

static int make_for_host(uint32_t capacity, struct nvlxi_chunk **chunk) {
    struct nvlxi_chunk *made = malloc(sizeof *made);
    struct nvlxi_fragment *fragments = malloc(capacity * sizeof *fragments);
    if (!made || !fragments) {
        free(made);
        free(fragments);
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a list of %" PRIu32 " fragments", capacity);
    }
    *made = (struct nvlxi_chunk){.capacity = capacity, .fragment = fragments};
    *chunk = made;
    return 0;
}

int nvlxi_list_memory_borrow_for_host(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk) {
    struct nvlxi_list_memory *memory = context;
    const int class = size_class(count);
    (void)kernel;
    pthread_mutex_lock(&memory->mutex);
    struct nvlxi_chunk *idle = take_idle(memory, false, class);
    pthread_mutex_unlock(&memory->mutex);
    if (!idle)
        return make_for_host(chunk_sizes[class], chunk);
    *chunk = idle;
    return 0;
}

int nvlxi_list_memory_borrow(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk) {
    struct nvlxi_list_memory *memory = context;
    int class = size_class(count);
    if (!kernel)
        return nvlxi_list_memory_borrow_for_host(context, kernel, count, chunk);
    pthread_mutex_lock(&memory->mutex);
    struct nvlxi_chunk *found = take_idle(memory, true, class);
    if (!found)
        found = take(memory, chunk_sizes[class]);
    bool grow = !found && may_grow(memory, bytes_of(chunk_sizes[class]));
    if (!found && !grow)
        release_idle(memory);
    for (; !found && !grow && class >= 0; class --)
        found = take(memory, chunk_sizes[class]);
    grow = grow || (!found && may_grow(memory, bytes_of(chunk_sizes[0])));
    pthread_mutex_unlock(&memory->mutex);
    if (found)
        *chunk = found;
    return found ? 0 : grow ? NVLXI_GROW : NVLXI_FULL;
}

void nvlxi_list_memory_return(void *context, struct nvlxi_chunk *chunk) {
    struct nvlxi_list_memory *memory = context;
    int class = 0;
    while (chunk_sizes[class] != chunk->capacity)
        class ++;
    pthread_mutex_lock(&memory->mutex);
    LL_PREPEND(memory->idle[chunk->kernel][class], chunk);
    pthread_mutex_unlock(&memory->mutex);
}

/* The longest chunk that there is now, of `count` fragments at most; NULL: there is none. */
static struct nvlxi_chunk *take_longest(struct nvlxi_list_memory *memory, uint64_t count, bool *grow) {
    pthread_mutex_lock(&memory->mutex);
    struct nvlxi_chunk *found = take(memory, (uint32_t)count);
    *grow = !found && may_grow(memory, bytes_of(count));
    if (!found && !*grow)
        release_idle(memory);
    for (; !found && !*grow && count; count /= 2)
        found = take(memory, (uint32_t)count);
    *grow = *grow || (!found && may_grow(memory, ALIGNMENT));
    pthread_mutex_unlock(&memory->mutex);
    return found;
}

int nvlxi_list_memory_borrow_exact(struct nvlxi_list_memory *memory, uint64_t count, struct nvlxi_chunk **chunk) {
    const uint64_t wanted = nvlxi_min(count, NVLXI_BLOCK_BYTES / sizeof(struct nvlxi_fragment));
    for (;;) {
        bool grow;
        struct nvlxi_chunk *found = take_longest(memory, wanted, &grow);
        if (found) {
            *chunk = found;
            return 0;
        }
        int code = grow ? nvlxi_list_memory_grow(memory, 1) : NVLXI_FULL;
        if (code)
            return code;
    }
}

void nvlxi_list_memory_return_exact(struct nvlxi_list_memory *memory, struct nvlxi_chunk *chunk) {
    pthread_mutex_lock(&memory->mutex);
    release(memory, extent_of(chunk));
    pthread_mutex_unlock(&memory->mutex);
}
