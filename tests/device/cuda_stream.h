/* What a test needs of a caller's CUDA stream, without CUDA's headers.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef CUDA_STREAM_H
#define CUDA_STREAM_H

#include <stddef.h>

/* Each returns NULL, or CUDA's words for what went wrong. The calling thread's current device stays as it was. */
const char *cuda_stream_make(int gpu, void **stream);
const char *cuda_stream_copy(void *stream, void *destination, const void *source, size_t length);
/* Waits for what is queued in it. */
const char *cuda_stream_destroy(void *stream);

#endif
