/* What NIXL and a backend say to each other in memory: own declarations of a binary interface, without NIXL's headers.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * It was read from the wheels nixl-cu12 and nixl-cu13, and is the same in 1.0.0 to 1.5.1. The names are ours. What
 * counts is the order of the virtual functions, and where fields lie: all of it is asserted at the end. Another layout
 * of the standard library (_GLIBCXX_USE_CXX11_ABI=0, _GLIBCXX_DEBUG) fails to compile. What NIXL does with all this:
 *
 * - create: init, make, connection_info, connect(own name), segments.
 * - register: for each range register_memory, load_local, public_data. Its out parameters hold what was there before.
 * - add a peer: load_connection once, load_remote for each range. connect is called by make_connection alone.
 * - transfer: prepare, then post, check while it is in progress, post again ...; release. In any thread.
 * - deregister: unload (the object of load_local), deregister_memory. At the end of an agent in the opposite order.
 * - remove a peer: unload of each range, disconnect. Requests to it may be released later. */
#ifndef NVLX_BINDINGS_NIXL_ABI_H
#define NVLX_BINDINGS_NIXL_ABI_H

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace nvlx::nixl::abi {

enum class Segment : int { dram = 0, vram = 1 };
enum class Operation : int { read = 0, write = 1 };
enum class Status : int {
    in_progress = 1,
    success = 0,
    invalid = -2,
    backend = -3,
    not_found = -4,
    mismatch = -5,
    not_allowed = -6,
    active = -7, /* posted again, or released, while in flight */
    not_supported = -9,
    disconnected = -10
};

struct Range {
    uint64_t address;
    uint64_t length;
    uint64_t device; /* whatever the caller says: never a peer's identity */
};
struct Described : Range {
    std::string text; /* what public_data has told, at the peer's; of a range to be registered, the caller's */
};
struct Region { /* only its address means something to NIXL */
    virtual ~Region() = default;
    bool is_private = true;
};
struct Piece : Range {
    Region *region;
};
template <class Item> struct List {
    const void *table; /* virtual functions that we do not call */
    int segment;
    std::vector<Item> items;
};
using Pieces = List<Piece>;

struct Request { /* only its address means something to NIXL */
    virtual ~Request() = default;
};
struct PostOptions {
    std::string message;
    bool has_message;
    std::string custom;
};
using Notices = std::vector<std::pair<std::string, std::string>>; /* agent, message */
using Parameters = std::unordered_map<std::string, std::string>;
using Attributes = std::vector<std::optional<Parameters>>;

struct EngineData {
    std::string backend;
    Parameters parameters;
    std::vector<uint64_t> telemetry; /* stays empty */
    std::mutex telemetry_mutex;
    bool failed;
    const std::string agent;
    const bool telemetry_wanted;
};

struct MakeOptions {
    std::string agent;
    std::string backend;
    const Parameters *parameters;
    bool progress_thread;
    uint64_t progress_us;
    int lock_mode;
    bool telemetry;
};

/* The order of these functions is the interface. */
class Engine {
  public:
    Engine(std::string backend, Parameters parameters, std::string agent, bool telemetry)
        : data{std::move(backend), std::move(parameters), {}, {}, false, std::move(agent), telemetry} {
    }
    Engine(const Engine &) = delete;
    Engine &operator=(const Engine &) = delete;

    virtual ~Engine() = default;
    virtual bool supports_remote() const = 0;
    virtual bool supports_local() const = 0;
    virtual bool supports_notices() const = 0;
    virtual std::vector<Segment> segments() const = 0;
    virtual Status register_memory(const Described &range, const Segment &segment, Region *&region) = 0;
    virtual Status deregister_memory(Region *region) = 0;
    virtual Status connect(const std::string &peer) = 0;
    virtual Status disconnect(const std::string &peer) = 0;
    virtual Status unload(Region *region) = 0;
    virtual Status prepare(const Operation &operation, const Pieces &local, const Pieces &remote,
                           const std::string &peer, Request *&request, const PostOptions *options) const = 0;
    virtual Status post(const Operation &operation, const Pieces &local, const Pieces &remote, const std::string &peer,
                        Request *&request, const PostOptions *options) const = 0;
    virtual Status check(Request *request) const = 0;
    virtual Status release(Request *request) const = 0;
    virtual Status prepare_remote_view(const void *list, void *&view, const PostOptions *options) const = 0;
    virtual Status prepare_local_view(const void *list, void *&view, const PostOptions *options) const = 0;
    virtual void release_view(void *view) const = 0;
    virtual Status public_data(const Region *region, std::string &text) const = 0;
    virtual Status connection_info(std::string &text) const = 0;
    virtual Status load_connection(const std::string &peer, const std::string &text) = 0;
    virtual Status load_remote(const Described &range, const Segment &segment, const std::string &peer,
                               Region *&region) = 0;
    virtual Status load_local(Region *mine, Region *&region) = 0;
    virtual Status take_notices(Notices &notices) = 0;
    virtual Status send_notice(const std::string &peer, const std::string &message) const = 0;
    virtual Status query(const List<Described> &ranges, Attributes &attributes) const = 0;
    virtual Status estimate(const Operation &operation, const Pieces &local, const Pieces &remote,
                            const std::string &peer, Request *const &request, std::chrono::microseconds &duration,
                            std::chrono::microseconds &error, int &method, const PostOptions *options) const = 0;

  protected:
    EngineData data;
};

struct Plugin {
    int version;
    Engine *(*make)(const MakeOptions *options);
    void (*unmake)(Engine *engine);
    const char *(*name)();
    const char *(*release)();
    Parameters (*options)();
    std::vector<Segment> (*segments)();
};
constexpr int plugin_version = 1;

/* ---- All of it, to the byte --------------------------------------------------------------------------- */

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof" /* of classes that are not standard layout, gcc and clang know it  \
                                                     */
constexpr size_t at_failed = 112 + sizeof(std::mutex);
static_assert(sizeof(void *) == 8 && sizeof(size_t) == 8 && sizeof(int) == 4);
static_assert(sizeof(std::string) == 32 && sizeof(std::vector<int>) == 24 && sizeof(Parameters) == 56);
static_assert(sizeof(Range) == 24 && offsetof(Range, length) == 8 && offsetof(Range, device) == 16);
static_assert(sizeof(Described) == 56 && offsetof(Described, text) == 24);
static_assert(sizeof(Piece) == 32 && offsetof(Piece, region) == 24);
static_assert(sizeof(Pieces) == 40 && offsetof(Pieces, segment) == 8 && offsetof(Pieces, items) == 16);
static_assert(sizeof(List<Described>) == 40);
static_assert(sizeof(Request) == 8);
static_assert(sizeof(Region) == 16 && offsetof(Region, is_private) == 8);
static_assert(sizeof(PostOptions) == 72 && offsetof(PostOptions, has_message) == 32 &&
              offsetof(PostOptions, custom) == 40);
static_assert(sizeof(Notices) == 24 && sizeof(Notices::value_type) == 64);
static_assert(sizeof(Attributes) == 24 && sizeof(Attributes::value_type) == 64);
static_assert(sizeof(MakeOptions) == 96 && offsetof(MakeOptions, backend) == 32 &&
              offsetof(MakeOptions, parameters) == 64);
static_assert(offsetof(MakeOptions, progress_thread) == 72 && offsetof(MakeOptions, progress_us) == 80);
static_assert(offsetof(MakeOptions, lock_mode) == 88 && offsetof(MakeOptions, telemetry) == 92);
/* Of an engine, 8 bytes more: its table is before. */
static_assert(offsetof(EngineData, parameters) == 32 && offsetof(EngineData, telemetry) == 88);
static_assert(offsetof(EngineData, telemetry_mutex) == 112 && offsetof(EngineData, failed) == at_failed);
static_assert(offsetof(EngineData, agent) == at_failed + 8 && offsetof(EngineData, telemetry_wanted) == at_failed + 40);
static_assert(sizeof(Engine) == sizeof(EngineData) + 8 && sizeof(EngineData) == at_failed + 48);
#ifdef __x86_64__
static_assert(sizeof(Engine) == 208);
#endif
static_assert(sizeof(Plugin) == 56 && offsetof(Plugin, make) == 8 && offsetof(Plugin, segments) == 48);
#pragma GCC diagnostic pop

} // namespace nvlx::nixl::abi

#endif
