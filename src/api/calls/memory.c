/* The exported functions of memory: allocated, freed, copied within this process.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>

#include "api/abi.h"
#include "api/engine.h"
#include "api/graphs.h"
#include "base/error.h"

struct allocation { /* memory from nvlx_alloc */
    void *address;
    size_t length;
    bool going; /* nvlx_free is at it */
    UT_hash_handle hh;
};

int nvlxi_engine_free_allocations(struct nvlx_engine *engine) {
    struct allocation *allocation, *next;
    int code = 0;
    HASH_ITER(hh, engine->allocations, allocation, next) {
        int failed = engine->context.ops->free(engine->context.device, allocation->address);
        code = code ? code : failed;
        HASH_DEL(engine->allocations, allocation);
        free(allocation);
    }
    return code;
}

static int check_gpu(const struct nvlx_engine *engine, int gpu) {
    if (gpu >= 0 && gpu < engine->remote.gpus)
        return 0;
    return nvlxi_fail(NVLX_EINVAL, "GPU %d is not one of the %d GPUs here", gpu, engine->remote.gpus);
}

static int keep_allocation(struct nvlx_engine *engine, void *address, size_t length) {
    struct allocation *allocation = calloc(1, sizeof *allocation);
    bool hash_full = allocation == NULL;
    if (allocation) {
        allocation->address = address;
        allocation->length = length;
        pthread_mutex_lock(&engine->mutex);
        HASH_ADD_PTR(engine->allocations, address, allocation);
        pthread_mutex_unlock(&engine->mutex);
    }
    if (!hash_full)
        return 0;
    free(allocation);
    return nvlxi_fail(NVLX_ENOMEM, "no memory to note an allocation of %zu bytes", length);
}

static int alloc_request(int gpu, size_t length, const struct nvlx_alloc_options *options,
                         struct nvlxi_alloc *request) {
    static const uint32_t kinds[] = {[0] = NVLXI_KIND_CUDA_MALLOC,
                                     [NVLX_ALLOC_VMM] = NVLXI_KIND_VMM,
                                     [NVLX_ALLOC_POOL] = NVLXI_KIND_POOL,
                                     [NVLX_ALLOC_HOST] = NVLXI_KIND_HOST};
    if (!length)
        return nvlxi_fail(NVLX_EINVAL, "length 0: an allocation has at least one byte");
    if (options->flags >= NVLXI_COUNT(kinds) || kinds[options->flags] == NVLXI_KIND_UNKNOWN)
        return nvlxi_fail(NVLX_EINVAL, "flags 0x%" PRIx32 " are not one of NVLX_ALLOC_...", options->flags);
    if (options->chunk_length && options->flags != NVLX_ALLOC_VMM && options->flags != NVLX_ALLOC_HOST)
        return nvlxi_fail(NVLX_EINVAL, "chunk_length %zu is for NVLX_ALLOC_VMM and NVLX_ALLOC_HOST",
                          options->chunk_length);
    *request = (struct nvlxi_alloc){
        .gpu = gpu, .length = length, .kind = kinds[options->flags], .chunk = options->chunk_length};
    return 0;
}

static int alloc_memory(struct nvlx_engine *engine, int gpu, size_t length, const struct nvlx_alloc_options *options,
                        void **address) {
    struct nvlx_alloc_options known;
    struct nvlxi_alloc request;
    void *made;
    nvlx_alloc_options_init(&known);
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(address, "address")) ||
        (code = nvlxi_struct_take(&known, sizeof known, options, "nvlx_alloc_options")) ||
        (code = check_gpu(engine, gpu)))
        return code;
    if ((code = alloc_request(gpu, length, &known, &request)))
        return code;
    code = engine->context.ops->alloc(engine->context.device, &request, &made);
    if (code)
        return code;
    code = keep_allocation(engine, made, length);
    if (code) {
        engine->context.ops->free(engine->context.device, made);
        return code;
    }
    *address = made;
    return 0;
}

int nvlx_alloc(struct nvlx_engine *engine, int gpu, size_t length, const struct nvlx_alloc_options *options,
               void **address) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, alloc_memory(engine, gpu, length, options, address));
}

/* Finds an allocation to be freed, which then no other thread can. */
static int claim_allocation(struct nvlx_engine *engine, void *address, struct allocation **claimed) {
    struct allocation *allocation;
    pthread_mutex_lock(&engine->mutex);
    HASH_FIND_PTR(engine->allocations, &address, allocation);
    bool found = allocation && !allocation->going;
    if (found)
        allocation->going = true;
    pthread_mutex_unlock(&engine->mutex);
    *claimed = allocation;
    return found ? 0
                 : nvlxi_fail(NVLX_EINVAL, "address %p is not from nvlx_alloc of this engine, or was freed before",
                              address);
}

/* Ends a claim: the allocation stays, or is forgotten. */
static void end_claim(struct nvlx_engine *engine, struct allocation *allocation, bool stays) {
    pthread_mutex_lock(&engine->mutex);
    allocation->going = false;
    if (!stays)
        HASH_DEL(engine->allocations, allocation);
    pthread_mutex_unlock(&engine->mutex);
    if (!stays)
        free(allocation);
}

static int free_memory(struct nvlx_engine *engine, void *address) {
    struct allocation *allocation;
    uint32_t users;
    int code = nvlxi_engine_check(engine);
    if (code || !address || (code = claim_allocation(engine, address, &allocation)))
        return code;
    nvlxi_graphs_await(engine, (uint64_t)(uintptr_t)address, allocation->length);
    code = nvlxi_registration_forget(&engine->registration, (uint64_t)(uintptr_t)address, allocation->length,
                                     nvlxi_find_users, engine, &users);
    end_claim(engine, allocation, code != 0);
    if (code)
        return nvlxi_fail(code, "%s uses the memory at %p%s", nvlxi_users_name(users), address,
                          nvlxi_users_advice(users));
    nvlxi_registration_await_file(&engine->registration, UINT64_MAX);
    return engine->context.ops->free(engine->context.device, address);
}

int nvlx_free(struct nvlx_engine *engine, void *address) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, free_memory(engine, address));
}

int nvlx_memcpy(struct nvlx_engine *engine, void *destination, const void *source, size_t length) {
    int code = nvlxi_engine_check(engine);
    if (code || !length)
        return code;
    if ((code = nvlxi_pointer_check(destination, "destination")) || (code = nvlxi_pointer_check(source, "source")))
        return code;
    const uintptr_t to = (uintptr_t)destination, from = (uintptr_t)source;
    if (to != from && (to > from ? to - from : from - to) < length)
        return nvlxi_fail(NVLX_EINVAL, "%zu bytes: the destination %p and the source %p overlap", length, destination,
                          source);
    return engine->context.ops->memcpy(engine->context.device, destination, source, length);
}
