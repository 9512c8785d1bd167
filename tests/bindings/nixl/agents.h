/* Agents of the NIXL plugin in one process, on the host backend, driven as NIXL drives them. For one source file a
 * program. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLX_TEST_NIXL_AGENTS_H
#define NVLX_TEST_NIXL_AGENTS_H

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>

#include "bindings/nixl/abi.h"
#include "nvlxfer.h"

using namespace nvlx::nixl::abi;
using namespace std::chrono_literals;

#define EXPECT(condition)                                                                                              \
    ((condition) ? (void)0 : (fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition), exit(1)))

constexpr size_t length = 8u << 20;

inline Plugin *(*init)();
inline void (*fini)();
inline Plugin *plugin;
inline nvlx_engine *memory; /* only to allocate */

inline uint8_t *allocate(int gpu, uint32_t kind = 0) {
    nvlx_alloc_options options;
    void *address = nullptr;
    nvlx_alloc_options_init(&options);
    options.flags = kind;
    EXPECT(!nvlx_alloc(memory, gpu, length, &options, &address));
    return static_cast<uint8_t *>(address);
}

inline Engine *make(const std::string &agent, const Parameters &parameters) {
    const MakeOptions options = {agent, "NVLX", &parameters, true, 1, 1, false};
    return plugin->make(&options); // cppcheck-suppress returnDanglingLifetime ; it copies them
}

/* What an agent gives to others. */
struct Metadata {
    std::string agent, card;
    std::vector<std::pair<Segment, Described>> ranges;
};

struct Agent {
    explicit Agent(const std::string &word, Parameters parameters = {}) : name(word), given(std::move(parameters)) {
        EXPECT(engine && engine->connect(name) == Status::success);
        mine.agent = name;
        EXPECT(engine->connection_info(mine.card) == Status::success && !mine.card.empty());
    }
    Agent(const Agent &) = delete;
    Agent &operator=(const Agent &) = delete;
    ~Agent() {
        end();
    }
    void end() {
        for (Region *region : theirs)
            EXPECT(engine->unload(region) == Status::success);
        theirs.clear();
        if (engine)
            plugin->unmake(engine);
        engine = nullptr;
    }

    /* With garbage in the out parameters, as NIXL has it. */
    Region *add(void *address, size_t bytes, Segment segment) {
        Region *region = reinterpret_cast<Region *>(8);
        std::string text = "what was there before";
        const Described range = {{reinterpret_cast<uint64_t>(address), bytes, 0}, ""};
        EXPECT(engine->register_memory(range, segment, region) == Status::success);
        EXPECT(engine->public_data(region, text) == Status::success);
        mine.ranges.push_back({segment, {{range.address, range.length, 0}, text}});
        return region;
    }
    void load(const Metadata &other, Status expected = Status::success) {
        EXPECT(engine->load_connection(other.agent, other.card) == expected);
        for (const auto &[segment, range] : other.ranges) {
            Region *region = reinterpret_cast<Region *>(8);
            if (expected != Status::success)
                continue;
            EXPECT(engine->load_remote(range, segment, other.agent, region) == Status::success);
            theirs.push_back(region);
        }
    }
    /* As NIXL does. */
    void remove(const std::string &other) {
        for (Region *region : theirs)
            EXPECT(engine->unload(region) == Status::success);
        theirs.clear();
        EXPECT(engine->disconnect(other) == Status::success);
    }
    Notices notices(size_t count) {
        Notices all;
        for (int i = 0; i < 5000 && all.size() < count; i++, std::this_thread::sleep_for(1ms))
            EXPECT(engine->take_notices(all) == Status::success);
        EXPECT(all.size() == count);
        return all;
    }

    std::string name;
    Parameters given;
    Engine *engine = make(name, given);
    Metadata mine;
    std::vector<Region *> theirs;
};

/* `count` ranges of `bytes`, `stride` apart. */
inline Pieces pieces(Segment segment, Region *region, void *address, size_t bytes, size_t stride = 0,
                     size_t count = 1) {
    Pieces list = {nullptr, static_cast<int>(segment), {}};
    for (size_t i = 0; i < count; i++)
        list.items.push_back({{reinterpret_cast<uint64_t>(address) + i * stride, bytes, 0}, region});
    return list;
}

struct Posted {
    Agent *agent;
    std::string peer;
    Operation operation;
    Pieces here, there;
    Request *request = nullptr;

    Status prepare() {
        return agent->engine->prepare(operation, here, there, peer, request, nullptr);
    }
    Status post(const std::string *message = nullptr) {
        const PostOptions options = {message ? *message : "", message != nullptr, ""};
        return agent->engine->post(operation, here, there, peer, request, &options);
    }
    Status wait() {
        for (int i = 0; i < 100000; i++, std::this_thread::sleep_for(100us)) {
            const Status status = agent->engine->check(request);
            if (status != Status::in_progress)
                return status;
        }
        return Status::in_progress;
    }
    Status finish(const std::string *message = nullptr) {
        const Status status = post(message);
        return status == Status::in_progress ? wait() : status;
    }
    Status release() {
        return agent->engine->release(request);
    }
};

/* Loads the plugin that words[1] names, where no NIXL is. */
inline void load_plugin(int count, char **words) {
    setvbuf(stdout, nullptr, _IOLBF, 0);
    void *const library = count >= 2 ? dlopen(words[1], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE) : nullptr;
    if (!library) {
        fprintf(stderr, "usage: %s libplugin_NVLX.so (%s)\n", words[0], dlerror());
        exit(1);
    }
    init = reinterpret_cast<Plugin *(*)()>(dlsym(library, "nixl_plugin_init"));
    fini = reinterpret_cast<void (*)()>(dlsym(library, "nixl_plugin_fini"));
    unsetenv("NVLX_NIXL_ANY_VERSION");
    EXPECT(init && fini && !init());
    setenv("NVLX_NIXL_ANY_VERSION", "1", 1);
    plugin = init();
    EXPECT(plugin && !nvlx_engine_create(nullptr, &memory));
}

#endif
