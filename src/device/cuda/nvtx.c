/* Draws ranges with NVTX, in a domain "nvlxfer". SPDX-License-Identifier: Apache-2.0 */
#include "device/cuda/nvtx.h"

#include <nvtx3/nvToolsExt.h>

#include "base/trace.h"

static const char *const names[NVLXI_TRACES] = {"register", "map", "validate", "submit", "transfer", "close"};

static nvtxDomainHandle_t domain; /* set before the tracer */

/* A profiler copies what it needs during the call. */
static nvtxEventAttributes_t describe(enum nvlxi_range_name name, uint64_t size) {
    nvtxEventAttributes_t event = {.version = NVTX_VERSION, .size = NVTX_EVENT_ATTRIB_STRUCT_SIZE};
    event.payloadType = NVTX_PAYLOAD_TYPE_UNSIGNED_INT64;
    event.payload.ullValue = size;
    event.messageType = NVTX_MESSAGE_TYPE_ASCII;
    event.message.ascii = names[name];
    return event;
}

static void begin(enum nvlxi_range_name name, uint64_t size) {
    const nvtxEventAttributes_t event = describe(name, size);
    nvtxDomainRangePushEx(domain, &event);
}

static void end(void) {
    nvtxDomainRangePop(domain);
}

/* Who gives no number to a range cannot stop it. */
static uint64_t start(enum nvlxi_range_name name, uint64_t size) {
    const nvtxEventAttributes_t event = describe(name, size);
    return nvtxDomainRangeStartEx(domain, &event);
}

static void stop(uint64_t range) {
    nvtxDomainRangeEnd(domain, range);
}

/* The first one looks: without a profiler, NVTX gives no domain. */
void nvlxi_nvtx_open(void) {
    static atomic_flag looked = ATOMIC_FLAG_INIT;
    static const struct nvlxi_tracer tracer = {begin, end, start, stop};
    if (atomic_flag_test_and_set(&looked))
        return;
    domain = nvtxDomainCreateA("nvlxfer");
    if (domain)
        atomic_store_explicit(&nvlxi_tracer, &tracer, memory_order_release);
}
