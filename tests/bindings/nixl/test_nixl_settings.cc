/* What a user of the NIXL plugin sets, as a parameter or a variable, and what the library and the kernel get of it:
 * this program stands between. Usage: test_nixl_settings libplugin_NVLX.so. SPDX-License-Identifier: Apache-2.0 */
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cstdarg>
#include <filesystem>
#include <vector>

#include "agents.h"

/* ---- What stands between ------------------------------------------------------------------------------- */

struct Seen {
    nvlx_config config;
    nvlx_serve_options options;
    std::string address;
    std::atomic<int64_t> connect_ns, sync_ns, unregister_ns;
    std::atomic<bool> traced;
};

static Seen seen;
static std::atomic<bool> shut{false}; /* copies of DRAM wait */

template <class Function> static Function *real(const char *name, Function *) {
    return reinterpret_cast<Function *>(dlsym(RTLD_NEXT, name));
}

extern "C" {

[[gnu::visibility("default")]] int nvlx_engine_create(const nvlx_config *config, nvlx_engine **engine) {
    if (config)
        seen.config = *config;
    return real("nvlx_engine_create", nvlx_engine_create)(config, engine);
}

[[gnu::visibility("default")]] int nvlx_serve(nvlx_engine *engine, const char *address,
                                              const nvlx_serve_options *options) {
    seen.address = address;
    seen.options = *options;
    return real("nvlx_serve", nvlx_serve)(engine, address, options);
}

[[gnu::visibility("default")]] int nvlx_connect(nvlx_engine *engine, const char *address, int64_t timeout_ns,
                                                nvlx_peer **peer) {
    seen.connect_ns = timeout_ns;
    return real("nvlx_connect", nvlx_connect)(engine, address, timeout_ns, peer);
}

[[gnu::visibility("default")]] int nvlx_peer_sync(nvlx_peer *peer, uint64_t generation, int64_t timeout_ns) {
    seen.sync_ns = timeout_ns;
    return real("nvlx_peer_sync", nvlx_peer_sync)(peer, generation, timeout_ns);
}

[[gnu::visibility("default")]] int nvlx_unregister(nvlx_region *region, int64_t timeout_ns) {
    seen.unregister_ns = timeout_ns;
    return real("nvlx_unregister", nvlx_unregister)(region, timeout_ns);
}

[[gnu::visibility("default")]] int prctl(int option, ...) noexcept {
    va_list words;
    va_start(words, option);
    unsigned long word[4];
    for (unsigned long &one : word)
        one = va_arg(words, unsigned long);
    va_end(words);
    if (option == PR_SET_PTRACER)
        seen.traced = true;
    return static_cast<int>(syscall(SYS_prctl, option, word[0], word[1], word[2], word[3]));
}

[[gnu::visibility("default")]] ssize_t process_vm_writev(pid_t pid, const iovec *lvec, unsigned long liovcnt,
                                                         const iovec *rvec, unsigned long riovcnt,
                                                         unsigned long flags) noexcept {
    while (shut)
        std::this_thread::sleep_for(1ms);
    return syscall(SYS_process_vm_writev, pid, lvec, liovcnt, rvec, riovcnt, flags);
}
}

/* ---- Tests --------------------------------------------------------------------------------------------- */

static std::string variable_of(const std::string &name) {
    std::string variable = "NVLX_NIXL_";
    for (const char letter : name)
        variable += static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
    return variable;
}

/* An agent that is given `all`, one way or the other. */
static void with_settings(const Parameters &all, bool as_variables, void (*check)(Agent &)) {
    for (const auto &[name, value] : all)
        if (as_variables)
            setenv(variable_of(name).c_str(), value.c_str(), 1);
    seen.traced = false;
    {
        Agent agent("a", as_variables ? Parameters() : all);
        check(agent);
    }
    for (const auto &[name, value] : all)
        unsetenv(variable_of(name).c_str());
}

/* Reads the other's VRAM, so that it is connected and looked up; connects in the other ways, too. */
static void use(Agent &agent, int64_t connect_ns) {
    Agent other("b");
    uint8_t *const here = allocate(0);
    Region *const region = agent.add(here, length, Segment::vram);
    other.add(allocate(1), length, Segment::vram);
    agent.load(other.mine);
    Posted list = {
        &agent, "b", Operation::read, pieces(Segment::vram, region, here, 4096),
        pieces(Segment::vram, agent.theirs[0], reinterpret_cast<void *>(other.mine.ranges[0].second.address), 4096)};
    seen.connect_ns = seen.sync_ns = seen.unregister_ns = -1;
    EXPECT(list.prepare() == Status::success && list.finish() == Status::success && list.release() == Status::success);
    EXPECT(agent.engine->deregister_memory(region) == Status::success);
    agent.remove("b");
    EXPECT(seen.connect_ns == connect_ns && seen.sync_ns == connect_ns);
    agent.load(other.mine);
    seen.connect_ns = -1;
    EXPECT(agent.engine->connect("b") == Status::success && seen.connect_ns == connect_ns);
    agent.remove("b");
    agent.load(other.mine);
    seen.connect_ns = -1;
    EXPECT(agent.engine->send_notice("b", "hello") == Status::success && seen.connect_ns == connect_ns);
    agent.remove("b");
}

static void check_given(Agent &agent) {
    EXPECT(seen.config.backend == NVLX_BACKEND_AUTO && seen.config.mechanism == NVLX_MECHANISM_COPY_ENGINE);
    EXPECT(seen.config.max_sms == 3 && seen.config.list_memory == 48u << 20);
    EXPECT(seen.options.max_connections == 7);
    EXPECT(seen.address.starts_with(std::filesystem::temp_directory_path().string() + "/nvlx-nixl-"));
    EXPECT(agent.mine.card.ends_with(seen.address));
    use(agent, 4321000000);
    EXPECT(seen.unregister_ns > 80000000000 && seen.unregister_ns <= 87654000000);
    std::vector<uint8_t> x(4096);
    EXPECT(agent.engine->deregister_memory(agent.add(x.data(), x.size(), Segment::dram)) == Status::success);
    EXPECT(!seen.traced);
}

static void check_defaults(Agent &agent) {
    nvlx_config config;
    nvlx_serve_options options;
    nvlx_config_init(&config);
    nvlx_serve_options_init(&options);
    EXPECT(seen.config.mechanism == NVLX_MECHANISM_AUTO && seen.config.max_sms == 0 && seen.config.list_memory == 0);
    EXPECT(seen.config.max_requests == config.max_requests && seen.options.users == options.users);
    EXPECT(seen.options.max_connections == 1024 && seen.address.starts_with("@nvlx-nixl-"));
    use(agent, 1000000000);
    EXPECT(seen.unregister_ns > 5000000000 && seen.unregister_ns <= 10000000000);
    std::vector<uint8_t> x(4096);
    EXPECT(agent.engine->deregister_memory(agent.add(x.data(), x.size(), Segment::dram)) == Status::success);
    EXPECT(seen.traced);
}

/* Where no variable names a backend, software GPUs are not taken for real ones. */
static void takes_no_software_gpus() {
    unsetenv("NVLX_BACKEND");
    delete make("a", {});
    setenv("NVLX_BACKEND", "host", 1);
    EXPECT(seen.config.backend == NVLX_BACKEND_CUDA);
}

/* A server lets in as many as `connections`; one that is removed makes room. */
static void lets_in_so_many() {
    Agent owner("owner", {{"connections", "1"}}), one("one"), two("two");
    one.load(owner.mine);
    two.load(owner.mine);
    EXPECT(one.engine->connect("owner") == Status::success && two.engine->connect("owner") == Status::backend);
    EXPECT(two.engine->send_notice("owner", "let me in") == Status::backend);
    one.remove("owner");
    for (int i = 0; i < 10000 && two.engine->connect("owner") != Status::success; i++)
        std::this_thread::sleep_for(1ms);
    EXPECT(two.engine->send_notice("owner", "thanks") == Status::success && owner.notices(1)[0].second == "thanks");
}

/* deregister_memory waits that long for who uses the memory, and then says so. */
static void waits_so_long() {
    Agent a("a", {{"withdraw_ms", "30"}}), b("b");
    std::vector<uint8_t> x(4096, 1), y(4096, 2);
    Region *const region = a.add(x.data(), x.size(), Segment::dram);
    b.add(y.data(), y.size(), Segment::dram);
    a.load(b.mine);
    Posted list = {&a, "b", Operation::read, pieces(Segment::dram, region, x.data(), x.size()),
                   pieces(Segment::dram, a.theirs[0], y.data(), y.size())};
    shut = true;
    EXPECT(list.prepare() == Status::success && list.post() == Status::in_progress);
    const auto begin = std::chrono::steady_clock::now();
    EXPECT(a.engine->deregister_memory(region) == Status::active && x[0] == 1);
    const auto took = std::chrono::steady_clock::now() - begin;
    EXPECT(took >= std::chrono::milliseconds(30) && took < std::chrono::seconds(8));
    shut = false;
    EXPECT(list.wait() == Status::success && a.engine->deregister_memory(region) == Status::success && x[0] == 2);
}

int main(int count, char **words) {
    load_plugin(count, words);
    const Parameters given = {{"mechanism", "engine"},
                              {"max_sms", "3"},
                              {"list_memory", std::to_string(48u << 20)},
                              {"connections", "7"},
                              {"connect_ms", "4321"},
                              {"withdraw_ms", "87654"},
                              {"folder", std::filesystem::temp_directory_path().string()},
                              {"traced", "0"}};
    for (const bool as_variables : {false, true})
        with_settings(given, as_variables, check_given);
    with_settings({{"mechanism", "kernel"}}, false,
                  [](Agent &) { EXPECT(seen.config.mechanism == NVLX_MECHANISM_KERNEL); });
    with_settings({}, false, check_defaults);
    takes_no_software_gpus();
    lets_in_so_many();
    waits_so_long();
    EXPECT(!nvlx_engine_destroy(memory));
    return 0;
}
