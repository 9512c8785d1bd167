/* Gates of streams' waits: see gates.h. SPDX-License-Identifier: Apache-2.0 */
#include "lifetime/gates.h"

#include "base/error.h"

#define GATE_BYTES sizeof(uint64_t)

static int make(const struct nvlxi_context *context, int gpu, uint64_t *base) {
    static const uint64_t closed[NVLXI_GATES];
    const struct nvlxi_alloc alloc = {.gpu = gpu, .length = sizeof closed, .kind = NVLXI_KIND_CUDA_MALLOC};
    void *made;
    int code = context->ops->alloc(context->device, &alloc, &made);
    if (code)
        return code;
    if ((code = context->ops->memcpy(context->device, made, closed, sizeof closed)))
        context->ops->free(context->device, made);
    else
        *base = (uint64_t)(uintptr_t)made;
    return code;
}

static int make_once(struct nvlxi_gates *gates, pthread_mutex_t *mutex, const struct nvlxi_context *context, int gpu) {
    uint64_t made = 0;
    pthread_mutex_lock(mutex);
    const bool missing = !gates->base;
    pthread_mutex_unlock(mutex);
    int code = missing ? make(context, gpu, &made) : 0;
    pthread_mutex_lock(mutex);
    if (!gates->base) {
        gates->base = made;
        made = 0;
    }
    pthread_mutex_unlock(mutex);
    if (made)
        context->ops->free(context->device, (void *)(uintptr_t)made);
    return code;
}

int nvlxi_gate_take(struct nvlxi_gates *gates, pthread_mutex_t *mutex, const struct nvlxi_context *context, int gpu,
                    uint64_t *gate) {
    int code = make_once(gates, mutex, context, gpu);
    if (code)
        return code;
    pthread_mutex_lock(mutex);
    const int place = __builtin_ffs((int)~gates->taken) - 1;
    if (place >= 0)
        gates->taken |= UINT32_C(1) << place;
    pthread_mutex_unlock(mutex);
    if (place < 0)
        return NVLX_EBUSY;
    *gate = gates->base + (unsigned)place * GATE_BYTES;
    return 0;
}

void nvlxi_gate_drop(struct nvlxi_gates *gates, uint64_t gate) {
    if (gate)
        gates->taken &= ~(UINT32_C(1) << (gate - gates->base) / GATE_BYTES);
}

void nvlxi_gates_free(struct nvlxi_gates *gates, const struct nvlxi_context *context) {
    if (gates->base)
        context->ops->free(context->device, (void *)(uintptr_t)gates->base);
    gates->base = 0;
}
