/* Threads of the plugin. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/worker.h"

#include <pthread.h>
#include <signal.h>

#include <utility>

namespace nvlx::nixl {

std::thread start_thread(const char *name, std::function<void()> function) {
    sigset_t all, old;
    sigfillset(&all);
    for (const int crash : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGTRAP, SIGSYS})
        sigdelset(&all, crash);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    std::thread thread;
    try {
        thread = std::thread(std::move(function));
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &old, nullptr);
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &old, nullptr);
    pthread_setname_np(thread.native_handle(), name);
    return thread;
}

void Worker::add(std::function<void()> work) {
    const std::lock_guard guard(mutex);
    if (!thread.joinable())
        thread = start_thread(name, [this] { run(); });
    queue.push_back(std::move(work));
    changed.notify_one();
}

void Worker::run() {
    std::unique_lock lock(mutex);
    for (;;) {
        changed.wait(lock, [this] { return ends || !queue.empty(); });
        if (queue.empty())
            return;
        {
            const std::function<void()> work = std::move(queue.front());
            queue.pop_front();
            lock.unlock();
            work();
        }
        lock.lock();
    }
}

void Worker::end() {
    {
        const std::lock_guard guard(mutex);
        ends = true;
        changed.notify_one();
    }
    if (thread.joinable())
        thread.join();
}

Worker::~Worker() {
    end();
}

} // namespace nvlx::nixl
