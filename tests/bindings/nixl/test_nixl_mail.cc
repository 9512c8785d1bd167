/* What the NIXL plugin keeps of messages that have not come whole. SPDX-License-Identifier: Apache-2.0 */
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "bindings/nixl/peers/mail.h"

using namespace nvlx::nixl;

#define EXPECT(condition)                                                                                              \
    ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition), exit(1)))

static const std::string long_one(notice_most, 'x');

/* The first `count` letters of a message. */
static bool take(Assembly &assembly, const Sender &sender, uint64_t number, size_t count, Notice &notice) {
    const Letters letters = notice_letters({number, 0, "agent", long_one});
    bool whole = false;
    for (size_t i = 0; i < count && i < letters.size(); i++) {
        std::string_view text, body;
        MailHead head;
        EXPECT(open_letter(letters[i], head, text, body) && !whole);
        whole = assembly.take(sender, head, text, body, notice);
    }
    return whole;
}

static void keeps_nothing_of_what_is_whole() {
    const Sender sender = {getpid(), "one"};
    Assembly assembly;
    Notice notice;
    for (uint64_t number = 0; number < 3; number++) {
        EXPECT(take(assembly, sender, number, 1000, notice));
        EXPECT(notice.message == long_one && notice.agent == "agent" && notice.number == number);
        EXPECT(assembly.empty() && assembly.bytes() == 0);
    }
}

/* A sender that leaves halves has the oldest of its own dropped, and nobody else's. */
static void keeps_no_more_than_so_much() {
    const Sender one = {getpid(), "one"}, two = {getpid(), "two"};
    Assembly assembly;
    Notice notice;
    EXPECT(!take(assembly, two, 1, 2, notice));
    for (uint64_t number = 10; number < 100; number++) {
        EXPECT(!take(assembly, one, number, 20, notice));
        EXPECT(assembly.bytes() <= Assembly::most + (1u << 20));
    }
    EXPECT(assembly.bytes() > Assembly::most - notice_most);
    std::string_view text, body;
    MailHead head;
    const Letters letters = notice_letters({1, 0, "agent", long_one});
    bool whole = false;
    for (size_t i = 2; i < letters.size(); i++)
        whole = open_letter(letters[i], head, text, body) && assembly.take(two, head, text, body, notice);
    EXPECT(whole && notice.message == long_one);
}

static void drops() {
    const Sender sender = {getpid(), "one"};
    Assembly assembly;
    Notice notice;
    std::string_view text, body;
    MailHead head;
    EXPECT(!take(assembly, sender, 7, 30, notice) && assembly.bytes() > 1u << 20);
    EXPECT(open_letter(drop_letter(7), head, text, body) && head.kind == MailKind::drop && head.number == 7);
    assembly.drop(8);
    EXPECT(!assembly.empty());
    assembly.drop(head.number);
    EXPECT(assembly.empty() && assembly.bytes() == 0);
    /* What says that it is longer than any is not begun. */
    head = {1, MailKind::notice, 0, 0, 0, 9, 0, notice_most + 1, 0};
    EXPECT(!assembly.take(sender, head, "agent", "x", notice) && assembly.empty());
}

/* A process that has ended sends no more, also while its parent has not waited for it. */
static void forgets_the_gone() {
    const pid_t child = fork();
    if (!child)
        _exit(0);
    Assembly assembly;
    Notice notice;
    siginfo_t info;
    EXPECT(!waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT));
    EXPECT(!take(assembly, {child, "gone"}, 1, 2, notice) && !take(assembly, {getpid(), "here"}, 2, 2, notice) &&
           !take(assembly, {0, "far"}, 3, 2, notice));
    const size_t all = assembly.bytes();
    assembly.sweep();
    EXPECT(assembly.bytes() == all / 3 * 2);
    waitpid(child, nullptr, 0);
}

int main() {
    keeps_nothing_of_what_is_whole();
    keeps_no_more_than_so_much();
    drops();
    forgets_the_gone();
    return 0;
}
