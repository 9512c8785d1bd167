/* Prepares lists, posts them, tells how they went. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/transfer.h"

#include <algorithm>
#include <thread>

#include "bindings/nixl/say.h"

namespace nvlx::nixl {

using abi::Segment;
using abi::Status;

Transfer::Transfer(const Surroundings &surroundings, std::shared_ptr<Peer> other)
    : around(surroundings), whose(other.get()), peer(std::move(other)) {
}

Transfer::~Transfer() {
    let_go();
}

/* ---- Preparing ---------------------------------------------------------------------------------------- */

/* The regions of a list, each once, in order. */
template <class Range> static std::vector<const Range *> regions_of(const abi::Pieces &pieces) {
    std::vector<const Range *> all;
    const abi::Region *last = nullptr;
    for (const abi::Piece &piece : pieces.items) {
        if (piece.region != last)
            all.push_back(static_cast<const Range *>(piece.region));
        last = piece.region;
    }
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    return all;
}

Status Transfer::prepare(const Lists &lists) {
    const size_t count = lists.mine.items.size();
    if (count != lists.theirs.items.size())
        return refuse(Status::invalid, "a list of %zu ranges here and %zu there", count, lists.theirs.items.size());
    for (size_t i = 0; i < count; i++)
        if (lists.mine.items[i].length != lists.theirs.items[i].length)
            return refuse(Status::invalid, "descriptor %zu has %llu bytes here and %llu there", i,
                          static_cast<unsigned long long>(lists.mine.items[i].length),
                          static_cast<unsigned long long>(lists.theirs.items[i].length));
    const Status status = peer->link->connect(around.connect_ns);
    if (status != Status::success)
        return status;
    mine = regions_of<Mine>(lists.mine);
    return static_cast<Segment>(lists.theirs.segment) == Segment::vram ? prepare_vram(lists) : prepare_dram(lists);
}

/* DRAM of this process, for GPUs. */
Status Transfer::lend(const abi::Pieces &pieces) const {
    const abi::Region *last = nullptr;
    for (const abi::Piece &piece : pieces.items) {
        const Status status =
            piece.region == last ? Status::success : static_cast<Mine *>(piece.region)->dram->lend(around.engine);
        if (status != Status::success)
            return status;
        last = piece.region;
    }
    return Status::success;
}

/* Whether all are the regions that the metadata named, and not others at the same addresses. `*generation`: from when
 * on later ones are not taken for them. */
Status Transfer::look_up(const std::vector<const Theirs *> &ranges, uint64_t *generation) const {
    nvlx_peer *const known = peer->link->peer();
    uint64_t newest = 0;
    nvlx_region_info info;
    info.size = sizeof info;
    for (const Theirs *range : ranges)
        newest = std::max(newest, range->card.generation);
    int code = nvlx_peer_sync(known, newest, around.connect_ns);
    if (!code)
        code = nvlx_peer_generation(known, generation);
    for (size_t i = 0; !code && i < ranges.size(); i++) {
        code = nvlx_peer_region_by_name(known, region_name(ranges[i]->card.id).c_str(), &info);
        if (code == NVLX_ENOENT)
            return refuse(Status::not_found, "'%s' has withdrawn the range at 0x%llx: its metadata is outdated",
                          peer->name.c_str(), static_cast<unsigned long long>(ranges[i]->range.address));
    }
    return peer->link->status_of(code);
}

Status Transfer::prepare_vram(const Lists &lists) {
    nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    Status status = look_up(regions_of<Theirs>(lists.theirs), &options.generation);
    if (status == Status::success && static_cast<Segment>(lists.mine.segment) == Segment::dram)
        status = lend(lists.mine);
    if (status != Status::success)
        return status;
    const uint32_t opcode = lists.operation == abi::Operation::read ? NVLX_OP_READ : NVLX_OP_WRITE;
    std::vector<nvlx_op> ops(lists.mine.items.size());
    for (size_t i = 0; i < ops.size(); i++) {
        moves = moves || lists.mine.items[i].length;
        ops[i] = {opcode,
                  0,
                  peer->link->peer(),
                  reinterpret_cast<void *>(lists.mine.items[i].address),
                  lists.theirs.items[i].address,
                  lists.mine.items[i].length,
                  0};
    }
    return peer->link->status_of(nvlx_prepare(around.engine, ops.data(), ops.size(), &options, &prepared));
}

Status Transfer::prepare_dram(const Lists &lists) {
    copy.job = 0;
    copy.flags = lists.operation == abi::Operation::write ? mail_write : 0;
    if (static_cast<Segment>(lists.mine.segment) == Segment::vram)
        copy.flags |= mail_vram;
    for (const Mine *range : mine)
        copy.generation = std::max(copy.generation, range->card.generation);
    copy.address = around.address;
    copy.ops.reserve(lists.mine.items.size());
    for (size_t i = 0; i < lists.mine.items.size(); i++) {
        const abi::Piece &here = lists.mine.items[i], &there = lists.theirs.items[i];
        copy.ops.push_back(
            {static_cast<const Theirs *>(there.region)->card.id, there.address, here.address, here.length});
    }
    return Status::success;
}

/* ---- Posting ------------------------------------------------------------------------------------------ */

bool Transfer::is_active() const {
    return request || job || next_letter < letters.size();
}

Status Transfer::post(const std::string *message) {
    const std::lock_guard guard(mutex);
    if (is_active() && advance() == Status::in_progress)
        return Status::active;
    if (revoked)
        return refuse(Status::not_found, "a request is posted whose peer or memory is gone: make it again");
    if (message && message->size() > notice_most)
        return refuse(Status::invalid, "a message of %zu bytes: %zu are allowed", message->size(), notice_most);
    if (peer->link->lost())
        return Status::disconnected;
    failure = Status::success;
    letters.clear();
    next_letter = copy_letters_in_it = 0;
    late = ending = false;
    return prepared ? post_vram(message) : post_dram(message);
}

/* The message is the transfer's own, if that has bytes which it is to come after. */
Status Transfer::post_vram(const std::string *message) {
    nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    if (message) {
        notice = unique_number();
        letters = notice_letters({notice, 0, around.agent, *message});
    }
    if (message && moves) {
        options.message = letters[0].data();
        options.message_length = letters[0].size();
        next_letter = 1;
    }
    const int code = nvlx_post(prepared, &options, &request);
    if (code) {
        next_letter = letters.size();
        return peer->link->status_of(code);
    }
    return next_letter < letters.size() ? advance() : Status::in_progress;
}

Status Transfer::post_dram(const std::string *message) {
    job = around.inbox.new_job();
    copy.job = job->number;
    copy.flags = static_cast<uint8_t>((copy.flags & (mail_write | mail_vram)) | (message ? mail_notice_follows : 0));
    due = Clock::now() + std::chrono::nanoseconds(around.answer_ns);
    letters = copy_letters(copy);
    copy_letters_in_it = letters.size();
    notice = unique_number();
    if (message)
        for (std::string &letter : notice_letters({notice, job->number, around.agent, *message}))
            letters.push_back(std::move(letter));
    return advance();
}

/* What is known by now of the post that is ACTIVE. */
Status Transfer::advance() {
    if (next_letter < letters.size()) {
        const Status sent = peer->link->send(letters, &next_letter);
        if (sent != Status::success && sent != Status::in_progress)
            give_up(sent);
    }
    if ((job ? advance_dram() : advance_vram()) == Status::in_progress || next_letter < letters.size())
        return Status::in_progress;
    letters.clear();
    next_letter = 0;
    return failure;
}

/* What is left of the letters is not sent. A peer that has part of a copy's is told that it was the last: it answers,
 * and only then is it known to copy no more. That letter is tried until it is sent. */
void Transfer::give_up(Status why) {
    const bool lost = peer->link->lost();
    failure = why;
    if (ending && !lost)
        return;
    if (job && next_letter > 0 && next_letter < copy_letters_in_it && !lost) {
        letters = copy_letters({0, job->number, static_cast<uint8_t>(copy.flags & mail_write), around.address, {}, 0});
        next_letter = 0;
        ending = true;
        return;
    }
    if (job && next_letter == 0) {
        around.inbox.forget(*job);
        job.reset();
    }
    if (!lost && next_letter > copy_letters_in_it && next_letter < letters.size())
        peer->link->owe(drop_letter(notice));
    next_letter = letters.size();
}

Status Transfer::advance_vram() {
    if (!request)
        return failure;
    const int code = nvlx_test(request);
    if (code == NVLX_EAGAIN)
        return Status::in_progress;
    if (code)
        failure = peer->link->status_of(code);
    nvlx_request_free(request);
    request = nullptr;
    return failure;
}

Status Transfer::advance_dram() {
    Status status = job->status.load();
    if (status == Status::in_progress && peer->link->lost())
        status = Status::disconnected;
    if (status == Status::in_progress)
        return status;
    if (status == Status::not_found)
        refuse(status, "'%s' has withdrawn DRAM of a request, or has less of it: its metadata is outdated",
               peer->name.c_str());
    if (status != Status::success)
        failure = status;
    around.inbox.forget(*job);
    job.reset();
    return failure;
}

Status Transfer::check() {
    const std::lock_guard guard(mutex);
    Status status = is_active() ? advance() : failure;
    if (status == Status::in_progress && job && Clock::now() > due)
        status = overdue();
    if (revoked && !is_active())
        let_go();
    return status;
}

/* The peer has not answered in time. It has failed; what the peer has of it, it may still copy. */
Status Transfer::overdue() {
    if (late)
        return failure;
    give_up(Status::backend);
    late = is_active();
    return refuse(failure, "'%s' was to copy DRAM, and has not answered for %lld ms", peer->name.c_str(),
                  static_cast<long long>(around.answer_ns / 1000000));
}

/* ---- Ending ------------------------------------------------------------------------------------------- */

/* It is not ACTIVE, or nobody asks any more. */
void Transfer::let_go() {
    if (request)
        nvlx_request_free(request);
    if (prepared)
        nvlx_prepared_free(prepared);
    if (job)
        around.inbox.forget(*job);
    request = nullptr;
    prepared = nullptr;
    job.reset();
    peer.reset();
    letters = {};
    copy = {};
    next_letter = 0;
}

Transfer::End Transfer::end(Clock::duration patience) {
    bool waits = false, last = false;
    {
        const std::lock_guard guard(mutex);
        waits = refused && !late;
        last = refused || late;
        refused = true;
    }
    if (revoke(waits ? Clock::now() + patience : Clock::now()))
        return End::ended;
    return last ? End::abandoned : End::refused;
}

bool Transfer::revoke(Clock::time_point deadline) {
    for (;; std::this_thread::sleep_for(std::chrono::microseconds(200))) {
        const std::lock_guard guard(mutex);
        revoked = true;
        if (is_active() && advance() == Status::in_progress) {
            if (Clock::now() < deadline)
                continue;
            return false;
        }
        let_go();
        return true;
    }
}

bool Transfer::uses(const Mine &range) const {
    return std::binary_search(mine.begin(), mine.end(), &range);
}

} // namespace nvlx::nixl
