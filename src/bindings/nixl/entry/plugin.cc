/* What NIXL finds in libplugin_NVLX.so: two functions. SPDX-License-Identifier: Apache-2.0
 *
 * NIXL may call fini and init again in the same process, with engines alive: so fini ends nothing. */
#include <exception>
#include <memory>

#include "bindings/nixl/entry/backend.h"
#include "bindings/nixl/entry/guard.h"
#include "bindings/nixl/say.h"

namespace nvlx::nixl {

static abi::Engine *make(const abi::MakeOptions *options) {
    Settings settings;
    try {
        if (!read_settings(options->parameters, settings))
            return nullptr;
        auto backend = std::make_unique<Backend>(*options, settings);
        return backend->start() ? backend.release() : nullptr;
    } catch (const std::exception &error) {
        say("the backend cannot be made: %s", error.what());
        return nullptr;
    }
}

/* A forked child leaves its parent's as it is: the threads are not there, and the engine is not its own. */
static void unmake(abi::Engine *engine) {
    if (!static_cast<Backend *>(engine)->is_inherited())
        delete engine;
}

static const char *name() {
    return "NVLX";
}

static const char *release() {
    return nvlx_version();
}

static std::vector<abi::Segment> segments() {
    return {abi::Segment::dram, abi::Segment::vram};
}

} // namespace nvlx::nixl

extern "C" {

[[gnu::visibility("default")]] nvlx::nixl::abi::Plugin *nixl_plugin_init();
[[gnu::visibility("default")]] void nixl_plugin_fini();

nvlx::nixl::abi::Plugin *nixl_plugin_init() {
    using namespace nvlx::nixl;
    static abi::Plugin plugin = {abi::plugin_version, make, unmake, name, release, default_parameters, segments};
    try {
        return guard_admits() ? &plugin : nullptr;
    } catch (const std::exception &error) {
        say("the plugin cannot see which NIXL this is: %s", error.what());
        return nullptr;
    }
}

void nixl_plugin_fini() {
}
}
