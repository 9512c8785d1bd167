/* DRAM that GPUs copy. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/ranges.h"

#include "bindings/nixl/say.h"

namespace nvlx::nixl {

abi::Status Mine::lend(nvlx_engine *engine) {
    nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.access = NVLX_ACCESS_NONE;
    const std::lock_guard guard(lending);
    if (region)
        return abi::Status::success;
    const auto *address = reinterpret_cast<const void *>(range.address);
    return status_of(nvlx_register(engine, address, range.length, &options, &region));
}

nvlx_region *Mine::lent() {
    const std::lock_guard guard(lending);
    return region;
}

} // namespace nvlx::nixl
