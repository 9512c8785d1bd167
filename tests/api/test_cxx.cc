// The objects of nvlxfer.hpp as a program uses them: transfers, codes, exceptions where there are any, moves, and what
// destructors do. It is built as C++17, as C++20, and without exceptions. SPDX-License-Identifier: Apache-2.0
#include <nvlxfer.hpp>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>
#if __cplusplus >= 202002L
#include <span>
#endif

using namespace std::chrono_literals;

static void expect(bool holds, const char *what, int line) {
    if (!holds) {
        fprintf(stderr, "%s:%d: %s does not hold; the last error: %s\n", __FILE__, line, what, nvlx_last_error());
        abort();
    }
}
#define EXPECT(condition) expect(static_cast<bool>(condition), #condition, __LINE__)

template <class T> T take(nvlx::result<T> result) {
    EXPECT(result.code() == 0);
    return std::move(*result);
}

static void take(nvlx::result<void> result) {
    EXPECT(result.code() == 0);
}

// ---- What the compiler can tell ----------------------------------------------------------------------------

template <class T> constexpr bool moves_only() {
    return std::is_nothrow_default_constructible_v<T> && std::is_nothrow_move_constructible_v<T> &&
           std::is_nothrow_move_assignable_v<T> && std::is_nothrow_destructible_v<T> &&
           !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;
}
static_assert(moves_only<nvlx::engine>() && moves_only<nvlx::region>() && moves_only<nvlx::peer>());
static_assert(moves_only<nvlx::request>() && moves_only<nvlx::prepared>() && moves_only<nvlx::blocks>());
static_assert(moves_only<nvlx::memory>() && moves_only<nvlx::text>() && moves_only<nvlx::relay>());
static_assert(sizeof(nvlx::request) == sizeof(nvlx_request *) && sizeof(nvlx::memory) == 3 * sizeof(void *));

constexpr int64_t ns(nvlx::timeout timeout) {
    return timeout.ns();
}
static_assert(ns(nvlx::forever) == -1 && ns(0s) == 0 && ns(-1ns) == 0 && ns(-300h) == 0);
static_assert(ns(2s) == 2000000000 && ns(std::chrono::duration<double>(0.5)) == 500000000);
static_assert(ns(std::chrono::hours(3000000)) == INT64_MAX && ns(std::chrono::hours::min()) == 0);
static_assert(ns(std::chrono::duration<double>(std::numeric_limits<double>::quiet_NaN())) == 0);
static_assert(ns(std::chrono::duration<double>(std::numeric_limits<double>::infinity())) == INT64_MAX);

// Rows that are gone when the op is used are refused, and so are lists whose elements have another size.
template <class Rows, class = void> constexpr bool rows_are_taken = false;
template <class Rows>
constexpr bool rows_are_taken<Rows, std::void_t<decltype(nvlx::rows_op(nvlx_op{}, std::declval<Rows>()))>> = true;
static_assert(rows_are_taken<const nvlx_rows &> && !rows_are_taken<nvlx_rows>);

struct longer_op : nvlx_op {
    int more;
};
using ops_span = nvlx::span<const nvlx_op>;
static_assert(std::is_convertible_v<std::vector<nvlx_op>, ops_span> && std::is_convertible_v<nvlx_op, ops_span> &&
              std::is_convertible_v<const std::array<nvlx_op, 2> &, ops_span> &&
              std::is_convertible_v<nvlx_op (&)[2], ops_span>);
static_assert(!std::is_convertible_v<std::vector<longer_op>, ops_span> &&
              !std::is_convertible_v<std::deque<nvlx_op>, ops_span> && !std::is_convertible_v<int, ops_span>);
#if __cplusplus >= 202002L
static_assert(std::is_convertible_v<std::span<const nvlx_op>, ops_span>);
#endif

// ---- What programs do --------------------------------------------------------------------------------------

constexpr size_t bytes = 65536;

static nvlx::engine make_engine() {
    nvlx::config config;
    config.backend = NVLX_BACKEND_HOST;
    return take(nvlx::engine::create(config));
}

// An engine with a filled source and an empty target, which is a peer of itself.
struct home {
    nvlx::engine engine = make_engine();
    nvlx::memory source = take(engine.alloc(0, bytes)), target = take(engine.alloc(1, bytes));
    nvlx::region source_region = take(engine.register_region(source.data(), bytes, {"source", NVLX_ACCESS_READ}));
    nvlx::region target_region = take(engine.register_region(target.data(), bytes, {"target"}));
    nvlx::peer self = take(engine.open(take(engine.export_text())));
    std::vector<char> sent = std::vector<char>(bytes);

    home() {
        for (size_t i = 0; i < bytes; i++)
            sent[i] = static_cast<char>(i * 7 + i / 256);
        take(engine.copy(source.data(), sent.data(), bytes));
    }
    bool arrived() {
        std::vector<char> seen(bytes), none(bytes);
        take(engine.copy(seen.data(), target.data(), bytes));
        take(engine.copy(target.data(), none.data(), bytes));
        return seen == sent;
    }
};

static void test_transfers() {
    home home;
    const nvlx::range remote = take(home.self.find("source"));
    EXPECT(remote.length == bytes && remote.address == reinterpret_cast<uintptr_t>(home.source.data()));
    take(take(home.engine.transfer(nvlx::read_op(home.self, home.target.data(), remote.address, bytes))).wait());
    EXPECT(home.arrived());

    std::vector<nvlx_op> ops;
    for (size_t i = 0; i < 16; i++)
        ops.push_back(nvlx::read_op(home.self, static_cast<char *>(home.target.data()) + i * 4096,
                                    remote.address + i * 4096, 4096));
    nvlx::request request = take(home.engine.transfer(ops));
    take(request.wait(30s));
    take(request.test());
    EXPECT(take(request.info()).ops == 16 && take(request.info()).bytes == bytes);
    EXPECT(home.arrived());
    take(request.free());
    EXPECT(!request);
#if __cplusplus >= 202002L
    take(take(home.engine.transfer(std::span(ops).first(8))).wait());
    take(take(home.engine.transfer(std::span(ops).subspan(8))).wait());
    EXPECT(home.arrived());
#endif

    const nvlx_rows rows = {16, 4096, 4096};
    const nvlx_op all = nvlx::rows_op(nvlx::read_op(home.self, home.target.data(), remote.address, 4096), rows);
    nvlx::prepared prepared = take(home.engine.prepare(all));
    take(take(prepared.post()).wait());
    EXPECT(home.arrived());
    EXPECT(home.target_region.unregister(0s).code() == NVLX_EBUSY && home.target_region);
    EXPECT(home.self.close().code() == NVLX_EBUSY && home.self.find("source"));
    take(prepared.free());

    nvlx_block_region local = {reinterpret_cast<uintptr_t>(home.target.data()), 4096, 0, 4096, 16, 0, 0}, there = local;
    there.base = remote.address;
    const std::array<uint32_t, 16> numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    nvlx::block_ids ids;
    ids.local = ids.remote = numbers.data();
    ids.count = numbers.size();
    nvlx::blocks blocks = take(home.engine.create_blocks(home.self, &local, &there, 1));
    take(take(blocks.transfer(ids)).wait());
    EXPECT(home.arrived());
    take(blocks.free());
}

static void test_codes() {
    home home;
    const nvlx::result<nvlx::range> none = home.self.find("no such name");
    EXPECT(!none && none.code() == NVLX_ENOENT && none->length == 0);
    EXPECT(home.self.find(std::string("target")));
    EXPECT(home.engine.open("no descriptor").code() == NVLX_EFORMAT);
    EXPECT(home.engine.connect("@nobody-serves-here", -1ms).code() == NVLX_ETIMEDOUT); // -1 is not for ever
    EXPECT(home.engine.next_event().code() == NVLX_EAGAIN);
    const uint64_t there = take(home.self.find("source")).address;
    const nvlx::result<nvlx::request> refused =
        home.engine.transfer(nvlx::write_op(home.self, home.target.data(), there, bytes));
    EXPECT(refused.code() == NVLX_EACCES && !*refused);
    EXPECT(refused->test().code() == NVLX_EINVAL);
#ifdef __cpp_exceptions
    int caught = 0;
    try {
        home.self.find("no such name").value();
    } catch (const nvlx::error &error) {
        EXPECT(home.engine.open("no descriptor").code() == NVLX_EFORMAT); // changes nvlx_last_error, not the exception
        caught = error.code();
        const std::string what = error.what();
        EXPECT(what.find(nvlx_strerror(NVLX_ENOENT)) == 0 && what.find("no such name", 13) != std::string::npos);
    }
    EXPECT(caught == NVLX_ENOENT);
    try {
        home.self.sync(1 << 20, 0s).value();
        caught = 0;
    } catch (const std::runtime_error &error) {
        caught = 1;
    }
    EXPECT(caught == 1);
    EXPECT(home.engine.digest(home.source.data(), bytes).value() == home.source_region.set_digest().value());
#endif
}

static void test_moves() {
    home home;
    nvlx::region moved = std::move(home.source_region);
    EXPECT(moved && !home.source_region);
    EXPECT(home.source_region.unregister(0s).code() == NVLX_EINVAL);
    moved = take(home.engine.register_region(home.target.data(), 16, {"other"})); // withdraws what it was
    home.self = take(home.engine.open(take(home.engine.export_text())));
    EXPECT(home.self.find("source").code() == NVLX_ENOENT && home.self.find("other"));
    EXPECT(take(home.engine.info()).regions == 2);
    { const nvlx::region ends = std::move(moved); }
    EXPECT(take(home.engine.info()).regions == 1);

    nvlx::memory memory = std::move(home.source);
    EXPECT(home.source.data() == nullptr && home.source.size() == 0 && memory.size() == bytes);
    take(home.source.free()); // of nothing
    take(memory.free());
    EXPECT(memory.size() == 0 && !memory);

    nvlx::engine engine = std::move(home.engine); // the other objects stay as they are
    EXPECT(home.engine.get() == nullptr && home.engine.info().code() == NVLX_EINVAL);
    EXPECT(home.engine.backend_name() == std::string() && engine.backend_name() == std::string("host"));
    EXPECT(home.self.find("other") && take(engine.info()).regions == 1);
    home.engine = std::move(engine);

    nvlx::text text = take(home.engine.export_text());
    const nvlx::text taken = std::move(text);
    text = nvlx::text(text.release(), taken.size()); // NOLINT(bugprone-use-after-move): it is empty then
    EXPECT(text.size() == 0 && std::string_view(text).empty() && taken.data()[taken.size()] == '\0');
    nvlx_peer *raw = home.self.release();
    EXPECT(raw != nullptr && !home.self);
    const nvlx::peer again(raw);
    EXPECT(take(again.info()).same_process == 1);
}

// Two engines of this process, one of which follows the other.
static void test_rendezvous() {
    home home;
    const std::string address = "@test-cxx-" + std::to_string(getpid());
    nvlx::serve_options options;
    options.stats = 1;
    take(home.engine.serve(address, options));
    nvlx::engine engine = make_engine();
    nvlx::peer peer = take(engine.connect(address, 30s));
    EXPECT(take(peer.info()).followed == 1 && take(peer.region_info("target")).length == bytes);
    size_t place = 0, regions = 0;
    while (peer.next_region(place))
        regions++;
    EXPECT(regions == 2);

    take(home.engine.hold());
    const nvlx::region later = take(home.engine.register_region(home.source.data(), 64, {std::string("later")}));
    const uint64_t generation = take(home.engine.publish());
    take(peer.sync(generation, 30s));
    EXPECT(take(peer.generation()) == generation && peer.find("later"));
    take(home.engine.check());
    const nvlx::peer &same = peer; // which no call below changes
    take(same.map(0, take(same.find("later")).address, 64));
    take(same.wake());
    take(same.test());
    EXPECT(peer.update("no descriptor").code() == NVLX_EFORMAT);

    take(same.send("hello"));
    int fd = take(home.engine.event_fd());
    EXPECT(fd >= 0);
    nvlx::result<nvlx_event> event = home.engine.next_event();
    while (event.code() == NVLX_EAGAIN || (event && event->kind != NVLX_EVENT_MESSAGE))
        event = home.engine.next_event();
    EXPECT(event && event->message_length == 5 && memcmp(event->message, "hello", 5) == 0);

    EXPECT(take(engine.stats()).peers == 1 && take(engine.stats(peer)).transfers == 0);
    EXPECT(take(engine.stats_prometheus()).find("nvlxfer_") != std::string::npos);
    EXPECT(std::string_view(take(peer.stats(30s))).find("nvlxfer_") != std::string_view::npos);
    take(peer.close());
    EXPECT(!peer);
    take(engine.destroy());
    EXPECT(!engine);
}

static void test_sleep_and_signals() {
    home home;
    take(home.target_region.suspend(30s));
    take(home.target_region.resume());
    nvlx_region *const both[] = {home.source_region.get(), home.target_region.get()};
    take(nvlx::suspend(both, 30s));
    void *const places[] = {home.target.data(), home.source.data()};
    take(nvlx::resume(both, places));
    home.self = take(home.engine.open(take(home.engine.export_text())));
    EXPECT(take(home.self.find("source")).address == reinterpret_cast<uintptr_t>(home.target.data()));

    const uint64_t zero = 0;
    take(home.engine.copy(home.source.data(), &zero, sizeof zero)); // now the bytes of "target"
    const uint64_t count = take(home.self.find("target")).address;
    take(take(home.engine.transfer(nvlx::signal_op(home.self, count, 5))).wait());
    EXPECT(take(home.engine.signal_read(home.source.data())) == 5);
    take(home.engine.signal_wait(home.source.data(), 5, 30s));
    EXPECT(home.engine.signal_wait(home.self, home.source.data(), 6, 1ms).code() == NVLX_ETIMEDOUT);

    // The host backend has no streams: what takes one is refused.
    EXPECT(home.engine.stream_signal(nullptr, home.self, count, 6).code() == NVLX_EINVAL);
    EXPECT(home.engine.stream_wait(nullptr, home.self, home.source.data(), 6).code() == NVLX_EINVAL);
    EXPECT(home.engine.stream_wait_status(77).code() == NVLX_EINVAL);
    EXPECT(home.target_region.ready(nullptr).code() == NVLX_EINVAL);
    EXPECT(home.engine.transfer(nvlx::wait_ready_op(home.self, count, 1)).code() == NVLX_EINVAL);
    EXPECT(take(nvlx::gpu_count(NVLX_BACKEND_HOST)) >= 1);
    take(nvlx::set_log(NVLX_LOG_WARNING));
}

// The source and a reader in one process; a second generation.
static void test_relay(const std::string &address) {
    home home;
    nvlx::relay_options options;
    options.readers = 1;
    const nvlx_relay_part from{"w", home.source.data(), bytes}, to{"w", home.target.data(), bytes};
    EXPECT(home.engine.offer(address, nvlx::span<const nvlx_relay_part>()).code() == NVLX_EINVAL);
    nvlx::relay source = take(home.engine.offer(address, from, options));
    nvlx::relay reader = take(home.engine.join(address, to, 30s));
    take(reader.wait(30s));
    EXPECT(home.arrived());
    take(source.wait(30s));
    take(source.hold());
    take(source.next());
    take(reader.next());
    take(reader.wait());
    EXPECT(home.arrived());
    EXPECT(take(reader.info()).generation == 2 && take(source.info()).source == 1);
    take(reader.free(30s));
    EXPECT(!reader && reader.wait(0s).code() == NVLX_EINVAL);
}

// ---- What destructors do -----------------------------------------------------------------------------------

// Where memory was that its object has freed.
static void *freed_memory(nvlx::engine &engine) {
    const nvlx::memory memory = take(engine.alloc(0, bytes));
    return memory.data(); // cppcheck-suppress returnDanglingLifetime ; that it is freed is what is tried
}

// Each frees what it has.
static void test_ends() {
    home home;
    const std::string address = "@test-cxx-ends-" + std::to_string(getpid());
    const uint64_t source = take(home.self.find("source")).address;
    const nvlx_op op = nvlx::read_op(home.self, home.target.data(), source, 16);
    {
        const nvlx::peer peer = take(home.engine.open(take(home.engine.export_text())));
        EXPECT(take(home.engine.stats()).peers == 2);
    }
    EXPECT(take(home.engine.stats()).peers == 1);
    {
        const nvlx::prepared list = take(home.engine.prepare(op));
        EXPECT(home.target_region.unregister(0s).code() == NVLX_EBUSY);
    }
    {
        nvlx_block_region block{};
        block.base = reinterpret_cast<uintptr_t>(home.target.data());
        block.stride = block.length = 16;
        block.blocks = 1;
        nvlx_block_region theirs = block;
        theirs.base = source;
        const nvlx::blocks blocks = take(home.engine.create_blocks(home.self, &block, &theirs, 1));
        EXPECT(home.target_region.unregister(0s).code() == NVLX_EBUSY);
    }
    {
        nvlx::transfer_options options;
        options.flags = NVLX_DONE_EVENT;
        const nvlx::request request = take(home.engine.transfer(op, options));
        take(request.wait());
    } // its event goes with it
    EXPECT(home.engine.next_event().code() == NVLX_EAGAIN);
    take(home.target_region.unregister(0s));
    EXPECT(home.engine.register_region(freed_memory(home.engine), 16).code() == NVLX_ENOTSUP);
    {
        nvlx::engine engine = make_engine();
        take(engine.serve(address));
        EXPECT(home.engine.serve(address).code() == NVLX_EEXIST);
    }
    take(home.engine.serve(address));
}

// Follows the engine that serves at `address`, then serves at another one.
static void follow(const std::string &address) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    nvlx::engine engine = make_engine();
    const nvlx::peer peer = take(engine.connect(address, 60s));
    take(engine.serve(address + "-follower"));
    while (peer)
        pause();
}

static nvlx_engine *left; // to be seen by who looks for leaks

// A follower that is stopped holds up a region, and the message of a transfer, for as long as it is. Destructors do not
// wait so long, and free nothing that may be in use.
static void test_destructors(pid_t follower, const std::string &address) {
    int status;
    uint64_t source;
    nvlx::destructor_limit(50ms);
    {
        home home;
        left = home.engine.get();
        take(home.engine.serve(address));
        const nvlx::peer peer = take(home.engine.connect(address + "-follower", 30s));
        kill(follower, SIGSTOP);
        EXPECT(waitpid(follower, &status, WUNTRACED) == follower && WIFSTOPPED(status));
        source = take(home.self.find("source")).address;
        nvlx::transfer_options options;
        options.message = "done";
        options.message_length = 4;
        nvlx_op op = nvlx::read_op(peer, home.target.data(), source, 0);
        const auto begin = std::chrono::steady_clock::now();
        {
            const nvlx::request request = take(home.engine.transfer(op, options));
            EXPECT(request.test().code() == NVLX_EAGAIN);
        }
        EXPECT(nvlx::detail::left.exchange(false));
        { const nvlx::region ends = std::move(home.target_region); }
        EXPECT(nvlx::detail::left && std::chrono::steady_clock::now() - begin < 5s);
    }
    char byte = 1;
    EXPECT(nvlx_memcpy(left, &byte, reinterpret_cast<void *>(source), 1) == 0 && byte == 0);
    kill(follower, SIGKILL);
    waitpid(follower, &status, 0);
}

int main() {
    const std::string address = "@test-cxx-stopped-" + std::to_string(getpid());
    const pid_t follower = fork();
    if (follower == 0) {
        follow(address);
        return 1;
    }
    test_transfers();
    test_codes();
    test_moves();
    test_rendezvous();
    test_sleep_and_signals();
    test_relay(address + "-relay");
    test_ends();
    test_destructors(follower, address);
    puts("ok");
}
