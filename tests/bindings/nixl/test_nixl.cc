/* The NIXL plugin, driven as NIXL drives it, by the plugin's own declarations: what a wheel does not get at, and what
 * must be seen by sanitizers. Two agents of one process, on the host backend.
 * Usage: test_nixl libplugin_NVLX.so. SPDX-License-Identifier: Apache-2.0 */
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <list>
#include <optional>
#include <thread>

#include "agents.h"

/* ---- Tests --------------------------------------------------------------------------------------------- */

/* Where the bytes of a list lie. */
struct Sides {
    Segment here, there;
};

/* Memory of one side, here of GPU 0, there of GPU 1. DRAM is plain; where the other side is VRAM, it is such as that
 * GPU reaches. */
static uint8_t *place(Segment own, Segment other, int gpu) {
    static std::list<std::vector<uint8_t>> plain;
    if (own == Segment::vram)
        return allocate(gpu);
    if (other == Segment::vram)
        return allocate(1 - gpu, NVLX_ALLOC_HOST);
    return plain.emplace_back(length).data();
}

/* No two pages alike, and no byte in two seeds. */
static void fill(uint8_t *memory_there, int seed) {
    uint8_t page[4096];
    for (size_t i = 0; i < sizeof page; i++)
        page[i] = static_cast<uint8_t>(i * 7 + static_cast<size_t>(seed));
    for (size_t at = 0; at < length; at += sizeof page) {
        const uint64_t stamp = at ^ static_cast<uint64_t>(seed) * 0x0101010101010101u;
        memcpy(page, &stamp, sizeof stamp);
        memcpy(memory_there + at, page, sizeof page);
    }
}

static void moves_lists(const Sides &sides) {
    Agent a("a"), b("b");
    uint8_t *const here = place(sides.here, sides.there, 0);
    uint8_t *const there = place(sides.there, sides.here, 1);
    Region *const region = a.add(here, length, sides.here);
    const std::string words[] = {"", std::string("a\0b", 3), std::string(64000, 'x'), std::string(2u << 20, 'y')};
    b.add(there, length, sides.there);
    a.load(b.mine);
    for (const size_t bytes : {size_t{1}, size_t{4096}, length / 4})
        for (const Operation operation : {Operation::read, Operation::write}) {
            const size_t count = std::min<size_t>(length / bytes / 2, 4000);
            fill(here, 1);
            fill(there, 2);
            Posted list = {&a, "b", operation, pieces(sides.here, region, here, bytes, 2 * bytes, count),
                           pieces(sides.there, a.theirs[0], there, bytes, 2 * bytes, count)};
            EXPECT(list.prepare() == Status::success);
            for (const std::string &word : words) {
                EXPECT(list.finish(&word) == Status::success);
                const Notices notices = b.notices(1);
                EXPECT(notices[0].first == "a" && notices[0].second == word);
            }
            for (size_t i = 0; i < count; i++)
                EXPECT(!memcmp(here + 2 * bytes * i, there + 2 * bytes * i, bytes) &&
                       here[2 * bytes * i + bytes] != there[2 * bytes * i + bytes]);
            EXPECT(list.finish() == Status::success && list.release() == Status::success);
        }
    a.remove("b");
}

/* Nothing to move, but a message. */
static void carries_messages_alone(const Sides &sides) {
    Agent a("a"), b("b");
    uint8_t *const here = place(sides.here, sides.there, 0), *const there = place(sides.there, sides.here, 1);
    Region *const region = a.add(here, length, sides.here);
    const std::string word = "all is there", long_word(100000, 'z');
    b.add(there, length, sides.there);
    a.load(b.mine);
    for (const size_t count : {0, 3}) {
        Posted list = {&a, "b", Operation::write, pieces(sides.here, region, here, 0, 16, count),
                       pieces(sides.there, a.theirs[0], there, 0, 16, count)};
        EXPECT(list.prepare() == Status::success);
        for (const std::string &each : {word, long_word}) {
            EXPECT(list.finish(&each) == Status::success);
            EXPECT(b.notices(1)[0].second == each);
        }
        EXPECT(list.finish() == Status::success && list.release() == Status::success);
    }
}

static void loops_back(const Sides &sides) {
    Agent a("a");
    uint8_t *const here = place(sides.here, sides.there, 0), *const there = place(sides.there, sides.here, 1);
    Region *const regions[] = {a.add(here, length, sides.here), a.add(there, length, sides.there)};
    Region *loop = nullptr;
    EXPECT(a.engine->load_local(regions[1], loop) == Status::success && loop != regions[1]);
    for (const Operation operation : {Operation::read, Operation::write}) {
        fill(here, 3);
        fill(there, 4);
        Posted list = {&a, "a", operation, pieces(sides.here, regions[0], here, length),
                       pieces(sides.there, loop, there, length)};
        EXPECT(list.prepare() == Status::success && list.finish() == Status::success);
        EXPECT(!memcmp(here, there, length) && list.release() == Status::success);
    }
    EXPECT(a.engine->send_notice("a", "to myself") == Status::success && a.notices(1)[0].second == "to myself");
    /* At the end NIXL deregisters first. */
    for (Region *const region : regions)
        EXPECT(a.engine->deregister_memory(region) == Status::success);
    EXPECT(a.engine->unload(loop) == Status::success);
}

/* A request that is released in flight says so, without waiting; released again, it has ended. */
static void releases_what_has_ended(const Sides &sides) {
    Agent a("a"), b("b");
    uint8_t *const here = place(sides.here, sides.there, 0);
    uint8_t *const there = place(sides.there, sides.here, 1);
    Region *const region = a.add(here, length, sides.here);
    b.add(there, length, sides.there);
    a.load(b.mine);
    int kept = 0;
    for (int round = 0; round < 10; round++) {
        fill(here, 0);
        fill(there, round);
        Posted list = {&a, "b", Operation::read, pieces(sides.here, region, here, length),
                       pieces(sides.there, a.theirs[0], there, length)};
        EXPECT(list.prepare() == Status::success && list.post() >= Status::success);
        const Status again = list.post();
        EXPECT(again == Status::active || again >= Status::success);
        if (list.release() == Status::active) {
            kept++;
            EXPECT(list.release() == Status::success);
        }
        EXPECT(!memcmp(here, there, length));
    }
    EXPECT(kept > 0);
}

/* Whatever goes first: the request, the peer, the memory. */
static void releases_in_any_order(const Sides &sides) {
    Agent a("a"), b("b");
    uint8_t *const here = place(sides.here, sides.there, 0);
    uint8_t *const there = place(sides.there, sides.here, 1);
    for (int order = 0; order < 4; order++) {
        Region *const region = a.add(here, length, sides.here);
        b.mine.ranges.clear();
        Region *const remote = b.add(there, length, sides.there);
        a.load(b.mine);
        Posted list = {&a, "b", Operation::write, pieces(sides.here, region, here, length),
                       pieces(sides.there, a.theirs[0], there, length)};
        EXPECT(list.prepare() == Status::success && list.post() >= Status::success);
        if (order & 1) /* while it is in flight: waits for it */
            EXPECT(a.engine->deregister_memory(region) == Status::success);
        if (order & 2)
            a.remove("b");
        EXPECT(list.wait() == Status::success);
        if (order)
            EXPECT(list.post() == Status::not_found);
        EXPECT(list.release() == Status::success);
        if (!(order & 1))
            EXPECT(a.engine->deregister_memory(region) == Status::success);
        EXPECT(b.engine->deregister_memory(remote) == Status::success);
        if (!(order & 2))
            a.remove("b");
    }
}

/* The same address registered again is another region: old metadata does not reach it, prepared or not. */
static void knows_generations(const Sides &sides) {
    Agent a("a"), b("b");
    uint8_t *const here = place(sides.here, sides.there, 0);
    uint8_t *const there = place(sides.there, sides.here, 1);
    Region *const region = a.add(here, length, sides.here);
    Region *const remote = b.add(there, length, sides.there);
    a.load(b.mine);
    Posted before = {&a, "b", Operation::read, pieces(sides.here, region, here, length),
                     pieces(sides.there, a.theirs[0], there, length)};
    Posted after = before;
    EXPECT(before.prepare() == Status::success && before.finish() == Status::success);
    EXPECT(b.engine->deregister_memory(remote) == Status::success);
    EXPECT(before.finish() == Status::not_found);
    b.mine.ranges.clear();
    b.add(there, length, sides.there);
    EXPECT(before.finish() == Status::not_found && before.release() == Status::success);
    std::this_thread::sleep_for(300ms); /* the news of the new one comes by itself */
    const Status prepared = after.prepare();
    EXPECT(prepared == Status::not_found || (sides.there == Segment::dram && after.finish() == Status::not_found));
    if (prepared == Status::success)
        EXPECT(after.release() == Status::success);
    a.remove("b");
    a.load(b.mine);
    after.there = pieces(sides.there, a.theirs[0], there, length);
    EXPECT(after.prepare() == Status::success && after.finish() == Status::success);
    EXPECT(after.release() == Status::success);
}

/* Memory that is registered twice: a request with one registration has the bytes of the other, too. */
static void keeps_what_is_registered_twice() {
    for (const Segment segment : {Segment::dram, Segment::vram}) {
        Agent a("a"), b("b");
        uint8_t *const here = place(segment, Segment::vram, 0), *const there = allocate(1);
        Region *const all = a.add(here, length, segment), *const part = a.add(here + 4096, 8192, segment);
        b.add(there, length, Segment::vram);
        a.load(b.mine);
        for (const auto &[mine, other] : {std::pair{all, part}, std::pair{part, all}}) {
            Posted list = {&a, "b", Operation::write, pieces(segment, mine, here + 4096, 4096),
                           pieces(Segment::vram, a.theirs[0], there, 4096)},
                   same = list;
            same.here.items[0].region = other;
            fill(here, mine == all);
            EXPECT(same.prepare() == Status::success && same.finish() == Status::success);
            EXPECT(list.prepare() == Status::success && same.release() == Status::success);
            EXPECT(a.engine->deregister_memory(other) == Status::active);
            EXPECT(list.finish() == Status::success && !memcmp(here + 4096, there, 4096));
            EXPECT(list.release() == Status::success);
        }
        EXPECT(a.engine->deregister_memory(all) == Status::success);
        EXPECT(a.engine->deregister_memory(part) == Status::success);
    }
}

static void refuses_what_is_wrong() {
    Agent a("a"), b("b");
    std::vector<uint8_t> x(length), y(length);
    uint8_t *const here = allocate(0), *const there = allocate(1);
    Region *const region = a.add(here, length, Segment::vram);
    Region *const host = a.add(x.data(), length, Segment::dram);
    b.add(there, length / 2, Segment::vram);
    b.add(y.data(), length / 2, Segment::dram);
    a.load(b.mine);
    Posted beyond = {&a, "b", Operation::read, pieces(Segment::vram, region, here, length),
                     pieces(Segment::vram, a.theirs[0], there, length)};
    EXPECT(beyond.prepare() == Status::not_found && !beyond.request);
    beyond.there.items[0].length--;
    EXPECT(beyond.prepare() == Status::invalid && !beyond.request);
    Posted mixed = {&a, "b", Operation::read, pieces(Segment::dram, host, x.data(), 4096),
                    pieces(Segment::vram, a.theirs[0], there, 4096)};
    EXPECT(mixed.prepare() == Status::not_supported && !mixed.request);
    for (const size_t bytes : {size_t{4096}, length}) { /* their owner knows that no GPU reaches them, and how many */
        Posted away = {&a, "b", Operation::write, pieces(Segment::vram, region, here, bytes),
                       pieces(Segment::dram, a.theirs[1], y.data(), bytes)};
        EXPECT(away.prepare() == Status::success);
        EXPECT(away.finish() == (bytes == length ? Status::not_found : Status::not_supported));
        EXPECT(away.release() == Status::success);
    }
    mixed.peer = "c";
    EXPECT(mixed.prepare() == Status::not_found && !mixed.request);
    Metadata far = b.mine;
    far.card.replace(7, 8, "00000000"); /* of the boot id */
    far.agent = "far";
    a.load(far, Status::not_supported);
    far.card = "ucx";
    a.load(far, Status::mismatch);
    Region *out = nullptr;
    EXPECT(a.engine->load_remote({{1, 1, 0}, "vram 1"}, Segment::vram, "b", out) == Status::mismatch && !out);
    EXPECT(a.engine->send_notice("b", std::string((2u << 20) + 1, 'z')) == Status::invalid);
    EXPECT(a.engine->send_notice("c", "") == Status::not_found);
    EXPECT(a.engine->register_memory({{8, 4096, 0}, ""}, Segment::vram, out) == Status::not_supported && !out);
    for (const auto &[name, value] : Parameters{{"connect_ms", "1s"}, {"mechanism", "ucx"}, {"folder", "/nowhere"}}) {
        const Parameters given = {{name, value}};
        EXPECT(!make("c", given));
    }
}

/* A peer is connected when a request or a message needs it, not before: metadata of one that is gone can be loaded. */
static void connects_late() {
    Agent a("a", {{"connect_ms", "20"}});
    Metadata gone;
    std::vector<uint8_t> x(length);
    Region *const region = a.add(x.data(), length, Segment::dram);
    {
        Agent b("b");
        b.add(x.data(), length, Segment::dram);
        gone = b.mine;
    }
    a.load(gone);
    Posted list = {&a, "b", Operation::read, pieces(Segment::dram, region, x.data(), 4096),
                   pieces(Segment::dram, a.theirs[0], x.data(), 4096)};
    EXPECT(list.prepare() == Status::disconnected && !list.request);
    EXPECT(a.engine->connect("b") == Status::disconnected);
    EXPECT(a.engine->send_notice("b", "hello") == Status::disconnected);
    a.remove("b");
}

/* One that ends, also in the middle of a transfer, is lost, and can be loaded again without having been removed. */
static void loses_peers(const Sides &sides) {
    Agent a("a");
    uint8_t *const here = place(sides.here, sides.there, 0);
    uint8_t *const there = place(sides.there, sides.here, 1);
    Region *const region = a.add(here, length, sides.here);
    Request *old = nullptr;
    for (int life = 0; life < 3; life++) {
        Agent b("b");
        b.add(there, length, sides.there);
        a.load(b.mine);
        Posted list = {&a, "b", Operation::read, pieces(sides.here, region, here, length),
                       pieces(sides.there, a.theirs.back(), there, length)};
        EXPECT(list.prepare() == Status::success && list.finish() == Status::success);
        if (old) {
            Posted before = list;
            before.request = old;
            EXPECT(before.post() == Status::not_found && before.release() == Status::success);
        }
        EXPECT(list.post() >= Status::success);
        b.end();
        const Status last = list.wait();
        EXPECT(last == Status::success || last == Status::disconnected);
        Status status = last;
        for (int i = 0; i < 5000 && status != Status::disconnected; i++, std::this_thread::sleep_for(1ms))
            EXPECT((status = list.finish()) == Status::success || status == Status::disconnected);
        EXPECT(status == Status::disconnected && list.post() == Status::disconnected);
        EXPECT(a.engine->send_notice("b", "hello") == Status::disconnected);
        old = list.request;
    }
    EXPECT(a.engine->release(old) == Status::success);
    a.remove("b");
}

/* The engine is made in a thread, and each step is done in another one, as handles of Python are. */
static void needs_no_thread(const Sides &sides) {
    const auto apart = [](const std::function<void()> &step) { std::thread(step).join(); };
    uint8_t *const here = place(sides.here, sides.there, 0);
    uint8_t *const there = place(sides.there, sides.here, 1);
    std::optional<Agent> a, b;
    Region *region = nullptr;
    Posted list = {};
    fill(here, 1);
    fill(there, 2);
    apart([&] { a.emplace("a"); });
    apart([&] { b.emplace("b"); });
    apart([&] { region = a->add(here, length, sides.here); });
    apart([&] { b->add(there, length, sides.there); });
    apart([&] { a->load(b->mine); });
    list = {&*a, "b", Operation::write, pieces(sides.here, region, here, length),
            pieces(sides.there, a->theirs[0], there, length)};
    apart([&] { EXPECT(list.prepare() == Status::success); });
    apart([&] { EXPECT(list.post() >= Status::success); });
    apart([&] { EXPECT(list.wait() == Status::success); });
    EXPECT(!memcmp(here, there, length));
    apart([&] { EXPECT(list.release() == Status::success); });
    apart([&] { EXPECT(a->engine->deregister_memory(region) == Status::success); });
    apart([&] { a.reset(); });
    apart([&] { b.reset(); });
}

/* A parameter counts more than its variable. */
static void reads_variables() {
    const Parameters given = {{"mechanism", "engine"}, {"of another backend", "x"}};
    for (const char *const name :
         {"MECHANISM", "CONNECT_MS", "ANSWER_MS", "WITHDRAW_MS", "CONNECTIONS", "MAX_SMS", "LIST_MEMORY", "TRACED"}) {
        const std::string variable = std::string("NVLX_NIXL_") + name;
        setenv(variable.c_str(), "ucx", 1);
        EXPECT(!make("c", {}));
        unsetenv(variable.c_str());
    }
    setenv("NVLX_NIXL_MECHANISM", "ucx", 1);
    Agent c("c", given);
    unsetenv("NVLX_NIXL_MECHANISM");
}

/* Each with an agent of its own, all with one owner: peers come and go, in threads, beside transfers. */
static void threads() {
    Agent owner("owner"), reader("reader");
    std::vector<uint8_t> x(length), y(length);
    uint8_t *const there = allocate(1), *const here = allocate(0);
    owner.add(there, length, Segment::vram);
    owner.add(y.data(), length, Segment::dram);
    Region *const region = reader.add(here, length, Segment::vram), *const host =
                                                                        reader.add(x.data(), length, Segment::dram);
    std::atomic<bool> stop{false};
    std::atomic<int> moved{0};
    std::vector<std::thread> all;
    reader.load(owner.mine);
    for (size_t i = 0; i < 4; i++)
        all.emplace_back([&, i] {
            const Segment segment = i % 2 ? Segment::dram : Segment::vram;
            const size_t at = i * 65536;
            while (!stop) {
                Posted list = {&reader, "owner", Operation::read,
                               pieces(segment, i % 2 ? host : region, (i % 2 ? x.data() : here) + at, 512, 1024, 64),
                               pieces(segment, reader.theirs[i % 2], (i % 2 ? y.data() : there) + at, 512, 1024, 64)};
                const std::string word = "read";
                EXPECT(list.prepare() == Status::success && list.finish(&word) == Status::success);
                EXPECT(list.release() == Status::success);
                moved++;
            }
        });
    all.emplace_back([&] {
        for (int i = 0; !stop; i++) {
            Agent other("other " + std::to_string(i));
            other.load(owner.mine);
            EXPECT(other.engine->connect("owner") == Status::success);
            EXPECT(other.engine->send_notice("owner", "here I am") == Status::success);
            other.remove("owner");
        }
    });
    all.emplace_back([&] {
        for (int i = 0; !stop; i++) {
            Region *made = nullptr;
            const Described range = {{reinterpret_cast<uint64_t>(there), 4096, 0}, ""};
            EXPECT(owner.engine->register_memory(range, Segment::vram, made) == Status::success);
            EXPECT(owner.engine->deregister_memory(made) == Status::success);
        }
    });
    std::this_thread::sleep_for(1500ms);
    stop = true;
    for (std::thread &thread : all)
        thread.join();
    Notices taken;
    EXPECT(owner.engine->take_notices(taken) == Status::success && moved > 4);
    printf("%d transfers beside what comes and goes\n", moved.load());
}

/* NIXL asks a plugin for its parameters so, before it makes an engine. */
static void begins_again() {
    fini();
    EXPECT(init() == plugin && plugin->version == 1 && !strcmp(plugin->name(), "NVLX"));
    EXPECT(plugin->options().count("connect_ms") && plugin->segments().size() == 2);
}

int main(int count, char **words) {
    load_plugin(count, words);
    begins_again();
    const std::pair<const char *, Sides> all[] = {{"VRAM", {Segment::vram, Segment::vram}},
                                                  {"DRAM", {Segment::dram, Segment::dram}},
                                                  {"DRAM to a peer's VRAM", {Segment::dram, Segment::vram}},
                                                  {"VRAM to a peer's DRAM", {Segment::vram, Segment::dram}}};
    for (const auto &[word, sides] : all) {
        const std::pair<const char *, void (*)(const Sides &)> tests[] = {
            {"lists", moves_lists},
            {"messages alone", carries_messages_alone},
            {"loopback", loops_back},
            {"release in flight", releases_what_has_ended},
            {"release in any order", releases_in_any_order},
            {"peers that end", loses_peers},
            {"no thread", needs_no_thread},
            {"generations", knows_generations}};
        for (const auto &[name, test] : tests) {
            test(sides);
            printf("ok: %s, %s\n", name, word);
        }
    }
    keeps_what_is_registered_twice();
    refuses_what_is_wrong();
    reads_variables();
    connects_late();
    threads();
    EXPECT(!nvlx_engine_destroy(memory));
    return 0;
}
