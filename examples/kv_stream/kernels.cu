/* The kernels of kv_stream.c. SPDX-License-Identifier: Apache-2.0 */
#include "device.h"

#include <cstdio>
#include <cstdlib>
#include <cuda_runtime_api.h>

namespace {

constexpr int THREADS = 256, RESIDENT = 8; // blocks that fill an SM
constexpr int CHAINS = 8, TURNS = 300;     // of multiplications: a block takes about 20 us beside 7 others
constexpr int CHECKING = 4;                // blocks for each SM: memory is the limit
constexpr uint32_t TRIED = 20;             // waves, to measure how long one takes

int sms;

void cuda(cudaError_t error, const char *what) {
    if (error != cudaSuccess) {
        fprintf(stderr, "kv_stream: %s: %s\n", what, cudaGetErrorString(error));
        exit(1);
    }
}
#define CUDA(call) cuda(call, #call)

__device__ uint32_t *place(const kv_layer &layer, size_t index) {
    return layer.base + size_t(layer.ids[index / layer.words]) * layer.words + index % layer.words;
}

__global__ void begin_pass_kernel(uint64_t *pass) {
    ++*pass;
}

/* Each block works, then writes its share of the layer, as far as there are words. */
__global__ void compute_kernel(kv_layer layer) {
    float value[CHAINS];
    for (int k = 0; k < CHAINS; k++)
        value[k] = static_cast<float>(threadIdx.x + k);
    for (int i = 0; i < TURNS; i++)
#pragma unroll
        for (int k = 0; k < CHAINS; k++)
            value[k] = value[k] * 0.999f + 0.5f;
    float sum = 0;
    for (int k = 0; k < CHAINS; k++)
        sum += value[k];
    const size_t words = size_t(layer.blocks) * layer.words;
    const uint32_t none = sum < 0;                     // never, which the compiler does not know
    const uint32_t seed = words ? KV_SEED(&layer) : 0; // without words there is no pass
    for (size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 4; i < words; i += size_t(gridDim.x) * THREADS * 4) {
        const uint32_t at = static_cast<uint32_t>(i);
        *reinterpret_cast<uint4 *>(place(layer, i)) =
            make_uint4(KV_WORD(seed, at) + none, KV_WORD(seed, at + 1), KV_WORD(seed, at + 2), KV_WORD(seed, at + 3));
    }
}

__global__ void check_kernel(kv_layer layer, unsigned long long *wrong) {
    const size_t words = size_t(layer.blocks) * layer.words;
    const uint32_t seed = KV_SEED(&layer);
    unsigned long long mine = 0;
    for (size_t i = (size_t(blockIdx.x) * THREADS + threadIdx.x) * 4; i < words; i += size_t(gridDim.x) * THREADS * 4) {
        const uint4 seen = *reinterpret_cast<const uint4 *>(place(layer, i));
        const uint32_t at = static_cast<uint32_t>(i);
        mine += (seen.x != KV_WORD(seed, at)) + (seen.y != KV_WORD(seed, at + 1)) + (seen.z != KV_WORD(seed, at + 2)) +
                (seen.w != KV_WORD(seed, at + 3));
    }
    if (mine)
        atomicAdd(wrong, mine);
}

void open_gpu(int gpu) {
    cudaFuncAttributes attributes;
    CUDA(cudaSetDevice(gpu));
    CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, gpu));
    CUDA(cudaFuncGetAttributes(&attributes, begin_pass_kernel));
    CUDA(cudaFuncGetAttributes(&attributes, compute_kernel));
    CUDA(cudaFuncGetAttributes(&attributes, check_kernel));
}

void *make_stream(bool urgent) {
    int least, greatest;
    cudaStream_t stream;
    CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, urgent ? greatest : least));
    return stream;
}

void begin_pass(uint64_t *pass, void *stream) {
    begin_pass_kernel<<<1, 1, 0, static_cast<cudaStream_t>(stream)>>>(pass);
    CUDA(cudaGetLastError());
}

/* `work` is waves of blocks, each of which fills the GPU. */
void compute(const kv_layer *layer, uint32_t work, void *stream) {
    compute_kernel<<<sms * RESIDENT * work, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(*layer);
    CUDA(cudaGetLastError());
}

uint32_t work_for(double us) {
    const kv_layer nothing = {};
    cudaEvent_t begin, end;
    float ms;
    CUDA(cudaEventCreate(&begin));
    CUDA(cudaEventCreate(&end));
    for (int turn = 0; turn < 2; turn++) { // the first one wakes the GPU
        CUDA(cudaEventRecord(begin, cudaStreamPerThread));
        for (int i = 0; i < 100; i++)
            compute(&nothing, TRIED, cudaStreamPerThread);
        CUDA(cudaEventRecord(end, cudaStreamPerThread));
        CUDA(cudaEventSynchronize(end));
    }
    CUDA(cudaEventElapsedTime(&ms, begin, end));
    CUDA(cudaEventDestroy(begin));
    CUDA(cudaEventDestroy(end));
    const double waves = us / (ms * 1000 / 100 / TRIED);
    return waves < 1 ? 1 : static_cast<uint32_t>(waves + 0.5);
}

void check(const kv_layer *layer, unsigned long long *wrong, void *stream) {
    check_kernel<<<sms * CHECKING, THREADS, 0, static_cast<cudaStream_t>(stream)>>>(*layer, wrong);
    CUDA(cudaGetLastError());
}

void in_order(void *later, void *earlier) {
    cudaEvent_t event;
    CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    CUDA(cudaEventRecord(event, static_cast<cudaStream_t>(earlier)));
    CUDA(cudaStreamWaitEvent(static_cast<cudaStream_t>(later), event, 0));
    CUDA(cudaEventDestroy(event)); // CUDA keeps it until it is passed
}

void synchronize(void *stream) {
    CUDA(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)));
}

void capture(void *stream) {
    CUDA(cudaStreamBeginCapture(static_cast<cudaStream_t>(stream), cudaStreamCaptureModeThreadLocal));
}

void *captured(void *stream) {
    cudaGraph_t graph;
    cudaGraphExec_t made;
    CUDA(cudaStreamEndCapture(static_cast<cudaStream_t>(stream), &graph));
    CUDA(cudaGraphInstantiate(&made, graph, cudaGraphInstantiateFlagUseNodePriority));
    CUDA(cudaGraphDestroy(graph));
    CUDA(cudaGraphUpload(made, static_cast<cudaStream_t>(stream)));
    synchronize(stream);
    return made;
}

void launch(void *graph, void *stream) {
    CUDA(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), static_cast<cudaStream_t>(stream)));
}

void forget(void *graph) {
    CUDA(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
}

} // namespace

const kv_device kv_cuda = {open_gpu, make_stream, work_for, begin_pass, compute, check,
                           in_order, synchronize, capture,  captured,   launch,  forget};
