/* What a test needs of a caller's CUDA stream, and of pinned host memory, without CUDA's headers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef CUDA_STREAM_H
#define CUDA_STREAM_H

#include <stddef.h>

/* Each returns NULL, or CUDA's words for what went wrong. The calling thread's current device stays as it was. */
const char *cuda_stream_make(int gpu, void **stream);
const char *cuda_stream_copy(void *stream, void *destination, const void *source, size_t length);
/* Waits for what is queued in it. */
const char *cuda_stream_destroy(void *stream);

/* Pinned memory of GPU 0: by cudaHostAlloc, or by cudaHostRegister of what is there. */
const char *cuda_host_alloc(size_t length, void **address);
const char *cuda_host_free(void *address);
const char *cuda_host_register(void *address, size_t length);
const char *cuda_host_unregister(void *address);

#endif
