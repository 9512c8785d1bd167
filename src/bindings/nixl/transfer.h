/* Requests: a list that was prepared, and what becomes of it. SPDX-License-Identifier: Apache-2.0
 *
 * IDLE: prepared; may be posted. ACTIVE: posted, and not seen complete: neither posted again nor released (`active`).
 * Then IDLE again, whatever has come of it. A copy of DRAM that was not answered in time is told as failed, and stays
 * ACTIVE for who wants its memory back: the peer may still copy. REVOKED: its peer was removed, or memory of this
 * process that it uses was deregistered. It is not posted any more, and lets go of all once its last post is seen to
 * have ended: by who asks, or by whoever makes the next request. NIXL may release it later, in any thread. A released
 * request has ended: one that has not is kept, and says so. */
#ifndef NVLX_BINDINGS_NIXL_TRANSFER_H
#define NVLX_BINDINGS_NIXL_TRANSFER_H

#include <chrono>
#include <memory>
#include <mutex>

#include "bindings/nixl/peers/inbox.h"
#include "bindings/nixl/ranges.h"

namespace nvlx::nixl {

using Clock = std::chrono::steady_clock;

/* What all requests of an agent need. */
struct Surroundings {
    nvlx_engine *engine;
    Inbox &inbox;
    std::string agent;
    std::string address; /* at which it serves */
    int64_t connect_ns, answer_ns;
};

struct Lists {
    abi::Operation operation;
    const abi::Pieces &mine;
    const abi::Pieces &theirs;
};

class Transfer : public abi::Request {
  public:
    Transfer(const Surroundings &surroundings, std::shared_ptr<Peer> other);
    Transfer(const Transfer &) = delete;
    Transfer &operator=(const Transfer &) = delete;
    ~Transfer() override;

    /* Once, before all else. */
    abi::Status prepare(const Lists &lists);

    abi::Status post(const std::string *message);
    abi::Status check();
    /* For its release. The first time it does not wait, then up to `patience`. NIXL does not release it again after
     * two times, or once it has failed. */
    enum class End { ended, refused, abandoned }; /* refused: the first time; abandoned: it is still ACTIVE */
    End end(Clock::duration patience);
    /* Revokes it, and lets go of all if it has ended, or ends before the deadline: false if not. */
    bool revoke(Clock::time_point deadline);

    bool uses(const Mine &range) const;
    bool uses(const Peer &other) const {
        return whose == &other;
    }

  private:
    abi::Status lend(const abi::Pieces &pieces) const;
    abi::Status prepare_vram(const Lists &lists);
    abi::Status prepare_dram(const Lists &lists);
    abi::Status look_up(const std::vector<const Theirs *> &ranges, uint64_t *generation) const;
    abi::Status post_vram(const std::string *message);
    abi::Status post_dram(const std::string *message);
    abi::Status advance();
    abi::Status advance_vram();
    abi::Status advance_dram();
    void give_up(abi::Status why);
    abi::Status overdue();
    bool is_active() const;
    void let_go();

    const Surroundings &around;
    std::vector<const Mine *> mine; /* in order, each once; compared only */
    const Peer *const whose;        /* compared only */
    std::mutex mutex;               /* guards all below */
    std::shared_ptr<Peer> peer;     /* until it was let go */
    bool revoked = false;
    bool refused = false;                       /* to be released */
    abi::Status failure = abi::Status::success; /* of the last post, as far as it is known while that is ACTIVE */
    /* VRAM of the peer */
    nvlx_prepared *prepared = nullptr;
    bool moves = false; /* it has at least one byte */
    nvlx_request *request = nullptr;
    /* DRAM of the peer */
    Copy copy{};
    std::shared_ptr<Job> job;
    Clock::time_point due; /* when it shall be answered */
    bool late = false;     /* that it was not was told, as its failure. It is ACTIVE all the same: the peer may copy */
    /* What of the last post was not sent yet: beyond what may be under way to a peer. */
    Letters letters;
    size_t next_letter = 0;
    uint64_t notice = 0;           /* its number, of the message */
    size_t copy_letters_in_it = 0; /* the first ones */
    bool ending = false;           /* what is left is the word that no more of the copy comes */
};

} // namespace nvlx::nixl

#endif
