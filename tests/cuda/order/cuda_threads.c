/* Threads, current devices and contexts: the caller's are never changed, and none is made where it was not allowed.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Contexts last as long as their process, so each part runs in a child of its own. */
#include <cuda.h>
#include <cudaTypedefs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/support/cuda_support.h"

#define BYTES   MIB
#define WORDS   (BYTES / sizeof(uint32_t))
#define THREADS 4

/* ---- What a call must leave alone ------------------------------------------------------------------------ */

static PFN_cuCtxGetCurrent_v4000 get_context;
static PFN_cuDevicePrimaryCtxGetState_v7000 get_state;
static PFN_cuThreadExchangeStreamCaptureMode_v10010 exchange_mode;

static void load_driver_functions(void) {
    int count;
    CUDA(cudaGetDeviceCount(&count)); /* starts the driver, and makes no context */
    driver_function("cuCtxGetCurrent", 4000, (void **)&get_context);
    driver_function("cuDevicePrimaryCtxGetState", 7000, (void **)&get_state);
    driver_function("cuThreadExchangeStreamCaptureMode", 10010, (void **)&exchange_mode);
}

static bool is_active(int gpu) {
    unsigned flags;
    int active;
    EXPECT(get_state(gpu, &flags, &active) == CUDA_SUCCESS);
    return active != 0;
}

struct state {
    CUcontext context;
    int device;
    CUstreamCaptureMode mode;
};

/* By the driver where it can be: the runtime might make a context. */
static struct state look(void) {
    struct state state = {.mode = CU_STREAM_CAPTURE_MODE_RELAXED};
    EXPECT(get_context(&state.context) == CUDA_SUCCESS);
    CUDA(cudaGetDevice(&state.device));
    EXPECT(exchange_mode(&state.mode) == CUDA_SUCCESS);
    CUstreamCaptureMode mine = state.mode;
    EXPECT(exchange_mode(&mine) == CUDA_SUCCESS);
    return state;
}

static struct state expected;
static int calls; /* that were looked at */

static void untouched(const char *call, int line) {
    struct state now = look();
    if (now.context != expected.context || now.device != expected.device || now.mode != expected.mode)
        FAIL("line %d: %s changed the thread: context %p -> %p, device %d -> %d, capture mode %d -> %d", line, call,
             (void *)expected.context, (void *)now.context, expected.device, now.device, (int)expected.mode,
             (int)now.mode);
    calls++;
}

/* That the call succeeds, and leaves the thread as it was. */
#define SAME(call)                                                                                                     \
    do {                                                                                                               \
        OK(call);                                                                                                      \
        untouched(#call, __LINE__);                                                                                    \
    } while (0)

/* ---- Every call, in whatever thread ---------------------------------------------------------------------- */

struct job {
    const struct cuda_owner *owner;
    int gpu, owner_gpu; /* of the local memory, of the owner's */
    int current;        /* device to be current in the thread; -1: none, and no context */
};

static void transfer_once(struct nvlx_engine *engine, uint32_t opcode, struct nvlx_peer *peer, void *local) {
    const struct nvlx_op op = {
        .opcode = opcode, .peer = peer, .local = local, .remote = cuda_owner_address(peer, 0), .length = BYTES};
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_request *request;
    SAME(nvlx_transfer(engine, &op, 1, NULL, &request));
    int code = nvlx_test(request);
    untouched("nvlx_test", __LINE__);
    EXPECT(code == 0 || code == NVLX_EAGAIN);
    SAME(nvlx_wait(request, GPU_PATIENCE));
    SAME(nvlx_request_get_info(request, &info));
    SAME(nvlx_request_free(request));
}

static void use_memory(struct nvlx_engine *engine, struct nvlx_peer *peer, void *memory) {
    struct nvlx_engine_info info = {.size = sizeof info};
    struct nvlx_region *region;
    char *text;
    size_t length;
    uint32_t *words = malloc(BYTES);
    if (!words)
        FAIL("no memory");
    SAME(nvlx_register(engine, memory, BYTES, NULL, &region));
    SAME(nvlx_export(engine, &text, &length));
    nvlx_text_free(text);
    untouched("nvlx_text_free", __LINE__);
    transfer_once(engine, NVLX_OP_READ, peer, memory);
    SAME(nvlx_memcpy(engine, words, memory, BYTES));
    EXPECT(words[1] - words[0] == 40503); /* cuda_kernels.cu: the owner's words count up by it */
    SAME(nvlx_memcpy(engine, memory, words, BYTES));
    transfer_once(engine, NVLX_OP_WRITE, peer, memory);
    SAME(nvlx_engine_get_info(engine, &info));
    SAME(nvlx_unregister(region, GPU_PATIENCE));
    free(words);
}

static void call_everything(const struct job *job) {
    const int gpus[] = {job->gpu, job->owner_gpu};
    struct nvlx_config config;
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    void *memory;
    int count;
    nvlx_config_init(&config);
    config.backend = NVLX_BACKEND_CUDA;
    config.gpus = gpus;
    config.gpu_count = job->gpu == job->owner_gpu ? 1 : 2;
    expected = look();
    SAME(nvlx_gpu_count(NVLX_BACKEND_CUDA, &count));
    SAME(nvlx_engine_create(&config, &engine));
    SAME(nvlx_peer_open(engine, job->owner->text, job->owner->length, &peer));
    uint64_t remote = cuda_owner_address(peer, 0);
    untouched("nvlx_peer_find", __LINE__);
    SAME(nvlx_peer_map(peer, job->gpu, remote, BYTES));
    SAME(nvlx_alloc(engine, job->gpu, BYTES, NULL, &memory));
    use_memory(engine, peer, memory);
    SAME(nvlx_peer_update(peer, job->owner->text, job->owner->length));
    SAME(nvlx_peer_close(peer));
    SAME(nvlx_free(engine, memory));
    SAME(nvlx_engine_destroy(engine));
}

static void *run_job(void *context) {
    const struct job *job = context;
    if (job->current >= 0) {
        CUDA(cudaSetDevice(job->current));
        CUDA(cudaFree(NULL)); /* makes the context */
    }
    EXPECT((look().context != NULL) == (job->current >= 0));
    call_everything(job);
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    EXPECT(exchange_mode(&mode) == CUDA_SUCCESS);
    call_everything(job);
    return NULL;
}

static void run_in_thread(struct job job, const char *name) {
    pthread_t thread;
    calls = 0;
    EXPECT(pthread_create(&thread, NULL, run_job, &job) == 0);
    EXPECT(pthread_join(thread, NULL) == 0);
    printf("%s, memory of GPU %d, peer's of GPU %d: %d calls left device, context and capture mode alone\n", name,
           job.gpu, job.owner_gpu, calls);
}

static void everything_role(int socket) {
    const int gpus = get_int(socket);
    struct cuda_owner owner;
    int last = gpus - 1;
    load_driver_functions();
    cuda_owner_start(&owner, last, 1, 2 * MIB, NULL);
    run_in_thread((struct job){&owner, 0, last, -1}, "no context in the thread nor on the GPU");
    run_in_thread((struct job){&owner, 0, last, 0}, "GPU 0 current");
    run_in_thread((struct job){&owner, 0, last, -1}, "no context in the thread");
    if (last > 0) {
        run_in_thread((struct job){&owner, 0, last, last}, "another GPU current");
        run_in_thread((struct job){&owner, last, last, 0}, "another GPU current");
    } else {
        printf("not run, since there is one GPU: calls with another GPU current\n");
    }
    cuda_owner_end(&owner);
}

/* ---- Which GPUs get a context ---------------------------------------------------------------------------- */

static void *alloc_first(void *engine) {
    void *memory;
    OK(nvlx_alloc(engine, 0, BYTES, NULL, &memory));
    OK(nvlx_free(engine, memory));
    return NULL;
}

/* Threads that all come first. */
static void alloc_in_threads(struct nvlx_engine *engine) {
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++)
        EXPECT(pthread_create(&threads[i], NULL, alloc_first, engine) == 0);
    for (size_t i = 0; i < THREADS; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
}

/* config.gpus NULL: only GPUs that the program itself uses, or names. */
static void null_role(int socket) {
    const int gpus = get_int(socket), last = gpus - 1;
    struct cuda_owner owner;
    char from[] = "host", to[sizeof from] = "";
    load_driver_functions();
    cuda_owner_start(&owner, last, 1, 2 * MIB, NULL);
    struct nvlx_engine *engine = engine_on(NULL, 0);
    struct nvlx_peer *peer = cuda_owner_open(&owner, engine);
    OK(nvlx_memcpy(engine, to, from, sizeof from));
    EXPECT(!strcmp(to, "host") && !is_active(0));
    alloc_in_threads(engine);
    for (int gpu = 0; gpu < gpus; gpu++)
        EXPECT(is_active(gpu) == (gpu == 0));
    OK(nvlx_peer_map(peer, last, cuda_owner_address(peer, 0), BYTES));
    for (int gpu = 0; gpu < gpus; gpu++)
        EXPECT(is_active(gpu) == (gpu == 0 || gpu == last));
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(engine));
    cuda_owner_end(&owner);
    printf("config.gpus NULL: contexts where nvlx_alloc and nvlx_peer_map name a GPU, nowhere else\n");
}

/* config.gpus {0}: no context anywhere else, not even by mapping memory that lies there. */
static void listed_role(int socket) {
    const int gpus = get_int(socket);
    int zero = 0, last = gpus - 1;
    struct cuda_owner owner;
    struct nvlx_region *region;
    void *memory;
    load_driver_functions();
    cuda_owner_start(&owner, last, 1, 2 * MIB, NULL);
    struct nvlx_engine *engine = engine_on(&zero, 1);
    struct nvlx_peer *peer = cuda_owner_open(&owner, engine);
    EXPECT(is_active(0));
    OK(nvlx_alloc(engine, 0, BYTES, NULL, &memory));
    OK(nvlx_register(engine, memory, BYTES, NULL, &region));
    finish(start_op(engine, NVLX_OP_READ, peer, memory, cuda_owner_address(peer, 0), BYTES, NULL));
    finish(start_op(engine, NVLX_OP_WRITE, peer, memory, cuda_owner_address(peer, 0), BYTES, NULL));
    for (int gpu = 1; gpu < gpus; gpu++) {
        void *none;
        EXPECT(!is_active(gpu));
        REFUSED(nvlx_alloc(engine, gpu, BYTES, NULL, &none), NVLX_EINVAL, "config.gpus");
        REFUSED(nvlx_peer_map(peer, gpu, cuda_owner_address(peer, 0), BYTES), NVLX_EINVAL, "config.gpus");
        EXPECT(!is_active(gpu));
    }
    OK(nvlx_peer_close(peer));
    OK(nvlx_engine_destroy(engine));
    cuda_owner_end(&owner);
    if (gpus > 1)
        printf("config.gpus {0}: transfers with memory of GPU %d made no context there\n", last);
    else
        printf("not run, since there is one GPU: that a GPU outside config.gpus gets no context\n");
}

/* ---- GPUs that are hidden from each other ---------------------------------------------------------------- */

/* The process's only GPU is 0, as the owner's is to the owner, but they are two. */
static void hidden_role(int socket) {
    const int zero = 0;
    struct cuda_owner owner = {.segments = 1, .bytes = 2 * MIB};
    struct nvlx_region *region;
    void *memory;
    int count;
    owner.text = get_text(socket, &owner.length);
    CUDA(cudaGetDeviceCount(&count));
    EXPECT(count == 1);
    struct nvlx_engine *engine = engine_on(&zero, 1);
    struct nvlx_peer *peer = cuda_owner_open(&owner, engine);
    uint32_t *words = malloc(BYTES);
    if (!words)
        FAIL("no memory");
    OK(nvlx_alloc(engine, zero, BYTES, NULL, &memory));
    OK(nvlx_register(engine, memory, BYTES, NULL, &region));
    finish(start_op(engine, NVLX_OP_READ, peer, memory, cuda_owner_address(peer, 0), BYTES, NULL));
    OK(nvlx_memcpy(engine, words, memory, BYTES));
    for (size_t i = 0; i + 1 < WORDS; i++)
        EXPECT(words[i + 1] - words[i] == 40503);
    words[0]++;
    OK(nvlx_memcpy(engine, memory, words, BYTES));
    finish(start_op(engine, NVLX_OP_WRITE, peer, memory, cuda_owner_address(peer, 0), BYTES, NULL));
    OK(nvlx_engine_destroy(engine));
    free(words);
    free(owner.text);
}

/* The n-th of what CUDA_VISIBLE_DEVICES shows, in words that the variable understands. */
static void visible_name(int n, char *name, size_t size) {
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    snprintf(name, size, "%d", n);
    if (!list || !*list)
        return;
    for (; n && strchr(list, ','); n--)
        list = strchr(list, ',') + 1;
    snprintf(name, size, "%.*s", (int)strcspn(list, ","), list);
}

static void try_hidden(int gpus) {
    char mine[64], others[64];
    struct cuda_owner owner;
    struct child child;
    if (gpus < 2) {
        printf("not run, since there is one GPU: GPUs hidden from each other\n");
        return;
    }
    visible_name(0, mine, sizeof mine);
    visible_name(1, others, sizeof others);
    cuda_owner_start(&owner, 0, 1, 2 * MIB, others);
    cuda_child_start(&child, "hidden", mine);
    put_text(child.socket, owner.text, owner.length);
    child_end(&child);
    EXPECT(cuda_owner_wrong(&owner, 0, BYTES, 1) == 1);
    cuda_owner_end(&owner);
    printf("CUDA_VISIBLE_DEVICES %s here, %s there, both GPU 0: read and written\n", mine, others);
}

static void run_role(const char *role, int gpus) {
    struct child child;
    child_start(&child, role);
    put_int(child.socket, gpus);
    child_end(&child);
}

int main(int argc, char **argv) {
    const struct role roles[] = {CUDA_OWNER_ROLE,         {"everything", everything_role}, {"null", null_role},
                                 {"listed", listed_role}, {"hidden", hidden_role},         {NULL, NULL}};
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    int gpus = gpus_needed(1);
    run_role("everything", gpus);
    run_role("null", gpus);
    run_role("listed", gpus);
    try_hidden(gpus);
    return 0;
}
