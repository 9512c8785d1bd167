/* Ranges that NIXL was given: this process's, and peers'. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLX_BINDINGS_NIXL_RANGES_H
#define NVLX_BINDINGS_NIXL_RANGES_H

#include <memory>
#include <optional>

#include "bindings/nixl/peers/card.h"
#include "bindings/nixl/peers/dram.h"
#include "bindings/nixl/peers/link.h"

namespace nvlx::nixl {

/* REGISTERED: register_memory has returned it. WITHDRAWN, from the first deregister_memory on: no transfer may use it.
 * It is freed when nobody uses it any more; where that takes longer than withdraw_ms, deregister_memory says so. */
struct Mine : abi::Region {
    RegionCard card;
    abi::Range range;
    std::string text;
    nvlx_region *region = nullptr; /* of VRAM */
    std::optional<Dram> dram;
};

/* A peer that metadata was loaded of. Transfers keep it, and with it the Link, until they are released or revoked. */
struct Peer {
    std::string name;
    std::shared_ptr<Link> link;
};

struct Theirs : abi::Region {
    RegionCard card;
    abi::Range range;
};

} // namespace nvlx::nixl

#endif
