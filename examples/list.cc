// A list in one call, from C++: a process reads all 8192 blocks of another one's cache, in an order of its own.
// SPDX-License-Identifier: Apache-2.0
#include <nvlxfer.hpp>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>

constexpr size_t blocks = 8192, block_words = 1024, block_bytes = block_words * sizeof(uint32_t);

// Memory for all blocks, filled with `words`.
static nvlx::memory make_cache(nvlx::engine &engine, int gpu, const std::vector<uint32_t> &words) {
    nvlx::memory cache = engine.alloc(gpu, blocks * block_bytes).value();
    engine.copy(cache.data(), words.data(), cache.size()).value();
    return cache;
}

static int own(nvlx::engine &engine, int gpu, const std::string &address) {
    int status = 1;
    std::vector<uint32_t> words(blocks * block_words);
    std::iota(words.begin(), words.end(), 0);
    const nvlx::memory cache = make_cache(engine, gpu, words);
    const nvlx::region region = engine.register_region(cache.data(), cache.size(), {"cache", NVLX_ACCESS_READ}).value();
    engine.serve(address).value();
    wait(&status); // until the other one has read
    return status == 0 ? 0 : 1;
}

static int read_all(nvlx::engine &engine, int gpu, const std::string &address) {
    std::vector<uint32_t> words(blocks * block_words);
    const nvlx::memory cache = make_cache(engine, gpu, words);
    const nvlx::region region = engine.register_region(cache.data(), cache.size(), {nullptr, NVLX_ACCESS_NONE}).value();
    const nvlx::peer peer = engine.connect(address, std::chrono::seconds(30)).value();
    const uint64_t remote = peer.find("cache").value().address;

    std::vector<uint64_t> order(blocks); // of block i here, the number there
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(1));
    std::vector<nvlx_op> ops;
    for (size_t i = 0; i < blocks; i++) {
        char *local = static_cast<char *>(cache.data()) + i * block_bytes;
        ops.push_back(nvlx::read_op(peer, local, remote + order[i] * block_bytes, block_bytes));
    }
    const nvlx::request request = engine.transfer(ops).value();
    request.wait().value();

    size_t right = 0;
    engine.copy(words.data(), cache.data(), cache.size()).value();
    for (size_t i = 0; i < words.size(); i++)
        right += words[i] == order[i / block_words] * block_words + i % block_words ? 1 : 0;
    printf("%zu ops in one call, accepted in %.0f us: %zu of %zu words are right\n", ops.size(),
           static_cast<double>(request.info().value().submit_ns) / 1e3, right, words.size());
    return right == words.size() ? 0 : 1;
}

int main() try {
    const std::string address = "@list-" + std::to_string(getpid());
    const bool owner = fork() != 0;                            // before CUDA is used; the child reads
    const int gpu = owner ? 0 : nvlx::gpu_count().value() - 1; // the owner has the first one, the reader the last one
    nvlx::config config;
    config.gpus = &gpu;
    config.gpu_count = 1;
    nvlx::engine engine = nvlx::engine::create(config).value();
    return owner ? own(engine, gpu, address) : read_all(engine, gpu, address);
} catch (const nvlx::error &error) {
    fprintf(stderr, "%s\n", error.what());
    return 1;
}
