/* A caller's CUDA stream, for the tests: see cuda_stream.h. Built only with the cuda backend.
 * SPDX-License-Identifier: Apache-2.0 */
#include "cuda_stream.h"

#include <cuda_runtime_api.h>

static const char *words(cudaError_t error) {
    return error == cudaSuccess ? NULL : cudaGetErrorString(error);
}

const char *cuda_stream_make(int gpu, void **stream) {
    int before;
    cudaStream_t made;
    cudaError_t error = cudaGetDevice(&before);
    if (error == cudaSuccess)
        error = cudaSetDevice(gpu);
    if (error != cudaSuccess)
        return words(error);
    error = cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
    cudaError_t back = cudaSetDevice(before);
    if (error == cudaSuccess)
        *stream = made;
    return words(error == cudaSuccess ? back : error);
}

const char *cuda_stream_copy(void *stream, void *destination, const void *source, size_t length) {
    return words(cudaMemcpyAsync(destination, source, length, cudaMemcpyDefault, stream));
}

const char *cuda_stream_destroy(void *stream) {
    cudaError_t error = cudaStreamSynchronize(stream);
    cudaError_t destroyed = cudaStreamDestroy(stream);
    return words(error == cudaSuccess ? destroyed : error);
}

/* With GPU 0 current. */
static int begin_on_first(void) {
    int before = 0;
    cudaGetDevice(&before);
    cudaSetDevice(0);
    return before;
}

static const char *end_on(int before, cudaError_t error) {
    cudaSetDevice(before);
    return words(error);
}

const char *cuda_host_alloc(size_t length, void **address) {
    const int before = begin_on_first();
    return end_on(before, cudaHostAlloc(address, length, cudaHostAllocDefault));
}

const char *cuda_host_free(void *address) {
    return words(cudaFreeHost(address));
}

const char *cuda_host_register(void *address, size_t length) {
    const int before = begin_on_first();
    return end_on(before, cudaHostRegister(address, length, cudaHostRegisterDefault));
}

const char *cuda_host_unregister(void *address) {
    return words(cudaHostUnregister(address));
}
