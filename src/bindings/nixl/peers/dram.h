/* DRAM of this process that was registered. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLX_BINDINGS_NIXL_PEERS_DRAM_H
#define NVLX_BINDINGS_NIXL_PEERS_DRAM_H

#include <mutex>

#include "bindings/nixl/abi.h"
#include "nvlxfer.h"

namespace nvlx::nixl {

/* All of it by any thread. */
class Dram {
  public:
    explicit Dram(const abi::Range &all) : range(all) {
    }
    Dram(const Dram &) = delete;
    Dram &operator=(const Dram &) = delete;

    /* Lets GPUs of this process at it: the library gets it as the local side of transfers, with the first list that has
     * VRAM on the other side. What is not pinned is refused; the library logs it. */
    abi::Status lend(nvlx_engine *engine);
    /* What the library has of it: NULL before that. */
    nvlx_region *lent();

    const abi::Range range;

  private:
    std::mutex mutex;
    nvlx_region *region = nullptr; /* under it */
};

} // namespace nvlx::nixl

#endif
