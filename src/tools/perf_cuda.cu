/* nvlx_perf: the raw side on CUDA: the runtime's own calls, and plain copy kernels.
 *
 * The other process's memory is opened by its IPC handle with this process's own GPU current: there is no ordinal of
 * the other GPU here that would mean it. It is the mapping that the library has too: the driver counts openings.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cuda/ptx>
#include <fstream>
#include <string>
#include <vector>

#include "common/clock.h"
#include "perf.h"

namespace {

namespace ptx = cuda::ptx;

/* An entry of a list that kernels copy; all three are multiples of 16. */
struct Copy {
    char *to;
    const char *from;
    uint64_t length;
};

/* ---- Copy kernels ----------------------------------------------------------------------------------------- */

constexpr uint32_t warp_threads = 32;

/* 16 bytes at a time, up to `deep` loads of each of `threads` threads in flight; also of the rest, which for a short
 * fragment is all. */
template <int deep>
__device__ __forceinline__ void copy_range(char *to, const char *from, uint32_t length, uint32_t thread,
                                           uint32_t threads) {
    uint4 *d = reinterpret_cast<uint4 *>(to);
    const uint4 *s = reinterpret_cast<const uint4 *>(from);
    const uint32_t count = length / sizeof(uint4);
    uint4 held[deep];
    uint32_t i = thread;
    for (; i + (deep - 1) * threads < count; i += deep * threads) {
#pragma unroll
        for (int k = 0; k < deep; k++)
            held[k] = __ldcs(s + i + k * threads);
#pragma unroll
        for (int k = 0; k < deep; k++)
            __stcs(d + i + k * threads, held[k]);
    }
#pragma unroll
    for (int k = 0; k < deep; k++)
        if (i + k * threads < count)
            held[k] = __ldcs(s + i + k * threads);
#pragma unroll
    for (int k = 0; k < deep; k++)
        if (i + k * threads < count)
            __stcs(d + i + k * threads, held[k]);
}

/* The work of all copy kernels: fragment w / per, of it the piece w % per, which may lie behind the end of a short one.
 */
struct Piece {
    char *to;
    const char *from;
    uint32_t length;
};

__device__ __forceinline__ Piece piece_of(const Copy *list, uint64_t per, uint64_t piece, uint64_t work) {
    const uint64_t i = per == 1 ? work : work / per, begin = (work - i * per) * piece;
    const Copy copy = list[i];
    if (begin >= copy.length)
        return {nullptr, nullptr, 0};
    const uint64_t left = copy.length - begin;
    return {copy.to + begin, copy.from + begin, static_cast<uint32_t>(left < piece ? left : piece)};
}

/* A warp a piece; the next piece is looked up while this one is copied. */
template <int threads, int piece>
__global__ void __launch_bounds__(threads) copy_by_warps(const Copy *list, uint64_t count, uint64_t per) {
    const uint64_t all = count * per, step = uint64_t(gridDim.x) * (threads / warp_threads);
    uint64_t work = blockIdx.x * uint64_t(threads / warp_threads) + threadIdx.x / warp_threads;
    Piece next = work < all ? piece_of(list, per, piece, work) : Piece{nullptr, nullptr, 0};
    for (; work < all; work += step) {
        const Piece now = next;
        if (work + step < all)
            next = piece_of(list, per, piece, work + step);
        copy_range<4>(now.to, now.from, now.length, threadIdx.x % warp_threads, warp_threads);
    }
}

/* A block a piece. */
template <int threads, int deep, int piece>
__global__ void __launch_bounds__(threads) copy_by_blocks(const Copy *list, uint64_t count, uint64_t per) {
    const uint64_t all = count * per;
    for (uint64_t work = blockIdx.x; work < all; work += gridDim.x) {
        const Piece now = piece_of(list, per, piece, work);
        copy_range<deep>(now.to, now.from, now.length, threadIdx.x, threads);
    }
}

/* ---- Bulk copies: one thread of a block keeps a ring of pieces in shared memory full -------------------------- */

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
/* Goes through a block's pieces, past those that are empty; at the end one of no length. */
struct Walk {
    const Copy *list;
    uint64_t per, piece, work, all;

    __device__ __forceinline__ Piece next() {
        Piece found = {nullptr, nullptr, 0};
        for (; work < all && found.length == 0; work += gridDim.x)
            found = piece_of(list, per, piece, work);
        return found;
    }
};
#endif

/* `slots` pieces in the ring; half of them may be on their way in, and half on their way out. */
template <int piece, int slots>
__global__ void __launch_bounds__(warp_threads) copy_in_bulk(const Copy *list, uint64_t count, uint64_t per) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    constexpr int out = slots / 2;
    extern __shared__ __align__(128) char ring[];
    __shared__ __align__(8) uint64_t barriers[slots];
    if (threadIdx.x)
        return;
    for (uint64_t &barrier : barriers)
        ptx::mbarrier_init(&barrier, 1);
    ptx::fence_proxy_async(ptx::space_shared);
    Walk loads = {list, per, piece, blockIdx.x, count * per}, stores = loads;
    Piece loading = loads.next();
    uint32_t loaded = 0, stored = 0;
    for (Piece storing = stores.next(); storing.length; storing = stores.next(), stored++) {
        for (; loading.length && loaded < stored + slots - out; loading = loads.next(), loaded++) {
            uint64_t *barrier = &barriers[loaded % slots];
            /* The slot's last piece was stored before the latest `out`: all except those have been read by then. */
            if (loaded >= slots)
                ptx::cp_async_bulk_wait_group_read(ptx::n32_t<out>());
            ptx::mbarrier_arrive_expect_tx(ptx::sem_release, ptx::scope_cta, ptx::space_shared, barrier,
                                           loading.length);
            ptx::cp_async_bulk(ptx::space_cluster, ptx::space_global, ring + loaded % slots * piece, loading.from,
                               loading.length, barrier);
        }
        while (!ptx::mbarrier_try_wait_parity(&barriers[stored % slots], stored / slots % 2))
            ;
        ptx::cp_async_bulk(ptx::space_global, ptx::space_shared, storing.to, ring + stored % slots * piece,
                           storing.length);
        ptx::cp_async_bulk_commit_group();
    }
    ptx::cp_async_bulk_wait_group(ptx::n32_t<0>());
#endif
}

struct Kernel {
    const char *name;
    void (*function)(const Copy *list, uint64_t count, uint64_t per);
    uint64_t piece;
    int threads, shared; /* shared memory: of those in bulk, which need compute capability 9 */
};

constexpr int KIB = 1024;
const Kernel kernels[] = {
    {"warp a fragment", copy_by_warps<512, 16 * KIB>, 16 * KIB, 512, 0},
    {"warp a fragment, 32 warps", copy_by_warps<1024, 16 * KIB>, 16 * KIB, 1024, 0},
    {"block a fragment", copy_by_blocks<1024, 4, 64 * KIB>, 64 * KIB, 1024, 0},
    {"block a fragment, 8 deep", copy_by_blocks<1024, 8, 128 * KIB>, 128 * KIB, 1024, 0},
    {"bulk 1K", copy_in_bulk<1 * KIB, 128>, 1 * KIB, warp_threads, 128 * KIB},
    {"bulk 4K", copy_in_bulk<4 * KIB, 48>, 4 * KIB, warp_threads, 192 * KIB},
    {"bulk 8K", copy_in_bulk<8 * KIB, 24>, 8 * KIB, warp_threads, 192 * KIB},
    {"bulk 16K", copy_in_bulk<16 * KIB, 12>, 16 * KIB, warp_threads, 192 * KIB},
};
constexpr int kernel_count = PERF_ENTRIES(kernels);

/* ---- Content ---------------------------------------------------------------------------------------------- */

constexpr uint32_t plain_threads = 256;

__global__ void __launch_bounds__(plain_threads) fill_words(uint64_t *words, uint64_t count, uint64_t seed) {
    const uint64_t step = uint64_t(gridDim.x) * plain_threads;
    for (uint64_t i = uint64_t(blockIdx.x) * plain_threads + threadIdx.x; i < count; i += step)
        words[i] = perf_word(seed, i);
}

/* Some blocks an arrival. */
__global__ void __launch_bounds__(plain_threads) overwrite(char *bytes, const perf_arrival *arrivals, uint64_t seed) {
    const perf_arrival arrival = arrivals[blockIdx.x];
    const uint64_t step = uint64_t(gridDim.y) * plain_threads;
    for (uint64_t i = uint64_t(blockIdx.y) * plain_threads + threadIdx.x; i < arrival.length; i += step)
        bytes[arrival.at + i] = static_cast<char>(perf_byte(seed, arrival.from + i));
}

/* Adds the number of wrong bytes to result[0], and lowers result[1] to the offset of the first. */
__global__ void __launch_bounds__(plain_threads)
    compare(const char *found, const char *expected, uint64_t size, unsigned long long *result) {
    const uint64_t step = uint64_t(gridDim.x) * plain_threads;
    for (uint64_t i = uint64_t(blockIdx.x) * plain_threads + threadIdx.x; i < size; i += step)
        if (found[i] != expected[i]) {
            atomicAdd(&result[0], 1ull);
            atomicMin(&result[1], static_cast<unsigned long long>(i));
        }
}

/* ---- What is open ----------------------------------------------------------------------------------------- */

constexpr int streams_max = 4;

#define MUST(call) must(call, #call)

void must(cudaError_t error, const char *what) {
    if (error != cudaSuccess)
        perf_die("%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

void *allocate(size_t size) {
    void *memory = nullptr;
    MUST(cudaMalloc(&memory, size));
    return memory;
}

template <typename T> T *upload(const T *from, size_t count) {
    void *memory = allocate(count * sizeof(T));
    MUST(cudaMemcpy(memory, from, count * sizeof(T), cudaMemcpyHostToDevice));
    return static_cast<T *>(memory);
}

/* A list on the GPU. */
struct Copies {
    Copy *list;
    uint64_t count, longest;
};

/* This process's, of its one end. */
struct {
    char *peer_memory, *peer_staging; /* NULL: none */
    int sms, major;
    cudaStream_t streams[streams_max];
    std::vector<void *> to, from; /* the list, for copy engines; in the owner none */
    std::vector<size_t> lengths;
    Copies copies, staged; /* for kernels: between both memories; between own memory and own staging */
} raw;

void finish(int streams) {
    for (int i = 0; i < streams; i++)
        MUST(cudaStreamSynchronize(raw.streams[i]));
}

void lend(const perf_end *end, perf_lent *lent) {
    perf_machine *machine = &lent->machine;
    cudaDeviceProp properties;
    int runtime, driver;
    *lent = perf_lent();
    static_assert(sizeof(cudaIpcMemHandle_t) == sizeof lent->memory, "a handle of CUDA's size");
    MUST(cudaSetDevice(end->gpu));
    MUST(cudaGetDeviceProperties(&properties, end->gpu));
    MUST(cudaRuntimeGetVersion(&runtime));
    MUST(cudaDriverGetVersion(&driver));
    snprintf(machine->gpu, sizeof machine->gpu, "%.63s", properties.name);
    snprintf(machine->cuda, sizeof machine->cuda, "%d.%d", runtime / 1000, runtime % 1000 / 10);
    snprintf(machine->driver_cuda, sizeof machine->driver_cuda, "%d.%d", driver / 1000, driver % 1000 / 10);
    std::ifstream file("/proc/driver/nvidia/version"); /* among other words, "580.95.05" */
    for (std::string word; *machine->driver == 0 && file >> word;)
        if (isdigit(word[0]) != 0 && word.find('.') != std::string::npos)
            snprintf(machine->driver, sizeof machine->driver, "%s", word.c_str());
    MUST(cudaIpcGetMemHandle(reinterpret_cast<cudaIpcMemHandle_t *>(lent->memory), end->memory));
    if (end->staging != nullptr)
        MUST(cudaIpcGetMemHandle(reinterpret_cast<cudaIpcMemHandle_t *>(lent->staging), end->staging));
}

char *open_handle(const unsigned char *handle) {
    void *memory;
    MUST(cudaIpcOpenMemHandle(&memory, *reinterpret_cast<const cudaIpcMemHandle_t *>(handle),
                              cudaIpcMemLazyEnablePeerAccess));
    return static_cast<char *>(memory);
}

bool runs(const Kernel &kernel) {
    return kernel.shared == 0 || raw.major >= 9;
}

void borrow(const perf_end *end, const perf_lent *peer) {
    MUST(cudaSetDevice(end->gpu));
    MUST(cudaDeviceGetAttribute(&raw.sms, cudaDevAttrMultiProcessorCount, end->gpu));
    MUST(cudaDeviceGetAttribute(&raw.major, cudaDevAttrComputeCapabilityMajor, end->gpu));
    for (const Kernel &kernel : kernels) { /* loaded now, so that no launch that is timed does it */
        cudaFuncAttributes attributes;
        MUST(cudaFuncGetAttributes(&attributes, kernel.function));
        if (runs(kernel))
            MUST(cudaFuncSetAttribute(kernel.function, cudaFuncAttributeMaxDynamicSharedMemorySize, kernel.shared));
    }
    for (cudaStream_t &stream : raw.streams)
        MUST(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    if (peer != nullptr)
        raw.peer_memory = open_handle(peer->memory);
    if (peer != nullptr && end->staging != nullptr)
        raw.peer_staging = open_handle(peer->staging);
}

/* What is not the other process's ends with this one. */
void give_back() {
    for (char *memory : {raw.peer_memory, raw.peer_staging})
        if (memory != nullptr)
            MUST(cudaIpcCloseMemHandle(memory));
}

/* ---- Lists ------------------------------------------------------------------------------------------------ */

void set_copies(Copies *copies, const std::vector<Copy> &list) {
    MUST(cudaFree(copies->list));
    *copies = {list.empty() ? nullptr : upload(list.data(), list.size()), list.size(), 0};
    for (const Copy &copy : list)
        copies->longest = std::max(copies->longest, copy.length);
}

/* In staging the fragments follow each other. The source of the list gathers. */
void set_list(const perf_end *end) {
    const perf_list *list = end->list;
    const bool owner = raw.peer_memory == nullptr, put = list->spec.opcode == NVLX_OP_WRITE, gather = owner != put;
    char *stage = list->bytes <= end->staging_size ? end->staging : nullptr;
    std::vector<Copy> copies, staged;
    raw.to.clear();
    raw.from.clear();
    raw.lengths.clear();
    for (size_t i = 0; i < list->count; i++) {
        const perf_fragment &fragment = list->fragments[i];
        const uint64_t length = fragment.length;
        char *own = end->memory + (owner ? fragment.remote : fragment.local);
        if (!owner) {
            char *peers = raw.peer_memory + fragment.remote;
            copies.push_back(put ? Copy{peers, own, length} : Copy{own, peers, length});
            raw.to.push_back(put ? peers : own);
            raw.from.push_back(put ? own : peers);
            raw.lengths.push_back(length);
        }
        if (stage != nullptr) {
            staged.push_back(gather ? Copy{stage, own, length} : Copy{own, stage, length});
            stage += length;
        }
    }
    set_copies(&raw.copies, copies);
    set_copies(&raw.staged, staged);
}

/* ---- Moving ----------------------------------------------------------------------------------------------- */

void launch(const Kernel &kernel, int blocks, const Copies &copies, cudaStream_t stream) {
    const uint64_t per = (copies.longest + kernel.piece - 1) / kernel.piece;
    kernel.function<<<blocks, kernel.threads, kernel.shared, stream>>>(copies.list, copies.count, per);
    MUST(cudaGetLastError());
}

void submit_loop(const perf_end *end) {
    const int gpu = end->gpu;
    for (size_t i = 0; i < raw.to.size(); i++)
        MUST(cudaMemcpyPeerAsync(raw.to[i], gpu, raw.from[i], gpu, raw.lengths[i], raw.streams[0]));
}

void submit_batch(const perf_end *end, size_t first, size_t count, cudaStream_t stream) {
    cudaMemcpyAttributes attributes = {};
    size_t index = 0;
    attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
    attributes.srcLocHint = attributes.dstLocHint = {cudaMemLocationTypeDevice, end->gpu};
    if (count == 0)
        return;
#if CUDART_VERSION >= 13000
    MUST(cudaMemcpyBatchAsync(&raw.to[first], &raw.from[first], &raw.lengths[first], count, &attributes, &index, 1,
                              stream));
#else
    size_t failed;
    MUST(cudaMemcpyBatchAsync(&raw.to[first], &raw.from[first], &raw.lengths[first], count, &attributes, &index, 1,
                              &failed, stream));
#endif
}

/* All rows, or each block: the distance of the first two fragments is that of all. */
void submit_2d(const perf_end *end) {
    const size_t count = raw.to.size(), rows = end->list->id_count ? count / end->list->id_count : count;
    const size_t to = rows > 1 ? static_cast<char *>(raw.to[1]) - static_cast<char *>(raw.to[0]) : raw.lengths[0];
    const size_t from =
        rows > 1 ? static_cast<const char *>(raw.from[1]) - static_cast<const char *>(raw.from[0]) : raw.lengths[0];
    for (size_t i = 0; i < count; i += rows)
        MUST(cudaMemcpy2DAsync(raw.to[i], to, raw.from[i], from, raw.lengths[i], rows, cudaMemcpyDefault,
                               raw.streams[0]));
}

void run(const perf_end *end, perf_way way, const perf_choice *choice, perf_sample *sample) {
    const int streams = way == PERF_BATCH4 ? streams_max : 1;
    const size_t count = raw.to.size();
    const uint64_t begin = clock_now_ns();
    if (way == PERF_LOOP)
        submit_loop(end);
    else if (way == PERF_2D)
        submit_2d(end);
    else if (way == PERF_KERNEL)
        launch(kernels[choice->kernel], choice->blocks, raw.copies, raw.streams[0]);
    else
        for (int i = 0; i < streams; i++)
            submit_batch(end, count * i / streams, count * (i + 1) / streams - count * i / streams, raw.streams[i]);
    const uint64_t submitted = clock_now_ns();
    finish(streams);
    sample->wall = static_cast<double>(clock_now_ns() - begin);
    sample->submit = static_cast<double>(submitted - begin);
}

/* By warps for what is short, by blocks for the rest: within one GPU any kernel is faster than the link. */
void stage(const perf_end *end) {
    const bool put = end->list->spec.opcode == NVLX_OP_WRITE, measuring = raw.peer_memory != nullptr;
    char *to = put ? raw.peer_staging : end->staging, *from = put ? end->staging : raw.peer_staging;
    const Kernel &kernel = kernels[raw.staged.longest <= 16 * KIB ? 1 : 2];
    if (measuring && !put)
        MUST(cudaMemcpyPeerAsync(to, end->gpu, from, end->gpu, end->list->bytes, raw.streams[0]));
    launch(kernel, 2 * raw.sms, raw.staged, raw.streams[0]);
    if (measuring && put)
        MUST(cudaMemcpyPeerAsync(to, end->gpu, from, end->gpu, end->list->bytes, raw.streams[0]));
    finish(1);
}

/* The best of three; hopeless ones run once. */
double time_of(const perf_end *end, const perf_choice &choice, double best) {
    double time = 1e18;
    for (int i = 0; i < 3 && (i == 0 || time <= 2 * best); i++) {
        perf_sample sample;
        run(end, PERF_KERNEL, &choice, &sample);
        time = std::min(time, sample.wall);
    }
    return time;
}

/* Tried: as many blocks as are allowed, if that is the number of SMs; and powers of two, but none below an eighth. */
perf_choice choose(const perf_end *end, uint32_t sms) {
    const int most = sms != 0 ? std::min(static_cast<int>(sms), raw.sms) : raw.sms;
    perf_choice best = {0, 1, ""};
    double best_time = 1e18;
    for (int index = 7; index >= 0; index--) {
        const int blocks = index == 7 ? raw.sms : 1 << index;
        for (int kernel = 0; kernel < kernel_count && blocks <= most && blocks * 8 > most; kernel++) {
            const perf_choice choice = {kernel, blocks, ""};
            const double time = runs(kernels[kernel]) ? time_of(end, choice, best_time) : 1e18;
            if (time < best_time)
                best = choice;
            best_time = std::min(best_time, time);
        }
    }
    snprintf(best.name, sizeof best.name, "%s, %d blocks", kernels[best.kernel].name, best.blocks);
    return best;
}

/* ---- Content --------------------------------------------------------------------------------------------- */

void fill_memory(void *memory, uint64_t size, uint64_t seed) {
    fill_words<<<1024, plain_threads, 0, raw.streams[0]>>>(static_cast<uint64_t *>(memory), size / 8, seed);
    MUST(cudaGetLastError());
}

void fill(const perf_end *end, uint64_t seed) {
    fill_memory(end->memory, end->size, seed);
    finish(1);
}

/* With as much memory again, for what is expected. */
void check(const perf_end *end, const perf_content *content, perf_wrong *wrong) {
    const unsigned long long none[2] = {0, ~0ull};
    unsigned long long result[2], *on_gpu = upload(none, 2);
    perf_arrival *arrivals = upload(content->arrivals, content->count);
    char *expected = static_cast<char *>(allocate(end->size));
    fill_memory(expected, end->size, content->seed);
    if (content->count != 0)
        overwrite<<<dim3(static_cast<unsigned>(content->count), 16), plain_threads, 0, raw.streams[0]>>>(
            expected, arrivals, content->arrived_seed);
    compare<<<1024, plain_threads, 0, raw.streams[0]>>>(end->memory, expected, end->size, on_gpu);
    MUST(cudaGetLastError());
    finish(1);
    MUST(cudaMemcpy(result, on_gpu, sizeof result, cudaMemcpyDeviceToHost));
    MUST(cudaFree(expected));
    MUST(cudaFree(arrivals));
    MUST(cudaFree(on_gpu));
    *wrong = {result[0], result[1]};
}

} // namespace

const perf_raw_backend perf_raw_cuda = {
    false, (1u << PERF_WAYS) - (1u << PERF_LOOP), "loop", lend, run, fill, check, borrow, give_back, set_list, choose,
    stage};
