// A C++ program outside of this project: reads its own memory through the objects of nvlxfer.hpp, sees an error.
// SPDX-License-Identifier: Apache-2.0
#include <iostream>
#include <nvlxfer.hpp>

int main() try {
    uint32_t sent = 0x5a5a5a5a, received = 0;
    nvlx::config config;
    config.backend = NVLX_BACKEND_HOST;
    nvlx::engine engine = nvlx::engine::create(config).value();
    const nvlx::memory memory = engine.alloc(0, 2 * sizeof sent).value();
    uint32_t *const words = static_cast<uint32_t *>(memory.data());
    const nvlx::region region = engine.register_region(words, memory.size(), {"words"}).value();
    engine.copy(words, &sent, sizeof sent).value();
    const nvlx::peer self = engine.open(engine.export_text().value()).value();
    const nvlx_op op = nvlx::read_op(self, words + 1, self.find("words").value().address, sizeof sent);
    engine.transfer(op).value().wait().value();
    engine.copy(&received, words + 1, sizeof received).value();
    if (received != sent || engine.open("no descriptor").code() != NVLX_EFORMAT) {
        std::cerr << "the bytes differ, or a malformed descriptor was not refused\n";
        return 1;
    }
    std::cout << "consumer.cc: libnvlxfer " << nvlx_version() << " on " << engine.backend_name() << '\n';
    return 0;
} catch (const nvlx::error &error) {
    std::cerr << error.what() << '\n';
    return 1;
}
