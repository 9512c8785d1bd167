/* Writes and reads messages between engines of this plugin. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/peers/mail.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "bindings/nixl/process.h"
#include "bindings/nixl/say.h"

namespace nvlx::nixl {

uint64_t unique_number() {
    thread_local std::mt19937_64 generator(std::random_device{}() * 0x100000001ull + std::random_device{}());
    return generator();
}

static std::string make_letter(const MailHead &head, std::string_view text, std::string_view body) {
    std::string letter(sizeof head, '\0');
    memcpy(letter.data(), &head, sizeof head);
    letter.append(text).append(body);
    return letter;
}

Letters notice_letters(const Notice &notice) {
    MailHead head = {1,          MailKind::notice,      0, 0, static_cast<uint32_t>(notice.agent.size()), notice.number,
                     notice.job, notice.message.size(), 0};
    std::string_view rest = notice.message;
    std::string_view part = rest.substr(0, letter_most - sizeof head - notice.agent.size());
    Letters letters = {make_letter(head, notice.agent, part)};
    head.kind = MailKind::rest;
    head.text = 0;
    for (rest.remove_prefix(part.size()); !rest.empty(); rest.remove_prefix(part.size())) {
        part = rest.substr(0, letter_most - sizeof head);
        letters.push_back(make_letter(head, {}, part));
    }
    return letters;
}

Letters copy_letters(const Copy &copy) {
    const size_t room = (letter_most - sizeof(MailHead) - copy.address.size()) / sizeof(CopyOp);
    Letters letters;
    size_t done = 0;
    do {
        const size_t count = std::min(room, copy.ops.size() - done);
        const bool last = done + count == copy.ops.size();
        const auto flags = static_cast<uint8_t>(copy.flags | (last ? mail_last : 0));
        letters.push_back(make_letter(
            {1, MailKind::copy, flags, 0, static_cast<uint32_t>(copy.address.size()), 0, copy.job, copy.generation, 0},
            copy.address, {reinterpret_cast<const char *>(copy.ops.data() + done), count * sizeof(CopyOp)}));
        done += count;
    } while (done < copy.ops.size());
    return letters;
}

std::string result_letter(uint64_t job, abi::Status status) {
    return make_letter({1, MailKind::result, 0, 0, 0, 0, job, 0, static_cast<int64_t>(status)}, {}, {});
}

std::string drop_letter(uint64_t number) {
    return make_letter({1, MailKind::drop, 0, 0, 0, number, 0, 0, 0}, {}, {});
}

bool open_letter(std::string_view letter, MailHead &head, std::string_view &text, std::string_view &body) {
    if (letter.size() < sizeof head)
        return false;
    memcpy(&head, letter.data(), sizeof head);
    letter.remove_prefix(sizeof head);
    if (head.version != 1 || head.text > letter.size())
        return false;
    text = letter.substr(0, head.text);
    body = letter.substr(head.text);
    return true;
}

bool read_copy(const MailHead &head, std::string_view text, std::string_view body, Copy &copy) {
    if (body.size() % sizeof(CopyOp) != 0)
        return false;
    copy = {0, head.job, head.flags, std::string(text), {}, head.total};
    copy.ops.resize(body.size() / sizeof(CopyOp));
    if (!body.empty())
        memcpy(copy.ops.data(), body.data(), body.size());
    return true;
}

/* ---- Assembly ------------------------------------------------------------------------------------------ */

static constexpr size_t part_cost = 256; /* of one beside its bytes */

void Assembly::grow(Part &part, size_t bytes) {
    part.bytes += bytes;
    held[part.engine] += bytes;
}

Assembly::Parts::iterator Assembly::erase(Parts::iterator part) {
    const auto kept = held.find(part->engine);
    kept->second -= part->bytes;
    if (!kept->second)
        held.erase(kept);
    numbers.erase(part->notice.number);
    return parts.erase(part);
}

/* A first letter. One that tells of more than a notice may have begins none. */
void Assembly::begin(const Sender &sender, const MailHead &head, std::string_view text) {
    drop(head.number);
    if (head.total > notice_most)
        return;
    parts.push_back(
        {{head.number, head.job, std::string(text), ""}, head.total, sender.pid, std::string(sender.engine), 0});
    numbers[head.number] = std::prev(parts.end());
    grow(parts.back(), part_cost);
}

void Assembly::make_room(std::string_view engine) {
    const auto kept = held.find(engine);
    if (kept == held.end() || kept->second <= most)
        return;
    const auto oldest =
        std::find_if(parts.begin(), parts.end(), [&](const Part &part) { return part.engine == engine; });
    say("a message of '%s' is dropped: %zu bytes have come of such as have not come whole",
        oldest->notice.agent.c_str(), kept->second);
    erase(oldest);
}

bool Assembly::take(const Sender &sender, const MailHead &head, std::string_view text, std::string_view body,
                    Notice &notice) {
    if (head.kind == MailKind::notice)
        begin(sender, head, text);
    const auto known = numbers.find(head.number);
    if (known == numbers.end()) /* the transfer that had the first part has failed, or it was dropped */
        return false;
    Part &part = *known->second;
    part.notice.message.append(body);
    grow(part, body.size());
    if (part.notice.message.size() < part.total) {
        make_room(sender.engine);
        return false;
    }
    notice = std::move(part.notice);
    erase(known->second);
    return true;
}

void Assembly::drop(uint64_t number) {
    const auto known = numbers.find(number);
    if (known != numbers.end())
        erase(known->second);
}

void Assembly::sweep() {
    std::map<int64_t, bool> gone;
    for (auto part = parts.begin(); part != parts.end();) {
        const auto [known, fresh] = gone.try_emplace(part->pid, false);
        if (fresh)
            known->second = is_gone(part->pid);
        part = known->second ? erase(part) : std::next(part);
    }
}

} // namespace nvlx::nixl
