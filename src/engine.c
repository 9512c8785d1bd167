/* The exported functions: they check the arguments, take the engine apart, and call the modules below.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utlist.h>

#include "engine.h"
#include "error.h"
#include "identity.h"
#include "log.h"
#include "options.h"
#include "rendezvous.h"
#include "transfer.h"

#define LIST_MEMORY (256u << 20) /* bytes; where config.list_memory is 0 */

struct allocation { /* memory from nvlx_alloc */
    void *address;
    size_t length;
    bool going; /* nvlx_free is at it */
    UT_hash_handle hh;
};

struct nvlx_engine {
    const volatile char *alive; /* a page of its own that a fork wipes in the child: 1 here, 0 there */
    const struct nvlxi_device_ops *ops;
    struct nvlxi_device *device;
    struct nvlxi_identity identity;
    struct nvlxi_tables tables;
    struct nvlxi_registration registration;
    struct nvlxi_relocation relocation;
    struct nvlxi_transfers transfers;
    struct nvlxi_rendezvous rendezvous;
    pthread_mutex_t mutex;          /* guards the two below */
    struct nvlx_peer *peers;        /* list */
    struct allocation *allocations; /* hash set by address */
};

static int check_engine(const struct nvlx_engine *engine) {
    if (nvlxi_unlikely(!engine))
        return nvlxi_fail(NVLX_EINVAL, "the engine is NULL");
    if (nvlxi_unlikely(!*engine->alive))
        return nvlxi_fail(NVLX_EFORK,
                          "process %ld is a forked child: make an engine of its own, before any use of CUDA",
                          (long)getpid());
    return 0;
}

/* Arguments that must not be NULL, by name. */
static int check_pointer(const void *pointer, const char *name) {
    return nvlxi_likely(pointer != NULL) ? 0 : nvlxi_fail(NVLX_EINVAL, "%s is NULL", name);
}

static int check_mechanism(uint32_t mechanism) {
    if (mechanism <= NVLX_MECHANISM_KERNEL)
        return 0;
    return nvlxi_fail(NVLX_EINVAL, "mechanism %" PRIu32 " is not one of NVLX_MECHANISM_...", mechanism);
}

/* ---- Backends ---------------------------------------------------------------------------------------- */

static int find_backend(uint32_t backend, const struct nvlxi_device_ops **ops) {
    const char *name = getenv("NVLX_BACKEND");
    int gpus;
    if (backend > NVLX_BACKEND_HOST)
        return nvlxi_fail(NVLX_EINVAL, "backend %" PRIu32 " is not one of NVLX_BACKEND_...", backend);
    if (backend == NVLX_BACKEND_AUTO && name && *name && strcmp(name, "auto")) {
        if (strcmp(name, "cuda") && strcmp(name, "host"))
            return nvlxi_fail(NVLX_EBACKEND, "NVLX_BACKEND is \"%.40s\": it must be auto, cuda or host", name);
        backend = strcmp(name, "cuda") ? NVLX_BACKEND_HOST : NVLX_BACKEND_CUDA;
    }
    *ops = &nvlxi_device_host;
#ifdef NVLXI_WITH_CUDA
    if (backend == NVLX_BACKEND_CUDA || (backend == NVLX_BACKEND_AUTO && nvlxi_device_cuda.count(&gpus) == 0))
        *ops = &nvlxi_device_cuda;
#else
    if (backend == NVLX_BACKEND_CUDA)
        return nvlxi_fail(NVLX_EBACKEND, "this library was built without the cuda backend");
#endif
    return (*ops)->count(&gpus);
}

int nvlx_gpu_count(uint32_t backend, int *count) {
    const struct nvlxi_device_ops *ops;
    int gpus, code = check_pointer(count, "count");
    if (!code)
        code = find_backend(backend, &ops);
    if (!code)
        code = ops->count(&gpus);
    if (!code)
        *count = gpus;
    return code;
}

/* ---- Engine ------------------------------------------------------------------------------------------ */

static int make_alive(struct nvlx_engine *engine) {
    char *page = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for an engine");
    *page = 1;
    engine->alive = page;
    if (madvise(page, (size_t)sysconf(_SC_PAGESIZE), MADV_WIPEONFORK) == 0)
        return 0;
    munmap(page, (size_t)sysconf(_SC_PAGESIZE));
    return nvlxi_fail(NVLX_ENOTSUP, "the kernel cannot tell forked children apart (MADV_WIPEONFORK, Linux 4.14)");
}

static void unmake_alive(struct nvlx_engine *engine) {
    munmap((void *)(uintptr_t)engine->alive, (size_t)sysconf(_SC_PAGESIZE));
}

static int init_modules(struct nvlx_engine *engine, const struct nvlx_config *config) {
    struct nvlxi_registration *registration = &engine->registration;
    struct nvlxi_relocation *relocation = &engine->relocation;
    struct nvlxi_transfers *transfers = &engine->transfers;
    registration->ops = relocation->ops = transfers->pool.ops = engine->ops;
    registration->device = relocation->device = transfers->pool.device = engine->device;
    registration->engine = transfers->engine = engine;
    registration->tables = relocation->tables = transfers->tables = &engine->tables;
    transfers->registration = registration;
    transfers->max_requests = config->max_requests ? config->max_requests : 4096;
    transfers->mechanism = config->mechanism ? config->mechanism : NVLX_MECHANISM_AUTO;
    transfers->max_sms = config->max_sms;
    int code = engine->ops->count(&relocation->gpus);
    if (!code)
        code = nvlxi_relocation_init(relocation, &engine->identity);
    if (code)
        return code;
    code = nvlxi_registration_init(registration);
    if (code) {
        nvlxi_relocation_free(relocation);
        return code;
    }
    nvlxi_tables_init(&engine->tables);
    pthread_mutex_init(&engine->mutex, NULL);
    nvlxi_transfers_init(transfers, config->list_memory ? config->list_memory : LIST_MEMORY);
    nvlxi_rendezvous_init(&engine->rendezvous, registration, relocation, transfers, &engine->identity);
    return 0;
}

int nvlxi_engine_create(const struct nvlx_config *config, const struct nvlxi_device_ops *ops,
                        struct nvlx_engine **engine) {
    struct nvlx_engine *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for an engine");
    made->ops = ops;
    int code = make_alive(made);
    if (code)
        goto free_engine;
    if ((code = nvlxi_identity_make(&made->identity)))
        goto unmake_alive;
    if ((code = ops->open(config->gpus, config->gpu_count, &made->device)))
        goto unmake_alive;
    if ((code = init_modules(made, config)))
        goto close_device;
    nvlxi_log(NVLX_LOG_INFO, "engine %s on backend %s with %d GPUs", made->identity.engine, ops->name,
              made->relocation.gpus);
    *engine = made;
    return 0;
close_device:
    ops->close(made->device);
unmake_alive:
    unmake_alive(made);
free_engine:
    free(made);
    return code;
}

int nvlx_engine_create(const struct nvlx_config *config, struct nvlx_engine **engine) {
    struct nvlx_config known;
    const struct nvlxi_device_ops *ops;
    nvlx_config_init(&known);
    int code = check_pointer(engine, "engine");
    if (!code)
        code = nvlxi_struct_take(&known, sizeof known, config, "nvlx_config");
    if (!code && known.gpu_count && !known.gpus)
        code = nvlxi_fail(NVLX_EINVAL, "config.gpus is NULL and config.gpu_count is %zu", known.gpu_count);
    if (!code)
        code = check_mechanism(known.mechanism);
    if (!code)
        code = find_backend(known.backend, &ops);
    return code ? code : nvlxi_engine_create(&known, ops, engine);
}

static int free_allocations(struct nvlx_engine *engine) {
    struct allocation *allocation, *next;
    int code = 0;
    HASH_ITER(hh, engine->allocations, allocation, next) {
        int failed = engine->ops->free(engine->device, allocation->address);
        code = code ? code : failed;
        HASH_DEL(engine->allocations, allocation);
        free(allocation);
    }
    return code;
}

int nvlx_engine_destroy(struct nvlx_engine *engine) {
    struct nvlx_peer *peer, *next;
    if (!engine)
        return 0;
    int failed, code = check_engine(engine);
    if (code)
        return code;
    nvlxi_rendezvous_free(&engine->rendezvous); /* first: its thread uses all the others */
    nvlxi_transfers_free(&engine->transfers);
    DL_FOREACH_SAFE(engine->peers, peer, next) {
        failed = nvlxi_peer_close(peer);
        code = code ? code : failed;
    }
    nvlxi_registration_free(&engine->registration);
    nvlxi_relocation_free(&engine->relocation);
    failed = free_allocations(engine);
    engine->ops->close(engine->device);
    nvlxi_tables_destroy(&engine->tables);
    pthread_mutex_destroy(&engine->mutex);
    unmake_alive(engine);
    free(engine);
    return code ? code : failed;
}

const char *nvlx_backend_name(const struct nvlx_engine *engine) {
    return engine ? engine->ops->name : "";
}

int nvlx_engine_get_info(struct nvlx_engine *engine, struct nvlx_engine_info *info) {
    struct nvlx_engine_info made = {0};
    int code = check_engine(engine);
    if (code)
        return code;
    pthread_mutex_lock(&engine->registration.mutex);
    made.segments = HASH_COUNT(engine->registration.segments);
    made.regions = engine->registration.region_count;
    made.handles_exported = engine->registration.handles_exported;
    pthread_mutex_unlock(&engine->registration.mutex);
    made.mappings = atomic_load(&engine->relocation.mappings);
    pthread_mutex_lock(&engine->transfers.mutex);
    made.requests = engine->transfers.in_flight_count;
    pthread_mutex_unlock(&engine->transfers.mutex);
    return nvlxi_struct_give(info, &made, sizeof made, "nvlx_engine_info");
}

/* ---- Memory ------------------------------------------------------------------------------------------ */

static int check_gpu(const struct nvlx_engine *engine, int gpu) {
    if (gpu >= 0 && gpu < engine->relocation.gpus)
        return 0;
    return nvlxi_fail(NVLX_EINVAL, "GPU %d is not one of the %d GPUs here", gpu, engine->relocation.gpus);
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
    static const uint32_t kinds[] = {NVLXI_KIND_CUDA_MALLOC, NVLXI_KIND_VMM, NVLXI_KIND_POOL};
    if (!length)
        return nvlxi_fail(NVLX_EINVAL, "length 0: an allocation has at least one byte");
    if (options->flags >= NVLXI_COUNT(kinds))
        return nvlxi_fail(NVLX_EINVAL, "flags 0x%" PRIx32 " are not one of NVLX_ALLOC_...", options->flags);
    if (options->chunk_length && options->flags != NVLX_ALLOC_VMM)
        return nvlxi_fail(NVLX_EINVAL, "chunk_length %zu is for NVLX_ALLOC_VMM", options->chunk_length);
    *request = (struct nvlxi_alloc){
        .gpu = gpu, .length = length, .kind = kinds[options->flags], .chunk = options->chunk_length};
    return 0;
}

int nvlx_alloc(struct nvlx_engine *engine, int gpu, size_t length, const struct nvlx_alloc_options *options,
               void **address) {
    struct nvlx_alloc_options known;
    struct nvlxi_alloc request;
    void *made;
    nvlx_alloc_options_init(&known);
    int code = check_engine(engine);
    if (code || (code = check_pointer(address, "address")) ||
        (code = nvlxi_struct_take(&known, sizeof known, options, "nvlx_alloc_options")) ||
        (code = check_gpu(engine, gpu)))
        return code;
    if ((code = alloc_request(gpu, length, &known, &request)))
        return code;
    code = engine->ops->alloc(engine->device, &request, &made);
    if (code)
        return code;
    code = keep_allocation(engine, made, length);
    if (code) {
        engine->ops->free(engine->device, made);
        return code;
    }
    *address = made;
    return 0;
}

static const char *user_name(enum nvlxi_user user) {
    return user == NVLXI_A_PREPARED_LIST ? "a prepared list (free it first)" : "a transfer in flight";
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

int nvlx_free(struct nvlx_engine *engine, void *address) {
    struct allocation *allocation;
    enum nvlxi_user user;
    int code = check_engine(engine);
    if (code || !address || (code = claim_allocation(engine, address, &allocation)))
        return code;
    nvlxi_transfers_progress(&engine->transfers);
    code = nvlxi_registration_forget(&engine->registration, (uint64_t)(uintptr_t)address, allocation->length,
                                     nvlxi_transfers_user, &engine->transfers, &user);
    end_claim(engine, allocation, code != 0);
    if (code)
        return nvlxi_fail(code, "%s uses the memory at %p", user_name(user), address);
    return engine->ops->free(engine->device, address);
}

int nvlx_memcpy(struct nvlx_engine *engine, void *destination, const void *source, size_t length) {
    int code = check_engine(engine);
    if (code || !length)
        return code;
    if ((code = check_pointer(destination, "destination")) || (code = check_pointer(source, "source")))
        return code;
    return engine->ops->memcpy(engine->device, destination, source, length);
}

/* ---- Registration ------------------------------------------------------------------------------------ */

int nvlx_register(struct nvlx_engine *engine, const void *address, size_t length,
                  const struct nvlx_region_options *options, struct nvlx_region **region) {
    struct nvlx_region_options known;
    nvlx_region_options_init(&known);
    int code = check_engine(engine);
    if (code || (code = check_pointer(region, "region")) ||
        (code = nvlxi_struct_take(&known, sizeof known, options, "nvlx_region_options")))
        return code;
    return nvlxi_registration_add(&engine->registration, (uint64_t)(uintptr_t)address, length, &known, region);
}

int nvlx_unregister(struct nvlx_region *region, int64_t timeout_ns) {
    int code = check_pointer(region, "region");
    if (code || (code = check_engine(region->engine)))
        return code;
    struct nvlxi_transfers *transfers = &region->engine->transfers;
    uint64_t since = nvlxi_now_ns(), deadline = nvlxi_deadline(timeout_ns);
    enum nvlxi_user user;
    for (bool asked = false;; asked = true) {
        code = nvlxi_registration_remove(&region->engine->registration, region, nvlxi_transfers_user, transfers, &user);
        if (code != NVLX_EBUSY)
            return code;
        if (user == NVLXI_A_PREPARED_LIST || (asked && nvlxi_now_ns() >= deadline))
            return nvlxi_fail(NVLX_EBUSY, "%s uses the region at 0x%" PRIx64 " of %" PRIu64 " bytes", user_name(user),
                              region->address, region->length);
        nvlxi_transfers_pause(since);
        nvlxi_transfers_progress(transfers); /* it may be done, and nobody have asked */
    }
}

int nvlx_export(struct nvlx_engine *engine, char **text, size_t *length) {
    uint64_t generation;
    int code = check_engine(engine);
    if (code || (code = check_pointer(text, "text")) || (code = check_pointer(length, "length")))
        return code;
    return nvlxi_publisher_text(&engine->rendezvous.publisher, text, length, &generation);
}

void nvlx_text_free(char *text) {
    free(text);
}

/* ---- Peers ------------------------------------------------------------------------------------------- */

static int check_peer(const struct nvlx_peer *peer) {
    int code = check_pointer(peer, "peer");
    return code ? code : check_engine(peer->engine);
}

static void keep_peer(struct nvlx_engine *engine, struct nvlx_peer *peer) {
    peer->engine = engine;
    pthread_mutex_lock(&engine->mutex);
    DL_APPEND(engine->peers, peer);
    pthread_mutex_unlock(&engine->mutex);
}

int nvlx_peer_open(struct nvlx_engine *engine, const char *text, size_t length, struct nvlx_peer **peer) {
    struct nvlx_peer *made;
    int code = check_engine(engine);
    if (code || (code = check_pointer(text, "text")) || (code = check_pointer(peer, "peer")))
        return code;
    code = nvlxi_peer_open(&engine->relocation, text, length, &made);
    if (code)
        return code;
    keep_peer(engine, made);
    *peer = made;
    return 0;
}

int nvlx_serve(struct nvlx_engine *engine, const char *address, const struct nvlx_serve_options *options) {
    struct nvlx_serve_options known;
    nvlx_serve_options_init(&known);
    int code = check_engine(engine);
    if (code || (code = check_pointer(address, "address")) ||
        (code = nvlxi_struct_take(&known, sizeof known, options, "nvlx_serve_options")))
        return code;
    return nvlxi_rendezvous_serve(&engine->rendezvous, address, &known);
}

int nvlx_connect(struct nvlx_engine *engine, const char *address, int64_t timeout_ns, struct nvlx_peer **peer) {
    struct nvlx_peer *made;
    int code = check_engine(engine);
    if (code || (code = check_pointer(address, "address")) || (code = check_pointer(peer, "peer")))
        return code;
    code = nvlxi_rendezvous_connect(&engine->rendezvous, address, timeout_ns, &made);
    if (code)
        return code;
    keep_peer(engine, made);
    *peer = made;
    return 0;
}

int nvlx_peer_test(struct nvlx_peer *peer) {
    int code = check_peer(peer);
    return code ? code : nvlxi_clients_test(&peer->engine->rendezvous.clients, peer);
}

int nvlx_peer_update(struct nvlx_peer *peer, const char *text, size_t length) {
    int code = check_peer(peer);
    if (code || (code = check_pointer(text, "text")))
        return code;
    nvlxi_transfers_progress(&peer->engine->transfers);
    return nvlxi_peer_update(peer, text, length);
}

int nvlx_peer_find(struct nvlx_peer *peer, const char *name, uint64_t *address, uint64_t *length) {
    int code = check_peer(peer);
    if (code || (code = check_pointer(name, "name")) || (code = check_pointer(address, "address")) ||
        (code = check_pointer(length, "length")))
        return code;
    return nvlxi_peer_find(peer, name, address, length);
}

int nvlx_peer_map(struct nvlx_peer *peer, int gpu, uint64_t address, uint64_t length) {
    int code = check_peer(peer);
    return code ? code : nvlxi_peer_map_range(peer, gpu, address, length);
}

int nvlx_peer_close(struct nvlx_peer *peer) {
    if (!peer)
        return 0;
    int code = check_peer(peer);
    if (code)
        return code;
    struct nvlx_engine *engine = peer->engine;
    if (nvlxi_prepared_names(&engine->transfers, peer))
        return nvlxi_fail(NVLX_EBUSY, "a prepared list names the peer: free it first");
    for (uint64_t since = nvlxi_now_ns();; nvlxi_transfers_pause(since)) {
        nvlxi_transfers_progress(&engine->transfers);
        if (!atomic_load(&peer->pins))
            break;
    }
    nvlxi_rendezvous_leave(&engine->rendezvous, peer);
    pthread_mutex_lock(&engine->mutex);
    DL_DELETE(engine->peers, peer);
    pthread_mutex_unlock(&engine->mutex);
    return nvlxi_peer_close(peer);
}

/* ---- Transfers --------------------------------------------------------------------------------------- */

/* What nvlx_transfer and nvlx_prepare have in common. */
static int take_transfer(const struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                         const struct nvlx_transfer_options *options, struct nvlx_transfer_options *known) {
    nvlx_transfer_options_init(known);
    int code = check_engine(engine);
    if (code || (code = nvlxi_struct_take(known, sizeof *known, options, "nvlx_transfer_options")))
        return code;
    if (count && (code = check_pointer(ops, "ops")))
        return code;
    if (known->flags & ~(uint32_t)NVLX_NO_MAP)
        return nvlxi_fail(NVLX_EINVAL, "transfer flags 0x%" PRIx32 " are not known", known->flags);
    return check_mechanism(known->mechanism);
}

int nvlx_transfer(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                  const struct nvlx_transfer_options *options, struct nvlx_request **request) {
    struct nvlx_transfer_options known;
    int code = take_transfer(engine, ops, count, options, &known);
    if (code || (code = check_pointer(request, "request")))
        return code;
    return nvlxi_transfer_submit(&engine->transfers, ops, count, &known, request);
}

int nvlx_prepare(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                 const struct nvlx_transfer_options *options, struct nvlx_prepared **prepared) {
    struct nvlx_transfer_options known;
    int code = take_transfer(engine, ops, count, options, &known);
    if (code || (code = check_pointer(prepared, "prepared")))
        return code;
    if (known.stream)
        return nvlxi_fail(NVLX_EINVAL, "a stream is an option of nvlx_post, not of nvlx_prepare");
    return nvlxi_prepare(&engine->transfers, ops, count, &known, prepared);
}

static int check_prepared(const struct nvlx_prepared *prepared) {
    int code = check_pointer(prepared, "prepared");
    return code ? code : check_engine(prepared->engine);
}

int nvlx_post(struct nvlx_prepared *prepared, const struct nvlx_transfer_options *options,
              struct nvlx_request **request) {
    struct nvlx_transfer_options known;
    nvlx_transfer_options_init(&known);
    int code = check_prepared(prepared);
    if (code || (code = check_pointer(request, "request")) ||
        (code = nvlxi_struct_take(&known, sizeof known, options, "nvlx_transfer_options")))
        return code;
    if (known.flags || known.mechanism || known.max_sms || known.priority)
        return nvlxi_fail(NVLX_EINVAL,
                          "flags, mechanism, max_sms and priority are options of nvlx_prepare, not of nvlx_post");
    return nvlxi_post(prepared, known.stream, request);
}

int nvlx_prepared_free(struct nvlx_prepared *prepared) {
    if (!prepared)
        return 0;
    int code = check_prepared(prepared);
    if (!code)
        nvlxi_prepared_free(prepared);
    return code;
}

static int check_request(const struct nvlx_request *request) {
    int code = check_pointer(request, "request");
    return code ? code : check_engine(request->engine);
}

int nvlx_test(struct nvlx_request *request) {
    int code = check_request(request);
    return code ? code : nvlxi_request_test(request);
}

int nvlx_wait(struct nvlx_request *request, int64_t timeout_ns) {
    int code = check_request(request);
    return code ? code : nvlxi_request_wait(request, timeout_ns);
}

int nvlx_request_get_info(struct nvlx_request *request, struct nvlx_request_info *info) {
    struct nvlx_request_info made = {0};
    int code = check_request(request);
    if (code)
        return code;
    nvlxi_request_info(request, &made);
    return nvlxi_struct_give(info, &made, sizeof made, "nvlx_request_info");
}

int nvlx_request_free(struct nvlx_request *request) {
    if (!request)
        return 0;
    int code = check_request(request);
    return code ? code : nvlxi_request_free(request);
}
