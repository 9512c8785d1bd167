/* The way to another engine of this plugin: a connection of the library. SPDX-License-Identifier: Apache-2.0
 *
 * NEW: nothing is known but the address. CONNECTED, from the first connect() that succeeds on: peer() is there. LOST:
 * the connection has ended, which peer() and the library tell; a Link that is lost stays so, and who wants the engine
 * again makes another. Closing may wait for the peer to take messages: so a Worker does it, once nobody holds the Link.
 * Where that hurries, the engine closes all its peers at once, which waits no longer for many than for one. */
#ifndef NVLX_BINDINGS_NIXL_PEERS_LINK_H
#define NVLX_BINDINGS_NIXL_PEERS_LINK_H

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "bindings/nixl/peers/mail.h"
#include "bindings/nixl/worker.h"
#include "nvlxfer.h"

namespace nvlx::nixl {

class Link {
  public:
    /* `closer` lives longer than what is returned. */
    static std::shared_ptr<Link> make(Worker &closer, nvlx_engine *engine, const std::string &address);
    Link(nvlx_engine *library, std::string served);
    Link(const Link &) = delete;
    Link &operator=(const Link &) = delete;
    ~Link();

    /* disconnected: nobody serves there, or not any more. Waits at most about that time, and for another thread's. */
    abi::Status connect(int64_t timeout_ns);
    /* The same, and says nothing: for who tries again. */
    abi::Status reach(int64_t timeout_ns);
    /* Of a Link that is connected. */
    nvlx_peer *peer() const {
        return found.load(std::memory_order_acquire);
    }
    bool lost() const;
    /* What a code of the library means, for this peer: gone, or only its memory. */
    abi::Status status_of(int code) const;

    /* From letter `*next` on, which it moves on. in_progress: as much is on its way as is allowed. */
    abi::Status send(const Letters &letters, size_t *next);
    /* A letter that goes before all later ones. */
    void owe(std::string &&letter);

    const std::string address;

  private:
    abi::Status send_one(const std::string &letter);
    abi::Status pay();

    nvlx_engine *const engine;
    std::mutex connecting; /* the turn of who connects */
    std::atomic<nvlx_peer *> found{nullptr};
    mutable std::atomic<bool> gone{false}; /* was seen to be lost */
    std::mutex owing;
    std::deque<std::string> owed; /* under `owing` */
};

} // namespace nvlx::nixl

#endif
