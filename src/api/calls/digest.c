/* The exported functions that digest memory. SPDX-License-Identifier: Apache-2.0 */
#include "api/engine.h"

#include <inttypes.h>

int nvlx_digest(struct nvlx_engine *engine, const void *address, size_t length, uint64_t *value) {
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(value, "value")))
        return code;
    if (length && (code = nvlxi_pointer_check(address, "address")))
        return code;
    return nvlxi_digest(&engine->digester, (uint64_t)(uintptr_t)address, length, value);
}

static int set_digest(struct nvlx_region *region, uint64_t *value) {
    uint64_t address, digest;
    uint32_t naps;
    int code = nvlxi_pointer_check(region, "region");
    if (code || (code = nvlxi_engine_check(region->engine)))
        return code;
    struct nvlx_engine *engine = region->engine;
    if (region->access == NVLX_ACCESS_NONE)
        return nvlxi_fail(NVLX_EINVAL, "the region at 0x%" PRIx64 " is private: no peer would be told its digest",
                          region->address);
    code = nvlxi_registration_find_awake(&engine->registration, region, &address, &naps);
    if (code)
        return code;
    const int failed = nvlxi_digest(&engine->digester, address, region->length, &digest);
    code = nvlxi_registration_set_digest(&engine->registration, region, naps, failed ? NULL : &digest);
    if (code || failed)
        return code ? code : failed; /* that it slept is why it failed */
    if (value)
        *value = digest;
    return 0;
}

int nvlx_region_set_digest(struct nvlx_region *region, uint64_t *value) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, set_digest(region, value));
}
