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
