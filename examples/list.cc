// A list in one call, from C++: a process reads all 8192 blocks of another one's cache, in an order of its own.
// SPDX-License-Identifier: Apache-2.0
#include <nvlxfer.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

constexpr size_t blocks = 8192, block_words = 1024, block_bytes = block_words * sizeof(uint32_t);

struct Destroy {
    void operator()(nvlx_engine *engine) const {
        nvlx_engine_destroy(engine);
    }
};
using Engine = std::unique_ptr<nvlx_engine, Destroy>;

static void check(int code, const char *what) {
    if (code != 0) {
        fprintf(stderr, "%s: %s: %s\n", what, nvlx_strerror(code), nvlx_last_error());
        exit(1);
    }
}

// Memory for all blocks, filled with `words` and registered; the engine frees it.
static char *make_cache(nvlx_engine *engine, int gpu, const std::vector<uint32_t> &words, const char *name) {
    void *memory;
    nvlx_region *region;
    nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.name = name;
    options.access = name != nullptr ? NVLX_ACCESS_READ : NVLX_ACCESS_NONE;
    check(nvlx_alloc(engine, gpu, blocks * block_bytes, nullptr, &memory), "nvlx_alloc");
    check(nvlx_memcpy(engine, memory, words.data(), blocks * block_bytes), "nvlx_memcpy");
    check(nvlx_register(engine, memory, blocks * block_bytes, &options, &region), "nvlx_register");
    return static_cast<char *>(memory);
}

static int own(const Engine &engine, const std::string &address) {
    int status = 1;
    std::vector<uint32_t> words(blocks * block_words);
    std::iota(words.begin(), words.end(), 0);
    make_cache(engine.get(), 0, words, "cache");
    check(nvlx_serve(engine.get(), address.c_str(), nullptr), "nvlx_serve");
    wait(&status); // until the other one has read
    return status == 0 ? 0 : 1;
}

static int read_all(const Engine &engine, int gpu, const std::string &address) {
    nvlx_peer *peer;
    nvlx_request *request;
    nvlx_request_info info = {};
    uint64_t remote, length;
    std::vector<uint32_t> words(blocks * block_words);
    char *cache = make_cache(engine.get(), gpu, words, nullptr);
    check(nvlx_connect(engine.get(), address.c_str(), 30000000000, &peer), "nvlx_connect"); // within 30 s
    check(nvlx_peer_find(peer, "cache", &remote, &length), "nvlx_peer_find");

    std::vector<uint64_t> order(blocks); // of block i here, the number there
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(1));
    std::vector<nvlx_op> ops(blocks);
    for (size_t i = 0; i < blocks; i++) {
        ops[i].opcode = NVLX_OP_READ;
        ops[i].peer = peer;
        ops[i].local = cache + i * block_bytes;
        ops[i].remote = remote + order[i] * block_bytes;
        ops[i].length = block_bytes;
    }
    check(nvlx_transfer(engine.get(), ops.data(), ops.size(), nullptr, &request), "nvlx_transfer");
    check(nvlx_wait(request, -1), "nvlx_wait");
    info.size = sizeof info;
    check(nvlx_request_get_info(request, &info), "nvlx_request_get_info");
    check(nvlx_request_free(request), "nvlx_request_free");

    size_t right = 0;
    check(nvlx_memcpy(engine.get(), words.data(), cache, blocks * block_bytes), "nvlx_memcpy");
    for (size_t i = 0; i < words.size(); i++)
        right += words[i] == order[i / block_words] * block_words + i % block_words ? 1 : 0;
    printf("%zu ops in one call, accepted in %.0f us: %zu of %zu words are right\n", ops.size(),
           static_cast<double>(info.submit_ns) / 1e3, right, words.size());
    return right == words.size() ? 0 : 1;
}

int main() {
    const std::string address = "@list-" + std::to_string(getpid());
    const bool owner = fork() != 0; // before CUDA is used; the child reads
    int gpus;
    nvlx_engine *made;
    nvlx_config config;
    check(nvlx_gpu_count(NVLX_BACKEND_AUTO, &gpus), "nvlx_gpu_count");
    const int gpu = owner ? 0 : gpus - 1; // the owner has the first one, the reader the last one
    nvlx_config_init(&config);
    config.gpus = &gpu;
    config.gpu_count = 1;
    check(nvlx_engine_create(&config, &made), "nvlx_engine_create");
    const Engine engine(made);
    return owner ? own(engine, address) : read_all(engine, gpu, address);
}
