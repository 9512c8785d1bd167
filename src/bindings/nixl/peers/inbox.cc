/* Reads events, and sorts what has come. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/peers/inbox.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "bindings/nixl/peers/copier.h"
#include "bindings/nixl/say.h"

namespace nvlx::nixl {

Inbox::~Inbox() {
    stop();
}

bool Inbox::start(nvlx_engine *library, Copier &dram) {
    engine = library;
    copier = &dram;
    stop_fd = eventfd(0, EFD_CLOEXEC);
    if (stop_fd < 0) {
        say("no file is left for an inbox: %s", strerror(errno));
        return false;
    }
    if (nvlx_event_fd(engine, &event_fd))
        return false;
    thread = start_thread("nvlx-nixl-inbox", [this] { run(); });
    return true;
}

void Inbox::stop() {
    if (thread.joinable()) {
        eventfd_write(stop_fd, 1);
        thread.join();
    }
    if (stop_fd >= 0)
        close(stop_fd);
    stop_fd = -1;
}

void Inbox::run() {
    pollfd fds[2] = {{event_fd, POLLIN, 0}, {stop_fd, POLLIN, 0}};
    while (!fds[1].revents) {
        if (poll(fds, 2, assembly.empty() ? -1 : 1000) < 0 && errno != EINTR) {
            say("events cannot be waited for any more: %s", strerror(errno));
            return;
        }
        if (fds[0].revents)
            drain();
        sweep();
    }
}

/* Once a second, as long as there are halves of notices. */
void Inbox::sweep() {
    const auto now = std::chrono::steady_clock::now();
    if (assembly.empty() || now < next_sweep)
        return;
    assembly.sweep();
    next_sweep = now + std::chrono::seconds(1);
}

void Inbox::drain() {
    nvlx_event event;
    event.size = sizeof event;
    while (!nvlx_next_event(engine, &event))
        if (event.kind == NVLX_EVENT_MESSAGE)
            read(event);
}

void Inbox::read(const nvlx_event &event) {
    const std::string_view letter(static_cast<const char *>(event.message), event.message_length);
    std::string_view text, body;
    MailHead head;
    Notice notice;
    Copy copy;
    if (!open_letter(letter, head, text, body))
        return say("process %lld has sent what is no letter of this plugin", static_cast<long long>(event.pid));
    switch (head.kind) {
    case MailKind::notice:
    case MailKind::rest:
        if (!assembly.take({event.pid, event.engine}, head, text, body, notice))
            break;
        if (notice.job)
            copier->take(std::move(notice));
        else
            add(std::move(notice));
        break;
    case MailKind::copy:
        if (read_copy(head, text, body, copy)) {
            copy.pid = event.pid;
            copier->take(std::move(copy));
        }
        break;
    case MailKind::result:
        finish(head.job, static_cast<abi::Status>(head.status));
        break;
    case MailKind::drop:
        assembly.drop(head.number);
        break;
    }
}

void Inbox::add(Notice &&notice) {
    const std::lock_guard guard(mutex);
    notices.emplace_back(std::move(notice.agent), std::move(notice.message));
}

void Inbox::take(abi::Notices &all) {
    const std::lock_guard guard(mutex);
    for (auto &notice : notices)
        all.push_back(std::move(notice));
    notices.clear();
}

std::shared_ptr<Job> Inbox::new_job() {
    auto job = std::make_shared<Job>();
    const std::lock_guard guard(mutex);
    jobs[job->number] = job;
    return job;
}

void Inbox::forget(const Job &job) {
    const std::lock_guard guard(mutex);
    jobs.erase(job.number);
}

void Inbox::finish(uint64_t number, abi::Status status) {
    const std::lock_guard guard(mutex);
    const auto job = jobs.find(number);
    if (job == jobs.end())
        return;
    job->second->status.store(status);
    jobs.erase(job);
}

} // namespace nvlx::nixl
