/* Reads parameters and environment variables. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/entry/settings.h"

#include <cctype>
#include <charconv>
#include <cstdlib>
#include <limits>

#include "bindings/nixl/say.h"
#include "nvlxfer.h"

namespace nvlx::nixl {

abi::Parameters default_parameters() {
    return {{"folder", ""},           {"connect_ms", "1000"}, {"answer_ms", "120000"},
            {"withdraw_ms", "10000"}, {"list_memory", "0"},   {"max_sms", "0"},
            {"connections", "1024"},  {"mechanism", "auto"},  {"traced", "1"}};
}

static std::string variable_of(const std::string &name) {
    std::string variable = "NVLX_NIXL_";
    for (const char letter : name)
        variable += static_cast<char>(std::toupper(static_cast<unsigned char>(letter)));
    return variable;
}

/* What the user gave, else the variable, else the default. */
static abi::Parameters gather(const abi::Parameters *parameters) {
    abi::Parameters all = default_parameters();
    for (auto &[name, value] : all) {
        const char *variable = getenv(variable_of(name).c_str());
        if (parameters && parameters->count(name))
            value = parameters->at(name);
        else if (variable)
            value = variable;
    }
    return all;
}

static bool read_number(const abi::Parameters &all, const char *name, uint64_t most, uint64_t &number) {
    const std::string &text = all.at(name);
    const char *const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, number);
    if (error == std::errc() && stop == end && number <= most)
        return true;
    say("the parameter %s (or %s) is '%s': it may be 0 to %llu", name, variable_of(name).c_str(), text.c_str(),
        static_cast<unsigned long long>(most));
    return false;
}

static bool read_mechanism(const abi::Parameters &all, uint32_t &mechanism) {
    const std::string &text = all.at("mechanism");
    if (text == "auto")
        mechanism = NVLX_MECHANISM_AUTO;
    else if (text == "engine")
        mechanism = NVLX_MECHANISM_COPY_ENGINE;
    else if (text == "kernel")
        mechanism = NVLX_MECHANISM_KERNEL;
    else
        say("the parameter mechanism (or NVLX_NIXL_MECHANISM) is '%s': it may be auto, engine or kernel", text.c_str());
    return mechanism != 0;
}

bool read_settings(const abi::Parameters *parameters, Settings &settings) {
    const uint64_t day_ms = 86400000;
    const abi::Parameters all = gather(parameters);
    uint64_t connect_ms = 0, answer_ms = 0, withdraw_ms = 0, traced = 0;
    settings = {};
    settings.folder = all.at("folder");
    if (!read_number(all, "connect_ms", day_ms, connect_ms) || !read_number(all, "answer_ms", day_ms, answer_ms) ||
        !read_number(all, "withdraw_ms", day_ms, withdraw_ms) ||
        !read_number(all, "list_memory", std::numeric_limits<uint64_t>::max(), settings.list_memory) ||
        !read_number(all, "max_sms", std::numeric_limits<uint32_t>::max(), settings.max_sms) ||
        !read_number(all, "connections", 65536, settings.connections) || !read_number(all, "traced", 1, traced) ||
        !read_mechanism(all, settings.mechanism))
        return false;
    settings.connect_ns = static_cast<int64_t>(connect_ms) * 1000000;
    settings.answer_ns = static_cast<int64_t>(answer_ms) * 1000000;
    settings.withdraw_ns = static_cast<int64_t>(withdraw_ms) * 1000000;
    settings.traced = traced == 1;
    return true;
}

} // namespace nvlx::nixl
