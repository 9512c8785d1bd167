/* The NIXL plugin where things go wrong: peers that are slow, gone or full, calls of the library that fail. This
 * program stands between the plugin and the library, and the kernel: what it defines of theirs, the plugin calls.
 * Usage: test_nixl_faults libplugin_NVLX.so [NAME]: all tests, or the one of that name. SPDX-License-Identifier:
 * Apache-2.0 */
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "agents.h"

/* ---- What stands between ------------------------------------------------------------------------------- */

/* Copies of DRAM, and transfers for peers, wait while it is shut. */
class Gate {
  public:
    void shut() {
        const std::lock_guard guard(mutex);
        open = false;
    }
    void pass() {
        std::unique_lock lock(mutex);
        waiting++;
        changed.notify_all();
        changed.wait(lock, [this] { return open; });
        waiting--;
    }
    void reopen() {
        const std::lock_guard guard(mutex);
        open = true;
        changed.notify_all();
    }
    void await() { /* until somebody waits */
        std::unique_lock lock(mutex);
        EXPECT(changed.wait_for(lock, 20s, [this] { return waiting > 0; }));
    }

  private:
    std::mutex mutex;
    std::condition_variable changed;
    bool open = true;
    int waiting = 0;
};

static Gate &gate = *new Gate; /* a thread may wait there at the end */

template <class Function> static Function *real(const char *name, Function *) {
    return reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
}

extern "C" [[gnu::visibility("default")]] ssize_t process_vm_writev(pid_t pid, const iovec *lvec, unsigned long liovcnt,
                                                                    const iovec *rvec, unsigned long riovcnt,
                                                                    unsigned long flags) noexcept {
    gate.pass();
    return syscall(SYS_process_vm_writev, pid, lvec, liovcnt, rvec, riovcnt, flags);
}

/* The next so many calls fail with that code. Each letter of the plugin has its kind in the second byte: see mail.h. */
struct Fault {
    std::atomic<int> times{0}, code{0}, after{0}; /* so many go well before */
    std::atomic<int> kind{0};                     /* of letters, 0: all */
    std::atomic<int> calls{0};

    void set(int with, int so_often, int of_kind = 0, int later = 0) {
        code = with;
        kind = of_kind;
        after = later;
        calls = 0;
        times = so_often;
    }
    int next(int what = 0) {
        if (kind && kind != what)
            return 0;
        calls++;
        if (times <= 0 || after-- > 0)
            return 0;
        times--;
        return code;
    }
};

static constexpr int often = 1 << 30, rest = 2, copy = 3, result = 4, drop = 5;
static Fault sending, connecting, threads, transferring;

/* Only of the thread that copies: it starts those that answer. */
extern "C" [[gnu::visibility("default")]] int pthread_create(pthread_t *newthread, const pthread_attr_t *attr,
                                                             void *(*start_routine)(void *), void *arg) {
    static auto *const create = real("pthread_create", pthread_create);
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    const int code = strcmp(name, "nvlx-nixl-copy") == 0 ? threads.next() : 0;
    return code ? code : create(newthread, attr, start_routine, arg);
}

extern "C" [[gnu::visibility("default")]] int nvlx_send(nvlx_peer *peer, const void *message, size_t message_length) {
    static auto *const send = real("nvlx_send", nvlx_send);
    const int code = sending.next(message_length > 1 ? static_cast<const uint8_t *>(message)[1] : 0);
    return code ? code : send(peer, message, message_length);
}

extern "C" [[gnu::visibility("default")]] int nvlx_connect(nvlx_engine *engine, const char *address, int64_t timeout_ns,
                                                           nvlx_peer **peer) {
    static auto *const connect = real("nvlx_connect", nvlx_connect);
    const int code = connecting.next();
    if (code == NVLX_ETIMEDOUT)
        std::this_thread::sleep_for(std::chrono::nanoseconds(timeout_ns));
    return code ? code : connect(engine, address, timeout_ns, peer);
}

static std::atomic<int> slow_closes; /* so many milliseconds each */

extern "C" [[gnu::visibility("default")]] int nvlx_peer_close(nvlx_peer *peer) {
    static auto *const close = real("nvlx_peer_close", nvlx_peer_close);
    std::this_thread::sleep_for(std::chrono::milliseconds(slow_closes.load()));
    return close(peer);
}

/* Transfers for peers that were started when one of them was first waited for. */
static std::atomic<int> started, started_before_waiting;

/* Only who copies for a peer calls the next two. */
extern "C" [[gnu::visibility("default")]] int nvlx_wait(nvlx_request *request, int64_t timeout_ns) {
    static auto *const wait = real("nvlx_wait", nvlx_wait);
    int none = 0;
    started_before_waiting.compare_exchange_strong(none, started);
    return wait(request, timeout_ns);
}

extern "C" [[gnu::visibility("default")]] int nvlx_transfer(nvlx_engine *engine, const nvlx_op *ops, size_t count,
                                                            const nvlx_transfer_options *options,
                                                            nvlx_request **request) {
    static auto *const transfer = real("nvlx_transfer", nvlx_transfer);
    const int code = transferring.next();
    gate.pass();
    started += !code;
    return code ? code : transfer(engine, ops, count, options, request);
}

template <class Condition> static bool eventually(const Condition &condition) {
    for (int i = 0; i < 10000; i++, std::this_thread::sleep_for(1ms))
        if (condition())
            return true;
    return false;
}

/* ---- Tests --------------------------------------------------------------------------------------------- */

/* `a` reads DRAM of `b`. */
struct Pair {
    Pair(const Parameters &asker, const Parameters &owner) : a("a", asker), b("b", owner) {
        there = b.add(y.data(), y.size(), Segment::dram);
        a.load(b.mine);
        list = make_list();
    }
    Posted make_list(size_t bytes = 4096, size_t pieces_in_it = 1) {
        return {&a, "b", Operation::read, pieces(Segment::dram, here, x.data(), bytes, bytes, pieces_in_it),
                pieces(Segment::dram, a.theirs.back(), y.data(), bytes, bytes, pieces_in_it)};
    }
    /* Posts it, and returns when `b` is about to copy. */
    void hold() {
        gate.shut();
        EXPECT(list.prepare() == Status::success && list.post() == Status::in_progress);
        gate.await();
    }

    Agent a, b;
    std::vector<uint8_t> x = std::vector<uint8_t>(1u << 20, 1), y = std::vector<uint8_t>(1u << 20, 2);
    Region *here = a.add(x.data(), x.size(), Segment::dram), *there = nullptr;
    Posted list = {};
};

/* A request that was released twice, and does not end: its memory is in use as long as the peer copies, also while
 * other threads look what has ended. */
static void keeps_what_is_abandoned() {
    Pair pair({{"withdraw_ms", "0"}}, {});
    std::atomic<bool> stop{false};
    pair.hold();
    EXPECT(pair.list.release() == Status::active && pair.list.release() == Status::active);
    EXPECT(pair.a.engine->deregister_memory(pair.here) == Status::active);
    std::thread other([&] {
        for (Posted more = pair.make_list(); !stop;)
            EXPECT(more.prepare() == Status::success && more.release() == Status::success);
    });
    for (int i = 0; i < 2000; i++)
        EXPECT(pair.a.engine->deregister_memory(pair.here) == Status::active);
    stop = true;
    other.join();
    gate.reopen();
    EXPECT(eventually([&] { return pair.a.engine->deregister_memory(pair.here) == Status::success; }));
    EXPECT(pair.x[0] == 2);
}

/* An answer is not lost, whatever the library says first. */
static void answers_again() {
    Pair pair({}, {});
    EXPECT(pair.list.prepare() == Status::success);
    for (const int code : {NVLX_ETIMEDOUT, NVLX_EBUSY, NVLX_ENOMEM}) {
        connecting.set(code, 2);
        sending.set(code, 2, result);
        EXPECT(pair.list.finish() == Status::success);
        EXPECT(sending.calls > 2);
    }
    sending.set(0, 0);
    connecting.set(0, 0);
}

/* An asker of which the answers do not get through fails in the end. Its memory is in use until they do. */
static void does_not_wait_for_ever() {
    Pair pair({{"answer_ms", "50"}, {"withdraw_ms", "0"}}, {});
    EXPECT(pair.list.prepare() == Status::success);
    sending.set(NVLX_EBUSY, often, result);
    EXPECT(pair.list.finish() == Status::backend);
    EXPECT(pair.list.post() == Status::active && pair.list.release() == Status::active);
    EXPECT(pair.a.engine->deregister_memory(pair.here) == Status::active);
    sending.set(0, 0);
    EXPECT(eventually([&] { return pair.a.engine->deregister_memory(pair.here) == Status::success; }));
}

/* One that is not reached is tried again, but less and less often: each try may be a line in a log. */
static void tries_less_and_less_often() {
    Pair pair({}, {});
    EXPECT(pair.list.prepare() == Status::success);
    connecting.set(NVLX_ENOMEM, often);
    EXPECT(pair.list.post() == Status::in_progress);
    std::this_thread::sleep_for(2s);
    EXPECT(connecting.calls > 8 && connecting.calls < 50);
    connecting.set(0, 0);
    EXPECT(pair.list.wait() == Status::success);
}

/* A list that cannot be sent is an error. Where part of it was, the peer answers for that, so that it has ended. */
static void says_what_cannot_be_sent() {
    Pair pair({{"withdraw_ms", "0"}}, {});
    Posted list = pair.make_list(64, 10000), large = list;
    EXPECT(list.prepare() == Status::success && large.prepare() == Status::success);
    sending.set(NVLX_ENOMEM, 1, copy);
    EXPECT(list.finish() == Status::backend && list.finish() == Status::success);
    sending.set(NVLX_ENOMEM, 3, copy, 2);
    EXPECT(large.finish() == Status::backend && sending.calls == 6);
    EXPECT(large.finish() == Status::success);
    EXPECT(large.release() == Status::success && list.release() == Status::success);
    EXPECT(pair.a.engine->deregister_memory(pair.here) == Status::success);
    sending.set(0, 0);
}

/* Another asker, which reads a little of the pair's owner. */
struct Bystander {
    explicit Bystander(Pair &pair) {
        Region *const region = agent.add(bytes.data(), bytes.size(), Segment::dram);
        agent.load(pair.b.mine);
        list = {&agent, "b", Operation::read, pieces(Segment::dram, region, bytes.data(), bytes.size()),
                pieces(Segment::dram, agent.theirs[0], pair.y.data(), bytes.size())};
    }

    Agent agent{"other"};
    std::vector<uint8_t> bytes = std::vector<uint8_t>(4096);
    Posted list = {};
};

/* An asker that is gone holds up nobody. */
static void passes_over_the_dead() {
    Pair pair({{"withdraw_ms", "0"}}, {{"connect_ms", "5000"}});
    Bystander other(pair);
    Posted &list = other.list;
    EXPECT(list.prepare() == Status::success);
    pair.hold();
    pair.a.end();
    EXPECT(list.post() == Status::in_progress);
    const auto begin = std::chrono::steady_clock::now();
    gate.reopen();
    EXPECT(list.wait() == Status::success && std::chrono::steady_clock::now() - begin < 3s);
}

/* An asker that cannot be connected, as it is stopped, holds up others once, however much it has asked for. */
static void waits_once_for_the_silent() {
    Pair pair({}, {{"connect_ms", "500"}});
    uint8_t *const vram = allocate(0), *const host = allocate(0, NVLX_ALLOC_HOST);
    Region *const here = pair.a.add(vram, length, Segment::vram);
    pair.b.add(host, length, Segment::dram);
    pair.a.load(pair.b.mine);
    std::vector<Posted> lists(6, {&pair.a, "b", Operation::read, pieces(Segment::vram, here, vram, 4096),
                                  pieces(Segment::dram, pair.a.theirs.back(), host, 4096)});
    Bystander other(pair);
    Posted &list = other.list;
    EXPECT(list.prepare() == Status::success && list.finish() == Status::success);
    for (Posted &one : lists)
        EXPECT(one.prepare() == Status::success);
    connecting.set(NVLX_ETIMEDOUT, often);
    for (Posted &one : lists)
        EXPECT(one.post() == Status::in_progress);
    EXPECT(eventually([] { return connecting.calls > 0; }));
    std::this_thread::sleep_for(50ms); /* all have come, and the first one waits */
    const auto begin = std::chrono::steady_clock::now();
    EXPECT(list.finish() == Status::success && std::chrono::steady_clock::now() - begin < 1500ms);
    connecting.set(0, 0);
    for (Posted &one : lists)
        EXPECT(one.wait() == Status::disconnected);
    for (Posted &one : lists)
        EXPECT(one.finish() == Status::success);
}

/* Askers that are stopped hold up the owner's end once, not each of them: neither those that were never connected, nor
 * those that have not taken their answers, which closing waits for. */
static void ends_beside_the_silent() {
    Agent owner("b", {{"connect_ms", "1500"}});
    uint8_t *const host = allocate(0, NVLX_ALLOC_HOST), *const vram = allocate(0);
    owner.add(host, length, Segment::dram);
    std::vector<std::unique_ptr<Agent>> askers;
    std::vector<Posted> lists;
    for (int i = 0; i < 8; i++) {
        Agent &asker = *askers.emplace_back(std::make_unique<Agent>("a" + std::to_string(i)));
        Region *const here = asker.add(vram, length, Segment::vram);
        asker.load(owner.mine);
        lists.push_back({&asker, "b", Operation::read, pieces(Segment::vram, here, vram, 4096),
                         pieces(Segment::dram, asker.theirs[0], host, 4096)});
        EXPECT(lists.back().prepare() == Status::success);
        EXPECT(i % 2 || lists.back().finish() == Status::success); /* some are connected */
    }
    connecting.set(NVLX_ETIMEDOUT, often);
    for (Posted &list : lists) {
        const Status status = list.post(); /* to who is connected, it may be done at once */
        EXPECT(status == Status::in_progress || status == Status::success);
    }
    EXPECT(eventually([] { return connecting.calls > 0; }));
    std::this_thread::sleep_for(50ms); /* all have come */
    slow_closes = 1500;
    const auto begin = std::chrono::steady_clock::now();
    owner.end();
    const auto time = std::chrono::steady_clock::now() - begin;
    slow_closes = 0;
    connecting.set(0, 0);
    EXPECT(time < 3000ms); /* one of either is waited for, at most */
    for (Posted &list : lists) {
        const Status status = list.wait();
        EXPECT(status == Status::disconnected || status == Status::success);
    }
}

/* Where no more threads can be started, who asks is told all the same, and the owner goes on. */
static void needs_no_thread() {
    Pair pair({}, {});
    threads.set(EAGAIN, often);
    EXPECT(pair.list.prepare() == Status::success && pair.list.finish() == Status::success);
    EXPECT(threads.calls > 0);
    threads.set(0, 0);
}

/* `a` has VRAM, and reads DRAM of `b` that GPUs reach. */
struct Mixed {
    Mixed(const Parameters &asker, const Parameters &owner) : a("a", asker), b("b", owner) {
        there = b.add(y, length, Segment::dram);
        a.load(b.mine);
        list = {&a, "b", Operation::read, pieces(Segment::vram, here, x, length),
                pieces(Segment::dram, a.theirs.back(), y, length)};
        EXPECT(list.prepare() == Status::success);
    }

    Agent a, b;
    uint8_t *x = allocate(0), *y = allocate(0, NVLX_ALLOC_HOST); /* of one process, so the same GPU copies */
    Region *here = a.add(x, length, Segment::vram), *there = nullptr;
    Posted list = {};
};

/* To start a transfer for a peer may wait for that peer, which is mapped. Other DRAM comes and goes meanwhile, and that
 * of the transfer is not freed. */
static void starts_beside_others() {
    Mixed pair({}, {{"withdraw_ms", "50"}});
    std::vector<uint8_t> other(4096);
    gate.shut();
    EXPECT(pair.list.post() == Status::in_progress);
    gate.await();
    std::atomic<bool> came_and_went{false};
    std::thread beside([&] {
        Region *const region = pair.b.add(other.data(), other.size(), Segment::dram);
        EXPECT(pair.b.engine->deregister_memory(region) == Status::success);
        came_and_went = true;
    });
    EXPECT(eventually([&] { return came_and_went.load(); }));
    beside.join();
    EXPECT(pair.b.engine->deregister_memory(pair.there) == Status::active);
    gate.reopen();
    EXPECT(pair.list.wait() == Status::success);
    EXPECT(pair.b.engine->deregister_memory(pair.there) == Status::success);
    EXPECT(pair.list.finish() == Status::not_found && pair.list.release() == Status::success);
}

/* Whatever fails at its owner, who asks is told, and the next time it works. */
static void tells_why_vram_fails() {
    Mixed pair({}, {});
    const std::string message = "done";
    connecting.set(NVLX_ENOMEM, 1);
    EXPECT(pair.list.finish(&message) == Status::backend);
    connecting.set(0, 0);
    transferring.set(NVLX_ERANGE, 1);
    EXPECT(pair.list.finish(&message) == Status::not_found);
    transferring.set(NVLX_EBUSY, 3); /* the owner waits until there is room */
    EXPECT(pair.list.finish(&message) == Status::success && pair.b.notices(1)[0].second == message);
    EXPECT(pair.list.release() == Status::success);
}

/* A list of three letters. */
static Posted long_list(Mixed &pair) {
    const size_t count = 5000, bytes = 512;
    Posted list = {&pair.a, "b", Operation::read, pieces(Segment::vram, pair.here, pair.x, bytes, bytes, count),
                   pieces(Segment::dram, pair.a.theirs.back(), pair.y, bytes, bytes, count)};
    EXPECT(list.prepare() == Status::success);
    return list;
}

/* An asker that is gone before its list was sent whole keeps no memory of the owner. */
static void is_free_of_half_a_list(bool other_comes) {
    Mixed pair({{"withdraw_ms", "0"}}, {});
    Agent other("other");
    Posted list = long_list(pair);
    started = 0;
    sending.set(NVLX_EBUSY, often, copy, 1);
    EXPECT(list.post() == Status::in_progress && eventually([] { return started == 1; }));
    EXPECT(pair.a.engine->check(list.request) == Status::in_progress);
    pair.a.end();
    sending.set(0, 0);
    if (other_comes) {
        uint8_t *const vram = allocate(0);
        Region *const here = other.add(vram, length, Segment::vram);
        other.load(pair.b.mine);
        Posted next = {&other, "b", Operation::write, pieces(Segment::vram, here, vram, 64),
                       pieces(Segment::dram, other.theirs[0], pair.y, 64)};
        EXPECT(next.prepare() == Status::success && next.finish() == Status::success);
        EXPECT(next.release() == Status::success);
    }
    const auto begin = std::chrono::steady_clock::now();
    EXPECT(pair.b.engine->deregister_memory(pair.there) == Status::success);
    EXPECT(std::chrono::steady_clock::now() - begin < 3s);
}

/* A list of several letters is as many transfers. The next is started before the one before it has ended; and where one
 * fails, the list has failed. */
static void carries_letters_one_behind_the_other() {
    Mixed pair({}, {});
    const std::string message = "done";
    Posted list = long_list(pair);
    memset(pair.y, 7, length);
    started = started_before_waiting = 0;
    EXPECT(list.finish(&message) == Status::success && started == 3 && started_before_waiting == 2);
    EXPECT(pair.x[0] == 7 && pair.x[5000 * 512 - 1] == 7 && pair.b.notices(1)[0].second == message);
    for (int good = 0; good < 3; good++) {
        transferring.set(NVLX_ERANGE, 1, 0, good);
        EXPECT(list.finish(&message) == Status::not_found && transferring.calls == good + 1);
    }
    transferring.set(NVLX_EBUSY, 1, 0, 1); /* there is room once the first has ended: that is waited for at once */
    started = started_before_waiting = 0;
    EXPECT(list.finish(&message) == Status::success && transferring.calls == 4);
    EXPECT(started_before_waiting == 1);
    EXPECT(pair.b.notices(1)[0].second == message);
    EXPECT(list.release() == Status::success);
}

/* A message that was not sent whole leaves nothing at its receiver. */
static void drops_halves() {
    Pair pair({}, {});
    const std::string message(1u << 20, 'x');
    EXPECT(pair.a.engine->send_notice("b", "first") == Status::success);
    for (const int code : {NVLX_EBUSY, NVLX_ENOMEM}) {
        sending.set(code, 1, 0, 5);
        EXPECT(pair.a.engine->send_notice("b", message) == Status::backend);
        sending.set(0, 0, drop);
        EXPECT(pair.a.engine->send_notice("b", message) == Status::success && sending.calls == 1);
        sending.set(code, 1, rest, 5);
        EXPECT(pair.list.request || pair.list.prepare() == Status::success);
        const Status status = pair.list.finish(&message);
        EXPECT(status == (code == NVLX_EBUSY ? Status::success : Status::backend));
        sending.set(0, 0, drop);
        EXPECT(pair.a.engine->send_notice("b", "last") == Status::success && sending.calls == (code == NVLX_ENOMEM));
    }
    const Notices all = pair.b.notices(6);
    EXPECT(std::count_if(all.begin(), all.end(), [&](const auto &one) { return one.second == message; }) == 3);
    sending.set(0, 0);
}

/* A process that may open no more files still knows its own machine. */
static void knows_its_machine() {
    Agent a("a"), b("b");
    rlimit files = {};
    EXPECT(!getrlimit(RLIMIT_NOFILE, &files));
    const rlimit none = {3, files.rlim_max};
    EXPECT(!setrlimit(RLIMIT_NOFILE, &none));
    const Status status = a.engine->load_connection("b", b.mine.card);
    EXPECT(!setrlimit(RLIMIT_NOFILE, &files) && status == Status::success);
}

/* A request whose peer was removed in flight lets the peer go when it has ended: who asks sees that, or whoever makes
 * another request. The peer's owner lets one in at a time. */
static void lets_peers_go(bool asks) {
    Pair pair({}, {{"connections", "1"}});
    Agent other("other"), third("third");
    other.load(pair.b.mine);
    pair.hold();
    EXPECT(other.engine->connect("b") == Status::backend); /* as many as are allowed */
    pair.a.remove("b");
    gate.reopen();
    if (asks)
        EXPECT(pair.list.wait() == Status::success);
    third.load(pair.a.mine);
    pair.a.load(third.mine);
    EXPECT(eventually([&] {
        if (!asks) {
            Posted none = {&pair.a, "third", Operation::read, pieces(Segment::dram, pair.here, pair.x.data(), 0, 0, 0),
                           pieces(Segment::dram, nullptr, nullptr, 0, 0, 0)};
            EXPECT(none.prepare() == Status::success && none.release() == Status::success);
        }
        return other.engine->connect("b") == Status::success;
    }));
    EXPECT(pair.list.post() == Status::not_found && pair.list.release() == Status::success);
}

int main(int count, char **words) {
    load_plugin(count, words);
    const std::pair<const char *, void (*)()> tests[] = {
        {"what is abandoned", keeps_what_is_abandoned},
        {"answers again", answers_again},
        {"less and less often", tries_less_and_less_often},
        {"no answer", does_not_wait_for_ever},
        {"what cannot be sent", says_what_cannot_be_sent},
        {"one that is dead", passes_over_the_dead},
        {"one that is silent", waits_once_for_the_silent},
        {"an end beside silent ones", ends_beside_the_silent},
        {"no more threads", needs_no_thread},
        {"a start that waits", starts_beside_others},
        {"what fails for VRAM", tells_why_vram_fails},
        {"letters for VRAM", carries_letters_one_behind_the_other},
        {"a list that is never whole", [] { is_free_of_half_a_list(false); }},
        {"a list that is never whole, then another", [] { is_free_of_half_a_list(true); }},
        {"halves of messages", drops_halves},
        {"no more files", knows_its_machine},
        {"peers that were removed, asked", [] { lets_peers_go(true); }},
        {"peers that were removed", [] { lets_peers_go(false); }}};
    for (const auto &[name, test] : tests) {
        if (count > 2 && strcmp(words[2], name) != 0)
            continue;
        test();
        printf("ok: %s\n", name);
    }
    EXPECT(!nvlx_engine_destroy(memory));
    return 0;
}
