/* What comes from peers: one thread reads the engine's events, so that they never wait for NIXL to ask.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Notices are kept until NIXL takes them, as many as come: NIXL has no limit either. Copies go to the Copier, and
 * results to the Job that waits for one. */
#ifndef NVLX_BINDINGS_NIXL_PEERS_INBOX_H
#define NVLX_BINDINGS_NIXL_PEERS_INBOX_H

#include <atomic>
#include <memory>
#include <thread>

#include "bindings/nixl/peers/mail.h"
#include "nvlxfer.h"

namespace nvlx::nixl {

class Copier;

/* A copy that a peer was asked for. */
struct Job {
    const uint64_t number = unique_number();
    std::atomic<abi::Status> status{abi::Status::in_progress};
};

class Inbox {
  public:
    Inbox() = default;
    Inbox(const Inbox &) = delete;
    Inbox &operator=(const Inbox &) = delete;
    ~Inbox();

    /* Once. Both are there until stop. */
    bool start(nvlx_engine *library, Copier &dram);
    void stop();

    void add(Notice &&notice);
    void take(abi::Notices &all);

    std::shared_ptr<Job> new_job();
    void forget(const Job &job);

  private:
    void run();
    void drain();
    void sweep();
    void read(const nvlx_event &event);
    void finish(uint64_t number, abi::Status status);

    nvlx_engine *engine = nullptr;
    Copier *copier = nullptr;
    int event_fd = -1, stop_fd = -1;
    std::thread thread;
    Assembly assembly; /* the thread's own */
    std::chrono::steady_clock::time_point next_sweep;
    std::mutex mutex; /* guards all below */
    abi::Notices notices;
    std::unordered_map<uint64_t, std::shared_ptr<Job>> jobs;
};

} // namespace nvlx::nixl

#endif
