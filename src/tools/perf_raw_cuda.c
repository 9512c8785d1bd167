/* nvlx_perf: the raw baselines on CUDA, by the runtime's own calls and the kernels of perf_raw_cuda.cu.
 *
 * The other process's memory is opened by its IPC handle with this process's own GPU current: there is no ordinal of
 * the other GPU here that would mean it. It is the mapping that the library has too: the driver counts openings.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "perf_raw_cuda.h"

#include <inttypes.h>
#include <nvlxfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STREAMS     4
#define COUNTS      8 /* of blocks that are tried */
#define LOAD_MEMORY (UINT64_C(512) << 20)

struct perf_raw {
    int gpu, sms, major;
    char *memory, *staging;
    uint64_t size, staging_size;
    char *peer_memory, *peer_staging; /* NULL: none */
    cudaStream_t streams[STREAMS];

    /* The list: as arrays for copy engines, on the GPU for kernels. */
    bool put, aligned;
    size_t count;
    uint64_t bytes;
    void **to;
    const void **from;
    size_t *lengths;
    struct perf_copies copies;                   /* between both memories; in the owner not used */
    struct perf_copies staged_copies;            /* between own memory and own staging; count 0: none */
    double times[PERF_CUDA_KERNELS_MAX][COUNTS]; /* of each kernel with each number of blocks; 0: not known yet */

    struct perf_piece *pieces; /* on the GPU */
    size_t piece_room;
    unsigned long long *wrong;

    enum perf_load load;
    void *load_memory;
    cudaEvent_t load_events[2]; /* its begin and end */
};

static void must(cudaError_t error, const char *what) {
    if (error)
        perf_die("%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

static void finish(struct perf_raw *raw, int streams) {
    for (int i = 0; i < streams; i++)
        must(cudaStreamSynchronize(raw->streams[i]), "a baseline's copies");
}

/* ---- What it is ------------------------------------------------------------------------------------------- */

static void describe_gpu(int gpu, char *text, size_t size) {
    struct cudaDeviceProp properties;
    must(cudaGetDeviceProperties(&properties, gpu), "cudaGetDeviceProperties");
    snprintf(text, size, "%s", properties.name);
}

/* "580.95.05", or "" if the kernel's driver does not tell. */
static void read_driver(char *text, size_t size) {
    char line[256] = "", *rest = line, *word;
    FILE *file = fopen("/proc/driver/nvidia/version", "r");
    *text = 0;
    if (!file)
        return;
    if (!fgets(line, sizeof line, file))
        *line = 0;
    fclose(file);
    while (!*text && (word = strsep(&rest, " ")))
        if (*word >= '0' && *word <= '9' && strchr(word, '.'))
            snprintf(text, size, "%s", word);
}

static void describe_platform(char *text, size_t size) {
    int cuda, runtime;
    char driver[32];
    must(cudaDriverGetVersion(&cuda), "cudaDriverGetVersion");
    must(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
    read_driver(driver, sizeof driver);
    snprintf(text, size, "CUDA %d.%d, driver %s%sfor CUDA %d.%d", runtime / 1000, runtime % 1000 / 10, driver,
             *driver ? " " : "", cuda / 1000, cuda % 1000 / 10);
}

static void share(int gpu, const void *memory, struct perf_handle *handle) {
    cudaIpcMemHandle_t made;
    _Static_assert(sizeof made == sizeof *handle, "a handle of CUDA's size");
    must(cudaSetDevice(gpu), "cudaSetDevice");
    must(cudaIpcGetMemHandle(&made, (void *)(uintptr_t)memory), "cudaIpcGetMemHandle");
    memcpy(handle, &made, sizeof made);
}

static char *open_handle(const struct perf_handle *handle) {
    cudaIpcMemHandle_t opened;
    void *memory;
    if (!handle)
        return NULL;
    memcpy(&opened, handle, sizeof opened);
    must(cudaIpcOpenMemHandle(&memory, opened, cudaIpcMemLazyEnablePeerAccess), "cudaIpcOpenMemHandle");
    return memory;
}

static void read_attributes(struct perf_raw *raw) {
    must(cudaDeviceGetAttribute(&raw->sms, cudaDevAttrMultiProcessorCount, raw->gpu), "cudaDeviceGetAttribute");
    must(cudaDeviceGetAttribute(&raw->major, cudaDevAttrComputeCapabilityMajor, raw->gpu), "cudaDeviceGetAttribute");
}

static struct perf_raw *raw_open(const struct perf_raw_setup *setup) {
    struct perf_raw *raw = perf_alloc(1, sizeof *raw);
    raw->gpu = setup->gpu;
    raw->memory = setup->memory;
    raw->staging = setup->staging;
    raw->size = setup->size;
    raw->staging_size = setup->staging_size;
    must(cudaSetDevice(raw->gpu), "cudaSetDevice");
    read_attributes(raw);
    must(perf_cuda_load(raw->major), "loading the kernels of the baselines");
    for (int i = 0; i < STREAMS; i++)
        must(cudaStreamCreateWithFlags(&raw->streams[i], cudaStreamNonBlocking), "cudaStreamCreate");
    for (int i = 0; i < 2; i++)
        must(cudaEventCreate(&raw->load_events[i]), "cudaEventCreate");
    must(cudaMalloc((void **)&raw->wrong, 2 * sizeof *raw->wrong), "cudaMalloc");
    raw->peer_memory = open_handle(setup->peer_memory);
    raw->peer_staging = open_handle(setup->peer_staging);
    return raw;
}

static void drop_list(struct perf_raw *raw) {
    must(cudaFree((void *)(uintptr_t)raw->copies.list), "cudaFree");
    must(cudaFree((void *)(uintptr_t)raw->staged_copies.list), "cudaFree");
    raw->copies = raw->staged_copies = (struct perf_copies){0};
    free(raw->to);
    free(raw->from);
    free(raw->lengths);
    raw->to = NULL;
    raw->from = NULL;
    raw->lengths = NULL;
}

static void raw_close(struct perf_raw *raw) {
    drop_list(raw);
    for (int i = 0; i < STREAMS; i++)
        must(cudaStreamDestroy(raw->streams[i]), "cudaStreamDestroy");
    for (int i = 0; i < 2; i++)
        must(cudaEventDestroy(raw->load_events[i]), "cudaEventDestroy");
    must(cudaFree(raw->wrong), "cudaFree");
    must(cudaFree(raw->pieces), "cudaFree");
    must(cudaFree(raw->load_memory), "cudaFree");
    if (raw->peer_memory)
        must(cudaIpcCloseMemHandle(raw->peer_memory), "cudaIpcCloseMemHandle");
    if (raw->peer_staging)
        must(cudaIpcCloseMemHandle(raw->peer_staging), "cudaIpcCloseMemHandle");
    free(raw);
}

/* ---- Lists ------------------------------------------------------------------------------------------------ */

static struct perf_copies upload(struct perf_raw *raw, const struct perf_copy *list, size_t count) {
    struct perf_copies copies = {.count = count};
    void *memory;
    must(cudaMalloc(&memory, count * sizeof *list), "cudaMalloc");
    must(cudaMemcpyAsync(memory, list, count * sizeof *list, cudaMemcpyHostToDevice, raw->streams[0]),
         "cudaMemcpyAsync");
    finish(raw, 1);
    copies.list = memory;
    for (size_t i = 0; i < count; i++)
        if (list[i].length > copies.longest)
            copies.longest = list[i].length;
    return copies;
}

static bool all_aligned(const struct perf_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        const struct perf_fragment *fragment = &list->fragments[i];
        if ((fragment->local | fragment->remote | fragment->length) % 16)
            return false;
    }
    return true;
}

/* In the measuring process: the whole list, as arrays and on the GPU. */
static void set_copies(struct perf_raw *raw, const struct perf_list *list) {
    struct perf_copy *copies = perf_alloc(list->count, sizeof *copies);
    raw->to = perf_alloc(list->count, sizeof *raw->to);
    raw->from = perf_alloc(list->count, sizeof *raw->from);
    raw->lengths = perf_alloc(list->count, sizeof *raw->lengths);
    for (size_t i = 0; i < list->count; i++) {
        const struct perf_fragment *fragment = &list->fragments[i];
        char *local = raw->memory + fragment->local, *remote = raw->peer_memory + fragment->remote;
        copies[i] = (struct perf_copy){raw->put ? remote : local, raw->put ? local : remote, fragment->length};
        raw->to[i] = copies[i].to;
        raw->from[i] = copies[i].from;
        raw->lengths[i] = copies[i].length;
    }
    raw->copies = upload(raw, copies, list->count);
    free(copies);
}

/* Between own memory and own staging, where the fragments follow each other. The source of the list gathers. */
static void set_staged_copies(struct perf_raw *raw, const struct perf_list *list) {
    const bool owner = !raw->peer_memory, gather = owner != raw->put;
    struct perf_copy *copies = perf_alloc(list->count, sizeof *copies);
    uint64_t at = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct perf_fragment *fragment = &list->fragments[i];
        char *scattered = raw->memory + (owner ? fragment->remote : fragment->local);
        char *staged = raw->staging + at;
        copies[i] = (struct perf_copy){gather ? staged : scattered, gather ? scattered : staged, fragment->length};
        at += fragment->length;
    }
    raw->staged_copies = upload(raw, copies, list->count);
    free(copies);
}

static void set_list(struct perf_raw *raw, const struct perf_list *list) {
    drop_list(raw);
    memset(raw->times, 0, sizeof raw->times);
    raw->put = list->spec.opcode == NVLX_OP_WRITE;
    raw->aligned = all_aligned(list);
    raw->count = list->count;
    raw->bytes = list->bytes;
    if (raw->peer_memory)
        set_copies(raw, list);
    if (raw->staging && list->bytes <= raw->staging_size)
        set_staged_copies(raw, list);
}

static const char *cannot(struct perf_raw *raw, enum perf_baseline baseline) {
    if ((baseline == PERF_KERNEL || baseline == PERF_STAGED) && !raw->aligned)
        return "its kernels copy multiples of 16 bytes only";
    if (baseline == PERF_STAGED && !raw->staged_copies.count)
        return "there is no staging memory for so much";
    return NULL;
}

/* ---- Moving ----------------------------------------------------------------------------------------------- */

static void submit_loop(struct perf_raw *raw) {
    for (size_t i = 0; i < raw->count; i++)
        must(cudaMemcpyPeerAsync(raw->to[i], raw->gpu, raw->from[i], raw->gpu, raw->lengths[i], raw->streams[0]),
             "cudaMemcpyPeerAsync");
}

static cudaError_t submit_part(struct perf_raw *raw, size_t first, size_t count, cudaStream_t stream) {
    struct cudaMemcpyAttributes attributes = {
        .srcAccessOrder = cudaMemcpySrcAccessOrderStream,
        .srcLocHint = {.type = cudaMemLocationTypeDevice, .id = raw->gpu},
        .dstLocHint = {.type = cudaMemLocationTypeDevice, .id = raw->gpu},
    };
    size_t index = 0;
    if (!count)
        return cudaSuccess;
#if CUDART_VERSION >= 13000
    return cudaMemcpyBatchAsync(raw->to + first, raw->from + first, raw->lengths + first, count, &attributes, &index, 1,
                                stream);
#else
    size_t failed;
    return cudaMemcpyBatchAsync(raw->to + first, (void **)raw->from + first, raw->lengths + first, count, &attributes,
                                &index, 1, &failed, stream);
#endif
}

static void submit_batches(struct perf_raw *raw, int streams) {
    for (int i = 0; i < streams; i++) {
        const size_t first = raw->count * (size_t)i / (size_t)streams;
        const size_t end = raw->count * (size_t)(i + 1) / (size_t)streams;
        must(submit_part(raw, first, end - first, raw->streams[i]), "cudaMemcpyBatchAsync");
    }
}

static void run(struct perf_raw *raw, enum perf_baseline baseline, const struct perf_choice *choice,
                struct perf_sample *sample) {
    const int streams = baseline == PERF_BATCH4 ? STREAMS : 1;
    perf_watch();
    const uint64_t begin = perf_now();
    if (baseline == PERF_LOOP)
        submit_loop(raw);
    else if (baseline == PERF_KERNEL)
        must(perf_cuda_copy(choice->kernel, choice->blocks, &raw->copies, raw->streams[0]), "a copy kernel");
    else
        submit_batches(raw, streams);
    const uint64_t submitted = perf_now();
    finish(raw, streams);
    sample->wall = (double)(perf_now() - begin);
    sample->submit = (double)(submitted - begin);
}

/* By warps for what is short, by blocks for the rest: within one GPU any kernel is faster than the link. */
static void run_staged_kernel(struct perf_raw *raw) {
    const int kernel = raw->staged_copies.longest <= 16384 ? 1 : 2;
    must(perf_cuda_copy(kernel, 2 * raw->sms, &raw->staged_copies, raw->streams[0]), "gathering or scattering");
}

static void copy_staging(struct perf_raw *raw) {
    char *own = raw->staging, *peers = raw->peer_staging;
    must(cudaMemcpyPeerAsync(raw->put ? peers : own, raw->gpu, raw->put ? own : peers, raw->gpu, raw->bytes,
                             raw->streams[0]),
         "cudaMemcpyPeerAsync");
}

static void stage(struct perf_raw *raw) {
    if (!raw->staged_copies.count)
        perf_die("the staged baseline has no list");
    perf_watch();
    if (raw->peer_memory && !raw->put)
        copy_staging(raw);
    run_staged_kernel(raw);
    if (raw->peer_memory && raw->put)
        copy_staging(raw);
    finish(raw, 1);
}

/* ---- The best kernel -------------------------------------------------------------------------------------- */

static int blocks_of(const struct perf_raw *raw, int index) {
    return index == COUNTS - 1 ? raw->sms : 1 << index;
}

/* The best of three; hopeless ones run once. */
static double time_of(struct perf_raw *raw, int kernel, int index, double best) {
    const struct perf_choice choice = {kernel, blocks_of(raw, index)};
    double *time = &raw->times[kernel][index];
    for (int i = 0; i < 3 && !(i && *time > 2 * best); i++) {
        struct perf_sample sample;
        run(raw, PERF_KERNEL, &choice, &sample);
        if (!*time || sample.wall < *time)
            *time = sample.wall;
    }
    return *time;
}

/* Not tried: fewer blocks than an eighth of those allowed. */
static struct perf_choice choose(struct perf_raw *raw, uint32_t sms) {
    const int most = sms && sms < (uint32_t)raw->sms ? (int)sms : raw->sms;
    struct perf_choice best = {0, 1};
    double best_time = 0;
    for (int index = COUNTS - 1; index >= 0; index--) {
        const int blocks = blocks_of(raw, index);
        if (blocks > most || blocks * 8 <= most)
            continue;
        for (int kernel = 0; kernel < perf_cuda_kernels(); kernel++) {
            if (!perf_cuda_kernel_runs(kernel, raw->major))
                continue;
            const double known = raw->times[kernel][index];
            const double time = known > 0 ? known : time_of(raw, kernel, index, best_time > 0 ? best_time : 1e18);
            if (best_time > 0 && time >= best_time)
                continue;
            best_time = time;
            best = (struct perf_choice){kernel, blocks};
        }
    }
    return best;
}

static void describe_choice(const struct perf_choice *choice, char *text, size_t size) {
    snprintf(text, size, "%s, %d blocks", perf_cuda_kernel_name(choice->kernel), choice->blocks);
}

/* ---- Content ---------------------------------------------------------------------------------------------- */

static void fill(struct perf_raw *raw, uint64_t seed) {
    must(perf_cuda_fill(raw->memory, raw->size, seed, raw->streams[0]), "filling memory");
    finish(raw, 1);
}

static void upload_pieces(struct perf_raw *raw, const struct perf_piece *pieces, size_t count) {
    if (count > raw->piece_room) {
        must(cudaFree(raw->pieces), "cudaFree");
        must(cudaMalloc((void **)&raw->pieces, count * sizeof *pieces), "cudaMalloc");
        raw->piece_room = count;
    }
    must(cudaMemcpyAsync(raw->pieces, pieces, count * sizeof *pieces, cudaMemcpyHostToDevice, raw->streams[0]),
         "cudaMemcpyAsync");
}

static void check(struct perf_raw *raw, const struct perf_piece *pieces, size_t count, struct perf_wrong *wrong) {
    unsigned long long result[2] = {0, ~0ull};
    cudaStream_t stream = raw->streams[0];
    if (!count)
        return;
    upload_pieces(raw, pieces, count);
    must(cudaMemcpyAsync(raw->wrong, result, sizeof result, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
    must(perf_cuda_check(raw->memory, raw->pieces, count, raw->wrong, stream), "checking memory");
    must(cudaMemcpyAsync(result, raw->wrong, sizeof result, cudaMemcpyDeviceToHost, stream), "cudaMemcpyAsync");
    finish(raw, 1);
    *wrong = (struct perf_wrong){result[0], result[1]};
}

/* ---- Work that computes ----------------------------------------------------------------------------------- */

static void load_prepare(struct perf_raw *raw, enum perf_load load) {
    raw->load = load;
    if (raw->load_memory)
        return;
    must(cudaMalloc(&raw->load_memory, LOAD_MEMORY), "cudaMalloc");
    must(cudaMemset(raw->load_memory, 0, LOAD_MEMORY), "cudaMemset");
    must(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

static void load_start(struct perf_raw *raw) {
    cudaStream_t stream = raw->streams[1];
    must(cudaEventRecord(raw->load_events[0], stream), "cudaEventRecord");
    must(perf_cuda_compute(raw->load, raw->load_memory, LOAD_MEMORY, raw->sms, stream), "a computing kernel");
    must(cudaEventRecord(raw->load_events[1], stream), "cudaEventRecord");
}

static bool load_runs(struct perf_raw *raw) {
    const cudaError_t error = cudaEventQuery(raw->load_events[1]);
    if (error != cudaErrorNotReady)
        must(error, "a computing kernel");
    return error == cudaErrorNotReady;
}

static double load_ns(struct perf_raw *raw) {
    float milliseconds;
    must(cudaEventSynchronize(raw->load_events[1]), "a computing kernel");
    must(cudaEventElapsedTime(&milliseconds, raw->load_events[0], raw->load_events[1]), "cudaEventElapsedTime");
    return 1e6 * (double)milliseconds;
}

const struct perf_raw_backend perf_raw_cuda = {
    .baseline_names = {[PERF_LOOP] = "loop",
                       [PERF_BATCH] = "batch",
                       [PERF_BATCH4] = "batch4",
                       [PERF_STAGED] = "staged",
                       [PERF_KERNEL] = "kernel"},
    .describe_gpu = describe_gpu,
    .describe_platform = describe_platform,
    .share = share,
    .open = raw_open,
    .close = raw_close,
    .set_list = set_list,
    .cannot = cannot,
    .choose = choose,
    .describe_choice = describe_choice,
    .run = run,
    .stage = stage,
    .fill = fill,
    .check = check,
    .load_prepare = load_prepare,
    .load_start = load_start,
    .load_runs = load_runs,
    .load_ns = load_ns,
};
