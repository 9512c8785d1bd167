// A C++ program outside of this project: includes the header, makes an engine, sees an error.
// SPDX-License-Identifier: Apache-2.0
#include <nvlxfer.h>

#include <iostream>
#include <memory>
#include <string>

int main() {
    nvlx_config config;
    nvlx_config_init(&config);
    config.backend = NVLX_BACKEND_HOST;
    nvlx_engine *made = nullptr;
    if (int code = nvlx_engine_create(&config, &made)) {
        std::cerr << nvlx_strerror(code) << ": " << nvlx_last_error() << '\n';
        return 1;
    }
    std::unique_ptr<nvlx_engine, int (*)(nvlx_engine *)> engine(made, nvlx_engine_destroy);

    nvlx_peer *peer = nullptr;
    const std::string text = "no descriptor";
    if (nvlx_peer_open(engine.get(), text.data(), text.size(), &peer) != NVLX_EFORMAT) {
        std::cerr << "a malformed descriptor was not refused\n";
        return 1;
    }
    std::cout << "consumer.cc: libnvlxfer " << nvlx_version() << " on " << nvlx_backend_name(engine.get()) << '\n';
    return 0;
}
