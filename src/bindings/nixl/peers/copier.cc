/* Copies between the DRAM of this process and memory of one that asks for it. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/peers/copier.h"

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>

#include "bindings/nixl/say.h"

namespace nvlx::nixl {

static constexpr size_t batch_vectors = 512;       /* of one call; the kernel takes 1,024 */
static constexpr uint64_t batch_bytes = 32u << 20; /* after which who withdraws may have the lock */
static constexpr int64_t silent_ns = 1000000000;   /* what fails later than that has waited for who asks */

Copier::Copier(nvlx_engine *library, Worker &links_closer, const Patience &with_askers,
               std::function<void(Notice &&)> function)
    : engine(library), patience(with_askers), deliver(std::move(function)),
      answers(library, links_closer, with_askers.answer_ns) {
}

Copier::~Copier() {
    ends = true;
}

void Copier::add(uint64_t region, Dram &dram) {
    const std::unique_lock lock(mutex);
    regions[region] = &dram;
}

bool Copier::withdraw(uint64_t region, Clock::time_point deadline) {
    std::unique_lock lock(mutex);
    regions.erase(region);
    return changed.wait_until(lock, deadline, [&] { return !held.contains(region); });
}

void Copier::take(Copy &&copy) {
    copy.came = Clock::now();
    worker.add([this, copy = std::move(copy)] { serve(copy); });
}

void Copier::take(Notice &&notice) {
    worker.add([this, notice = std::move(notice)]() mutable {
        if (!failed.erase(notice.job))
            deliver(std::move(notice));
    });
}

/* Of a job the first failure counts. */
void Copier::note(uint64_t job, abi::Status status) {
    if (status != abi::Status::success)
        failed.try_emplace(job, status);
}

abi::Status Copier::known(uint64_t job) const {
    const auto failure = failed.find(job);
    return failure == failed.end() ? abi::Status::success : failure->second;
}

void Copier::serve(const Copy &copy) {
    if (copy.job != carried.job) /* one job after the other: what both have is not copied at the same time */
        settle();
    if (known(copy.job) == abi::Status::success && !copy.ops.empty()) /* without ops: its asker has given up */
        note(copy.job, copy.flags & mail_vram ? copy_vram(copy) : copy_all(copy));
    if (!(copy.flags & mail_last))
        return;
    settle();
    const abi::Status status = known(copy.job);
    if (!(copy.flags & mail_notice_follows))
        failed.erase(copy.job);
    answers.send(copy.pid, copy.address, result_letter(copy.job, status));
}

/* Under the lock. All of an op must lie in its region, also what was copied before; NULL if not. */
Dram *Copier::find(const CopyOp &op, uint64_t offset) const {
    const auto region = regions.find(op.region);
    if (region == regions.end())
        return nullptr;
    const abi::Range &range = region->second->range;
    return offset <= op.length && op.theirs >= range.address && op.theirs - range.address <= range.length &&
                   op.length <= range.length - (op.theirs - range.address)
               ? region->second
               : nullptr;
}

/* ---- DRAM on both sides ------------------------------------------------------------------------------- */

static abi::Status why_refused(const Copy &copy, int error) {
    if (error == ESRCH)
        return abi::Status::disconnected;
    if (error == EPERM)
        return refuse(
            abi::Status::not_allowed,
            "the kernel does not let this process at the memory of process %lld (ptrace_scope, or another user): "
            "DRAM cannot be copied",
            static_cast<long long>(copy.pid));
    return refuse(abi::Status::invalid, "copying between DRAM of this process and of process %lld failed: %s",
                  static_cast<long long>(copy.pid), strerror(error));
}

/* As many pieces as one call takes, from the place (op, offset) on, which moves on. */
abi::Status Copier::copy_some(const Copy &copy, size_t *op, uint64_t *offset) {
    std::array<iovec, batch_vectors> theirs, mine; /* theirs: of this process, as in CopyOp */
    uint64_t bytes = 0;
    size_t count = 0;
    const std::shared_lock lock(mutex);
    for (; *op < copy.ops.size() && count < batch_vectors && bytes < batch_bytes; ++*op, *offset = 0) {
        const CopyOp &what = copy.ops[*op];
        if (!find(what, *offset))
            return abi::Status::not_found;
        const uint64_t length = std::min(what.length - *offset, batch_bytes - bytes);
        theirs[count] = {reinterpret_cast<void *>(what.theirs + *offset), length};
        mine[count] = {reinterpret_cast<void *>(what.mine + *offset), length};
        count += length > 0;
        bytes += length;
        *offset += length;
        if (*offset < what.length)
            break;
    }
    const auto pid = static_cast<pid_t>(copy.pid);
    const auto call = copy.flags & mail_write ? process_vm_readv : process_vm_writev;
    const ssize_t done = bytes ? call(pid, theirs.data(), count, mine.data(), count, 0) : 0;
    if (done < 0)
        return why_refused(copy, errno);
    return static_cast<uint64_t>(done) == bytes ? abi::Status::success : why_refused(copy, EFAULT);
}

abi::Status Copier::copy_all(const Copy &copy) {
    abi::Status status = abi::Status::success;
    uint64_t offset = 0;
    if (copy.pid <= 0)
        return refuse(abi::Status::not_supported,
                      "a process of another PID namespace asks for DRAM: that is not reached from here");
    for (size_t op = 0; status == abi::Status::success && op < copy.ops.size();)
        status = copy_some(copy, &op, &offset);
    return status;
}

/* ---- VRAM on the asker's side ------------------------------------------------------------------------- */

/* All regions of a letter, or it fails. They are not freed until let_go. */
abi::Status Copier::hold(const Copy &copy) {
    const std::unique_lock lock(mutex);
    for (const CopyOp &op : copy.ops) {
        Dram *const dram = find(op, 0);
        if (!dram)
            return abi::Status::not_found;
        held[op.region] = dram;
    }
    return abi::Status::success;
}

void Copier::let_go() {
    const std::unique_lock lock(mutex);
    held.clear();
    changed.notify_all();
}

/* Waits for room: this process may have as many transfers in flight as its engine takes. */
int Copier::transfer(const std::vector<nvlx_op> &ops, const nvlx_transfer_options &options, nvlx_request **request) {
    constexpr std::chrono::milliseconds longest{20};
    const auto late = Clock::now() + std::chrono::nanoseconds(patience.answer_ns);
    std::chrono::microseconds pause{200};
    for (;;) {
        const int code = nvlx_transfer(engine, ops.data(), ops.size(), &options, request);
        if (code != NVLX_EBUSY || ends || Clock::now() > late)
            return code;
        if (carried.request) {
            settle();
            continue;
        }
        std::this_thread::sleep_for(pause);
        pause = std::min<std::chrono::microseconds>(2 * pause, longest);
    }
}

/* The transfer that the library carries for who asks: what it reads is written to it. No lock is held: it may wait for
 * the asker, whose memory is mapped. */
abi::Status Copier::start_vram(const Copy &copy, const Answers::Way &way, nvlx_request **request) {
    const uint32_t opcode = copy.flags & mail_write ? NVLX_OP_READ : NVLX_OP_WRITE;
    nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.generation = copy.generation;
    options.flags = way.waits ? 0 : NVLX_NO_MAP;
    std::vector<nvlx_op> ops;
    ops.reserve(copy.ops.size());
    for (const CopyOp &op : copy.ops)
        ops.push_back({opcode, 0, way.link->peer(), reinterpret_cast<void *>(op.theirs), op.mine, op.length, 0});
    abi::Status status = hold(copy);
    for (auto one = held.begin(); status == abi::Status::success && one != held.end(); ++one)
        status = one->second->lend(engine);
    if (status == abi::Status::success) {
        const int code = transfer(ops, options, request);
        status = code == NVLX_EAGAIN ? abi::Status::backend : status_of(code);
    }
    let_go();
    return status;
}

/* Connects, and knows the ranges, and starts it: all that may wait for who asks. */
abi::Status Copier::begin_vram(const Copy &copy, const Answers::Way &way, nvlx_request **request) {
    const int64_t time = way.waits ? patience.connect_ns : 0;
    if (!way.waits && !way.link->peer())
        return abi::Status::disconnected;
    abi::Status status = way.link->reach(time);
    if (status == abi::Status::success)
        status = way.link->status_of(nvlx_peer_sync(way.link->peer(), copy.generation, time));
    return status == abi::Status::success ? start_vram(copy, way, request) : status;
}

/* Waits for what is carried. */
void Copier::settle() {
    const auto begin = Clock::now();
    if (carried.request)
        note(carried.job, carried.link->status_of(nvlx_wait(carried.request.get(), -1)));
    carried.request.reset(); /* before its link */
    carried.link.reset();
    settling += Clock::now() - begin;
}

/* Starts it, and only then waits for the letter before it. */
abi::Status Copier::copy_vram(const Copy &copy) {
    Answers::Way way = answers.way_to(copy);
    way.waits = way.waits && !ends;
    const auto long_time = std::chrono::nanoseconds(std::min(patience.connect_ns, silent_ns));
    const auto begin = Clock::now();
    nvlx_request *request = nullptr;
    settling = {};
    const abi::Status status = begin_vram(copy, way, &request);
    if (status != abi::Status::success && Clock::now() - begin - settling >= long_time)
        answers.was_silent(copy);
    settle();
    if (status == abi::Status::success)
        carried = {copy.job, way.link, {request, nvlx_request_free}};
    return status;
}

} // namespace nvlx::nixl
