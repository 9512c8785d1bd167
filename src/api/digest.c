/* The exported function that digests memory. SPDX-License-Identifier: Apache-2.0 */
#include "api/engine.h"

int nvlx_digest(struct nvlx_engine *engine, const void *address, size_t length, uint64_t *value) {
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(value, "value")))
        return code;
    if (length && (code = nvlxi_pointer_check(address, "address")))
        return code;
    return nvlxi_digest(&engine->digester, (uint64_t)(uintptr_t)address, length, value);
}
