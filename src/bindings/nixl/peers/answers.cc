/* Sends answers, again and again. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/peers/answers.h"

#include <algorithm>
#include <system_error>

#include "bindings/nixl/process.h"
#include "bindings/nixl/say.h"

namespace nvlx::nixl {

/* Until one is tried again: an eighth of the time for which it was tried, within these. */
static constexpr std::chrono::nanoseconds shortest = std::chrono::milliseconds(20), longest = std::chrono::seconds(1);
static constexpr std::chrono::nanoseconds attempt = shortest; /* to connect: an asker serves before it asks */

Answers::Answers(nvlx_engine *library, Worker &links_closer, int64_t timeout_ns)
    : engine(library), closer(links_closer), timeout(timeout_ns) {
}

Answers::~Answers() {
    {
        const std::lock_guard guard(mutex);
        ends = true;
        ending.notify_all();
    }
    for (const auto &[address, asker] : askers)
        if (asker->thread.joinable())
            asker->thread.join();
}

void Answers::send(int64_t pid, const std::string &address, std::string &&letter) {
    const std::lock_guard guard(mutex);
    for (const auto &[known, left] : askers)
        if (!left->busy && !left->waiting.empty()) /* no thread could be started */
            start(*left);
    Asker &asker = find(pid, address);
    asker.waiting.push_back({std::move(letter), Clock::now() + timeout});
    if (!asker.busy && !flush(asker))
        start(asker);
}

Answers::Way Answers::way_to(const Copy &copy) {
    const std::lock_guard guard(mutex);
    Asker &asker = find(copy.pid, copy.address);
    if (!asker.busy && asker.link->lost())
        asker.link = Link::make(closer, engine, asker.address);
    return {asker.link, copy.came > asker.silent && !is_gone(copy.pid)};
}

void Answers::was_silent(const Copy &copy) {
    const std::lock_guard guard(mutex);
    find(copy.pid, copy.address).silent = Clock::now();
}

/* Those that are lost go before another comes. */
Answers::Asker &Answers::find(int64_t pid, const std::string &address) {
    const auto known = askers.find(address);
    if (known != askers.end())
        return *known->second;
    forget_lost();
    return *(askers[address] =
                 std::make_unique<Asker>(Asker{address, pid, Link::make(closer, engine, address), {}, {}, false, {}}));
}

void Answers::forget_lost() {
    std::erase_if(askers, [](const auto &entry) {
        Asker &asker = *entry.second;
        if (asker.busy || (asker.link->peer() && !asker.link->lost()))
            return false;
        if (asker.thread.joinable())
            asker.thread.join();
        return true;
    });
}

void Answers::start(Asker &asker) {
    if (asker.thread.joinable()) /* it is not busy: it ends */
        asker.thread.join();
    try {
        asker.thread = start_thread("nvlx-nixl-reply", [this, &asker] { deliver(asker); });
        asker.busy = true;                /* the thread takes the mutex first */
    } catch (const std::system_error &) { /* there are no more: at once, or with the next answer to anybody */
        if (asker.link->reach(attempt.count()) == abi::Status::success)
            flush(asker);
    }
}

/* The thread of one who could not be told at once. */
void Answers::deliver(Asker &asker) {
    std::unique_lock lock(mutex);
    auto begin = Clock::now(); /* of tries in vain */
    while (!asker.waiting.empty()) {
        if (asker.link->lost())
            asker.link = Link::make(closer, engine, asker.address);
        const std::shared_ptr<Link> link = asker.link;
        lock.unlock();
        const bool reached = link->reach(attempt.count()) == abi::Status::success;
        lock.lock();
        const size_t before = asker.waiting.size();
        if (reached && flush(asker))
            break;
        if (asker.waiting.size() < before)
            begin = Clock::now();
        drop(asker);
        if (ends)
            break;
        const std::chrono::nanoseconds tried = Clock::now() - begin;
        ending.wait_for(lock, std::clamp(tried / 8, shortest, longest), [this] { return ends; });
    }
    asker.busy = false;
}

/* Under the mutex. False: some are left. */
bool Answers::flush(Asker &asker) {
    for (; !asker.waiting.empty(); asker.waiting.pop_front()) {
        size_t next = 0;
        if (!asker.link->peer() || asker.link->send({asker.waiting.front().letter}, &next) != abi::Status::success)
            return false;
    }
    return true;
}

/* Under the mutex: what nobody waits for any more. */
void Answers::drop(Asker &asker) {
    if (is_gone(asker.pid))
        asker.waiting.clear();
    for (; !asker.waiting.empty() && asker.waiting.front().late < Clock::now(); asker.waiting.pop_front())
        say("the agent at '%s' does not take the answer to its copy of DRAM", asker.address.c_str());
}

} // namespace nvlx::nixl
