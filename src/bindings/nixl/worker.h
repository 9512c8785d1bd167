/* A thread that does what may wait, one piece of work after the other. SPDX-License-Identifier: Apache-2.0
 *
 * It starts with the first piece, and ends, with all that is left to do done, in end() or the destructor. */
#ifndef NVLX_BINDINGS_NIXL_WORKER_H
#define NVLX_BINDINGS_NIXL_WORKER_H

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace nvlx::nixl {

/* A thread of the library's kind: it blocks all signals, except those of a crash. */
std::thread start_thread(const char *name, std::function<void()> function);

class Worker {
  public:
    explicit Worker(const char *thread_name) : name(thread_name) {
    }
    Worker(const Worker &) = delete;
    Worker &operator=(const Worker &) = delete;
    ~Worker();

    void add(std::function<void()> work);
    void end(); /* nothing is added any more */
    /* The engine ends: work that others do better then asks for this, and does not do it. */
    void hurry() {
        hurries = true;
    }
    bool is_hurried() const {
        return hurries;
    }

  private:
    void run();

    const char *const name;
    std::mutex mutex; /* guards all below */
    std::condition_variable changed;
    std::deque<std::function<void()>> queue;
    std::thread thread;
    bool ends = false;
    std::atomic<bool> hurries{false};
};

} // namespace nvlx::nixl

#endif
