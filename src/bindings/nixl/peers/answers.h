/* The way back to agents that have asked for copies. An answer stays here until it is queued for its asker.
 * SPDX-License-Identifier: Apache-2.0
 *
 * An asker that is connected, and takes it, has it at once. For each of the others a thread tries again: one that is
 * stopped, full or dead holds up no other. It tries less and less often, since the library may log each failed try. It
 * gives up when the asker's process is gone, or after answer_ms: by then the asker has given up, too. */
#ifndef NVLX_BINDINGS_NIXL_PEERS_ANSWERS_H
#define NVLX_BINDINGS_NIXL_PEERS_ANSWERS_H

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "bindings/nixl/peers/link.h"

namespace nvlx::nixl {

class Answers {
  public:
    Answers(nvlx_engine *library, Worker &links_closer, int64_t timeout_ns);
    Answers(const Answers &) = delete;
    Answers &operator=(const Answers &) = delete;
    ~Answers(); /* each thread tries once more */

    /* From one thread. It does not wait, unless no thread can be started: then a moment. `pid`: whose it is, 0 if that
     * is not known. */
    void send(int64_t pid, const std::string &address, std::string &&letter);
    /* To who asks, which may have to be connected yet. From the same thread. `waits`: it may be waited for. Not one
     * that is gone, nor one that was silent since it has sent this: so it holds up others once, whatever it has asked
     * for. */
    struct Way {
        std::shared_ptr<Link> link;
        bool waits;
    };
    Way way_to(const Copy &copy);
    void was_silent(const Copy &copy); /* who asks, until now */

  private:
    using Clock = std::chrono::steady_clock;
    struct Answer {
        std::string letter;
        Clock::time_point late; /* from then on */
    };
    struct Asker {
        std::string address;
        int64_t pid;
        std::shared_ptr<Link> link;
        std::deque<Answer> waiting; /* in their order */
        std::thread thread;
        bool busy;                /* the thread runs */
        Clock::time_point silent; /* until then, as far as is known */
    };

    Asker &find(int64_t pid, const std::string &address);
    void forget_lost();
    void start(Asker &asker);
    void deliver(Asker &asker);
    bool flush(Asker &asker);
    void drop(Asker &asker);

    nvlx_engine *const engine;
    Worker &closer;
    const std::chrono::nanoseconds timeout;
    std::mutex mutex; /* guards all below */
    std::condition_variable ending;
    bool ends = false;
    std::unordered_map<std::string, std::unique_ptr<Asker>> askers; /* by address */
};

} // namespace nvlx::nixl

#endif
