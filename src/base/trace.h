/* Ranges of time for profilers: nothing happens unless one looks.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Who can draw ranges sets the tracer, once, when an engine is made (device/cuda/nvtx.h). Without one each range costs
 * a load and a branch that is not taken. */
#ifndef NVLXI_BASE_TRACE_H
#define NVLXI_BASE_TRACE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/base.h"

enum nvlxi_range_name {                       /* and what its size is */
                        NVLXI_TRACE_REGISTER, /* bytes */
                        NVLXI_TRACE_MAP,      /* bytes */
                        NVLXI_TRACE_VALIDATE, /* ops */
                        NVLXI_TRACE_SUBMIT,   /* ops */
                        NVLXI_TRACE_TRANSFER, /* bytes */
                        NVLXI_TRACE_CLOSE,    /* bytes of a mapping */
                        NVLXI_TRACES
};

struct nvlxi_tracer {
    void (*begin)(enum nvlxi_range_name name, uint64_t size); /* of this thread; they nest */
    void (*end)(void);
    uint64_t (*start)(enum nvlxi_range_name name, uint64_t size); /* of no thread; not 0 */
    void (*stop)(uint64_t range);
};

extern _Atomic(const struct nvlxi_tracer *) nvlxi_tracer; /* NULL, or one for ever */

static inline const struct nvlxi_tracer *nvlxi_trace_looks(void) {
    return atomic_load_explicit(&nvlxi_tracer, memory_order_acquire);
}

/* What it returns is for nvlxi_trace_end, by the same thread. */
static inline bool nvlxi_trace_begin(enum nvlxi_range_name name, uint64_t size) {
    const struct nvlxi_tracer *tracer = nvlxi_trace_looks();
    if (nvlxi_likely(!tracer))
        return false;
    tracer->begin(name, size);
    return true;
}

static inline void nvlxi_trace_end(bool begun) {
    if (nvlxi_unlikely(begun))
        nvlxi_trace_looks()->end();
}

/* The same of a range that another thread may stop. 0: there is none. */
static inline uint64_t nvlxi_trace_start(enum nvlxi_range_name name, uint64_t size) {
    const struct nvlxi_tracer *tracer = nvlxi_trace_looks();
    return nvlxi_likely(!tracer) ? 0 : tracer->start(name, size);
}

static inline void nvlxi_trace_stop(uint64_t range) {
    if (nvlxi_unlikely(range != 0))
        nvlxi_trace_looks()->stop(range);
}

#endif
