/* What engines of this plugin write to each other, in messages of the library. SPDX-License-Identifier: Apache-2.0
 *
 * - A notice: NIXL's notification, with the sender's name. One that is longer than a message (64 KiB) is several, with
 *   a number in common. Of a transfer, the first is the transfer's own message: it comes after the data, and not at all
 *   if the transfer fails. Then the others are dropped. Of a copy that was told as failed since it was late, it may
 *   come.
 * - A copy: what of a peer's DRAM it shall copy from or to the sender's memory, see copier.h. A long list is several.
 * - A result: how a copy has ended.
 * - A drop: no more comes of a notice, of which the first letters were sent.
 * The messages of a Link come in the order in which they were sent. All numbers are unique among all engines. */
#ifndef NVLX_BINDINGS_NIXL_PEERS_MAIL_H
#define NVLX_BINDINGS_NIXL_PEERS_MAIL_H

#include <chrono>
#include <list>
#include <map>
#include <string_view>

#include "bindings/nixl/abi.h"

namespace nvlx::nixl {

enum class MailKind : uint8_t { notice = 1, rest = 2, copy = 3, result = 4, drop = 5 };
enum : uint8_t { mail_write = 1, mail_last = 2, mail_notice_follows = 4, mail_vram = 8 }; /* flags of a copy */

struct MailHead {
    uint8_t version; /* 1 */
    MailKind kind;
    uint8_t flags;
    uint8_t unused;
    uint32_t text;   /* bytes behind the head: the sender's name, or the address at which it serves */
    uint64_t number; /* of a notice, and of its drop */
    uint64_t job;    /* of a copy, and of the notice and the result that belong to it; else 0 */
    uint64_t total;  /* of a notice: bytes of it in all. Of a copy with mail_vram: Copy.generation */
    int64_t status;  /* of a result: an abi::Status */
};
static_assert(sizeof(MailHead) == 40);

struct CopyOp {
    uint64_t region, theirs, mine, length; /* theirs: of who copies. mine: of who asks */
};

struct Copy {
    int64_t pid; /* of who asks, by the kernel's word */
    uint64_t job;
    uint8_t flags;
    std::string address; /* where the result goes */
    std::vector<CopyOp> ops;
    uint64_t generation; /* mail_vram, the asker's side is VRAM: of its engine, that has these ranges */
    std::chrono::steady_clock::time_point came = {};
};

struct Notice {
    uint64_t number, job;
    std::string agent, message;
};

using Letters = std::vector<std::string>; /* messages of the library, in their order */

constexpr size_t letter_most = 65536;    /* of the library's messages */
constexpr size_t notice_most = 2u << 20; /* half of what may be under way to a peer */

Letters notice_letters(const Notice &notice);
/* `last` gets mail_notice_follows from copy.flags. */
Letters copy_letters(const Copy &copy);
std::string result_letter(uint64_t job, abi::Status status);

std::string drop_letter(uint64_t number);

uint64_t unique_number();

/* The head, and what is behind it; false if it is none of ours. */
bool open_letter(std::string_view letter, MailHead &head, std::string_view &text, std::string_view &body);
bool read_copy(const MailHead &head, std::string_view text, std::string_view body, Copy &copy);

struct Sender {
    int64_t pid;             /* by the kernel's word, 0 where it has none */
    std::string_view engine; /* by its own word */
};

/* Notices whose parts have not all come. Of one thread. Of each sender so much is kept, then its oldest goes. */
class Assembly {
  public:
    static constexpr size_t most = 32u << 20; /* bytes of a sender */

    /* True if `notice` is whole now. */
    bool take(const Sender &sender, const MailHead &head, std::string_view text, std::string_view body, Notice &notice);
    void drop(uint64_t number);
    void sweep(); /* drops those of processes that are gone */
    bool empty() const {
        return parts.empty();
    }
    size_t bytes() const {
        size_t all = 0;
        for (const auto &[engine, kept] : held)
            all += kept;
        return all;
    }

  private:
    struct Part {
        Notice notice;
        uint64_t total;
        int64_t pid;
        std::string engine;
        size_t bytes;
    };
    using Parts = std::list<Part>; /* in the order of their first letters */

    void begin(const Sender &sender, const MailHead &head, std::string_view text);
    Parts::iterator erase(Parts::iterator part);
    void grow(Part &part, size_t bytes);
    void make_room(std::string_view engine);

    Parts parts;
    std::unordered_map<uint64_t, Parts::iterator> numbers;
    std::map<std::string, size_t, std::less<>> held; /* bytes, by the engine */
};

} // namespace nvlx::nixl

#endif
