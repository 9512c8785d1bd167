/* DRAM of a peer: its owner copies. SPDX-License-Identifier: Apache-2.0
 *
 * Who wants to read or write a peer's DRAM asks for it by a letter. The owner's worker looks up each region by its ID
 * and checks the bounds. It copies between its own memory and that of the process that asks, and answers. So it knows
 * what is registered: what was withdrawn is not touched any more, and withdrawing waits for what is being copied.
 *
 * DRAM on both sides: by process_vm_writev and _readv. The other process is named by the kernel's word for the
 * connection that the letter came by. Both processes must see each other in one PID namespace, and be of one user.
 * Where the kernel has Yama (ptrace_scope 1), who registers DRAM lets others at its memory (PR_SET_PTRACER), unless
 * NVLX_NIXL_TRACED=0.
 *
 * VRAM on the asker's side: by a transfer of the library's, whose local side the DRAM is, so pinned. The owner connects
 * to who asks.
 *
 * One thread copies for all who ask an owner, one letter after the other: between DRAM some GB/s. An asker that is
 * stopped before it is connected holds up others for connect_ms, once. */
#ifndef NVLX_BINDINGS_NIXL_PEERS_COPIER_H
#define NVLX_BINDINGS_NIXL_PEERS_COPIER_H

#include <functional>
#include <memory>
#include <shared_mutex>

#include "bindings/nixl/peers/answers.h"
#include "bindings/nixl/peers/dram.h"
#include "bindings/nixl/peers/mail.h"
#include "bindings/nixl/worker.h"

struct iovec;

namespace nvlx::nixl {

class Copier {
  public:
    struct Patience {
        int64_t connect_ns, answer_ns;
    };
    Copier(nvlx_engine *library, Worker &links_closer, const Patience &with_askers,
           std::function<void(Notice &&)> function);

    /* This process's DRAM. withdraw waits for what is being copied between DRAM. Of what was lent to the library, the
     * library knows what is being copied. */
    void add(uint64_t region, Dram &dram);
    void withdraw(uint64_t region);

    /* Letters of peers, in their order: from one thread. */
    void take(Copy &&copy);
    void take(Notice &&notice); /* of a copy: delivered if that has not failed */

  private:
    void serve(const Copy &copy);
    abi::Status copy_all(const Copy &copy);
    abi::Status copy_some(const Copy &copy, size_t *op, uint64_t *offset);
    abi::Status copy_vram(const Copy &copy);
    abi::Status start_vram(const Copy &copy, nvlx_peer *peer, nvlx_request **request);
    Dram *find(const CopyOp &op, uint64_t offset) const;

    nvlx_engine *const engine;
    const Patience patience;
    const std::function<void(Notice &&)> deliver;
    std::shared_mutex mutex; /* `regions`. Shared while something is copied, or started */
    std::unordered_map<uint64_t, Dram *> regions;
    /* The worker's own: */
    std::unordered_map<uint64_t, abi::Status> failed; /* jobs, until their last letter */
    Answers answers;
    Worker worker{"nvlx-nixl-copy"}; /* the first to go */
};

} // namespace nvlx::nixl

#endif
