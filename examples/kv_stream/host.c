/* The host backend's memory is this process's own: the CPU computes and checks. SPDX-License-Identifier: Apache-2.0 */
#include "device.h"

#include <stddef.h>

static void nothing_to_open(int gpu) {
    (void)gpu;
}

static void *no_stream(bool urgent) {
    (void)urgent;
    return NULL;
}

static uint32_t no_work(double us) {
    (void)us;
    return 0;
}

static uint32_t *block(const struct kv_layer *layer, uint32_t number) {
    return layer->base + (size_t)layer->ids[number] * layer->words;
}

static void begin_pass(uint64_t *pass, void *stream) {
    (void)stream;
    ++*pass;
}

static void compute(const struct kv_layer *layer, uint32_t work, void *stream) {
    const uint32_t seed = KV_SEED(layer);
    (void)work, (void)stream;
    for (uint32_t b = 0; b < layer->blocks; b++)
        for (uint32_t w = 0; w < layer->words; w++)
            block(layer, b)[w] = KV_WORD(seed, b * layer->words + w);
}

static void check(const struct kv_layer *layer, unsigned long long *wrong, void *stream) {
    const uint32_t seed = KV_SEED(layer);
    (void)stream;
    for (uint32_t b = 0; b < layer->blocks; b++)
        for (uint32_t w = 0; w < layer->words; w++)
            *wrong += block(layer, b)[w] != KV_WORD(seed, b * layer->words + w);
}

static void in_order(void *later, void *earlier) {
    (void)later, (void)earlier;
}

static void nothing_left(void *stream) {
    (void)stream;
}

const struct kv_device kv_host = {.open = nothing_to_open,
                                  .stream = no_stream,
                                  .work = no_work,
                                  .begin_pass = begin_pass,
                                  .compute = compute,
                                  .check = check,
                                  .order = in_order,
                                  .synchronize = nothing_left};
