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
 * to who asks. A list of several letters is as many transfers: where there is room, each is started before the one
 * before it is waited for.
 *
 * One thread copies for all who ask an owner, one letter after the other: between DRAM some GB/s. An asker that is
 * stopped before it is connected holds up others for connect_ms, and for 10 s where its memory takes file descriptors
 * and is not mapped yet. It does so once: what else it has asked for by then, and cannot be had without it, fails at
 * once. */
#ifndef NVLX_BINDINGS_NIXL_PEERS_COPIER_H
#define NVLX_BINDINGS_NIXL_PEERS_COPIER_H

#include <atomic>
#include <chrono>
#include <condition_variable>
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
    /* What has come is done yet, unless it would have to wait for who asks. */
    ~Copier();

    /* This process's DRAM, which the caller keeps until it was withdrawn. */
    void add(uint64_t region, Dram &dram);
    /* Waits for what is being copied between DRAM. For a transfer of the region that is being started it waits up to
     * the deadline: false if it still is. Of one that was started the library knows. */
    bool withdraw(uint64_t region, std::chrono::steady_clock::time_point deadline);

    /* Letters of peers, in their order: from one thread. */
    void take(Copy &&copy);
    void take(Notice &&notice); /* of a copy: delivered if that has not failed */

  private:
    using Clock = std::chrono::steady_clock;
    /* A transfer for a peer, started for a letter after which more of its job come. If none comes, as its asker is
     * gone, it stays until the next letter of anybody: it keeps no memory, but the connection. */
    struct Carried {
        uint64_t job = 0;
        std::shared_ptr<Link> link;
        std::unique_ptr<nvlx_request, int (*)(nvlx_request *)> request{nullptr, nvlx_request_free};
    };
    void serve(const Copy &copy);
    void settle();
    void note(uint64_t job, abi::Status status);
    abi::Status known(uint64_t job) const;
    abi::Status copy_all(const Copy &copy);
    abi::Status copy_some(const Copy &copy, size_t *op, uint64_t *offset);
    abi::Status copy_vram(const Copy &copy);
    abi::Status begin_vram(const Copy &copy, const Answers::Way &way, nvlx_request **request);
    abi::Status start_vram(const Copy &copy, const Answers::Way &way, nvlx_request **request);
    int transfer(const std::vector<nvlx_op> &ops, const nvlx_transfer_options &options, nvlx_request **request);
    abi::Status hold(const Copy &copy);
    void let_go();
    Dram *find(const CopyOp &op, uint64_t offset) const;

    nvlx_engine *const engine;
    const Patience patience;
    const std::function<void(Notice &&)> deliver;
    std::atomic<bool> ends{false};
    std::shared_mutex mutex; /* guards `regions` and `held`. Shared while something is copied between DRAM */
    std::condition_variable_any changed; /* nothing is held any more */
    std::unordered_map<uint64_t, Dram *> regions;
    std::unordered_map<uint64_t, Dram *> held; /* the worker starts a transfer of them, without the lock */
    /* The worker's own: */
    std::unordered_map<uint64_t, abi::Status> failed; /* jobs, until their last letter */
    Carried carried;
    Clock::duration settling{}; /* time in settle() */
    Answers answers;
    Worker worker{"nvlx-nixl-copy"}; /* the first to go */
};

} // namespace nvlx::nixl

#endif
