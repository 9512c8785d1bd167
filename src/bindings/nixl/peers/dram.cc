/* Lends DRAM to the library. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/peers/dram.h"

#include "bindings/nixl/say.h"

namespace nvlx::nixl {

abi::Status Dram::lend(nvlx_engine *engine) {
    nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.access = NVLX_ACCESS_NONE;
    const std::lock_guard guard(mutex);
    if (region)
        return abi::Status::success;
    return status_of(
        nvlx_register(engine, reinterpret_cast<const void *>(range.address), range.length, &options, &region));
}

nvlx_region *Dram::lent() {
    const std::lock_guard guard(mutex);
    return region;
}

} // namespace nvlx::nixl
