/* What kv_stream.c computes and checks with: kernels in streams on a GPU, or this CPU for the host backend.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef KV_STREAM_DEVICE_H
#define KV_STREAM_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The blocks of a request in one layer. Word w of its block number b has the value that KV_WORD gives. */
struct kv_layer {
    uint32_t *base;       /* block 0 of the layer */
    const uint32_t *ids;  /* of the request's blocks, in memory of the device */
    const uint64_t *pass; /* how many passes have begun, in memory of the device: a graph has other values each time */
    uint32_t blocks;      /* of the request */
    uint32_t words;       /* of a block, a multiple of 4 */
    uint32_t number;      /* of the layer */
};

/* Another one for each layer of each pass. Two seeds differ in every word. */
#define KV_SEED(layer)       ((uint32_t)(*(layer)->pass * 256 + (layer)->number))
#define KV_WORD(seed, index) ((uint32_t)(seed)*2654435761u + (uint32_t)(index)*40503u)

/* A stream is a cudaStream_t. It is NULL on the host, where each call is done when it returns. A call that fails says
 * why, and ends the process. */
struct kv_device {
    /* Chooses the GPU, and loads all kernels: behind a wait nothing may be loaded. */
    void (*open)(int gpu);
    void *(*stream)(bool urgent);
    /* How much work takes so many microseconds. */
    uint32_t (*work)(double us);
    /* One pass more has begun. */
    void (*begin_pass)(uint64_t *pass, void *stream);
    /* So much work, then the words of the layer. */
    void (*compute)(const struct kv_layer *layer, uint32_t work, void *stream);
    /* Adds the number of wrong words to *wrong, which is memory of the device. */
    void (*check)(const struct kv_layer *layer, unsigned long long *wrong, void *stream);
    /* What is put into `later` from now on comes after what is in `earlier`. */
    void (*order)(void *later, void *earlier);
    void (*synchronize)(void *stream);
    /* Graphs, NULL on the host. Between `capture` and `captured`, what goes into the stream, and into those that are
     * ordered behind it, becomes a graph. The last of them is to be ordered before the stream. */
    void (*capture)(void *stream);
    void *(*captured)(void *stream);
    void (*launch)(void *graph, void *stream);
    void (*forget)(void *graph);
};

extern const struct kv_device kv_host;
#ifdef KV_STREAM_CUDA
extern const struct kv_device kv_cuda;
#endif

#ifdef __cplusplus
}
#endif

#endif
