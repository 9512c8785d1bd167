/* NIXL's functions over the library's. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/entry/backend.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <cstdlib>
#include <unordered_set>

#include "bindings/nixl/say.h"

namespace nvlx::nixl {

using abi::Segment;
using abi::Status;

struct Backend::State {
    explicit State(std::string name) : agent(std::move(name)) {
    }

    const std::string agent;
    nvlx_engine *engine = nullptr;
    std::string address, card;
    std::atomic<uint64_t> next_region{1};
    Worker closer{"nvlx-nixl-close"};
    Inbox inbox;
    std::optional<Copier> copier;
    std::optional<Surroundings> around; /* of requests */
    std::mutex mutex;                   /* guards all below */
    std::unordered_map<std::string, std::shared_ptr<Peer>> peers;
    std::unordered_map<abi::Request *, std::shared_ptr<Transfer>> transfers;
    std::unordered_set<Mine *> ranges; /* REGISTERED or WITHDRAWN */
    /* That nobody may ask for again, and were ACTIVE then: released, or of a peer that was removed. Some are in
     * `transfers`, too. One stays here until it has ended: its memory is in use. */
    std::unordered_set<std::shared_ptr<Transfer>> leaving;

    std::shared_ptr<Peer> find(const std::string &name) {
        const std::lock_guard guard(mutex);
        const auto peer = peers.find(name);
        return peer == peers.end() ? nullptr : peer->second;
    }
    template <class Used> bool revoke(const Used &used, Clock::time_point deadline);
    void remove(const std::string &name);
    void sweep();
};

/* All requests that use a range or a peer: false if one is still active at the deadline. Those are `leaving`. */
template <class Used> bool Backend::State::revoke(const Used &used, Clock::time_point deadline) {
    std::unordered_set<std::shared_ptr<Transfer>> users;
    bool all = true;
    {
        const std::lock_guard guard(mutex);
        for (const auto &[handle, transfer] : transfers)
            if (transfer->uses(used))
                users.insert(transfer);
        for (const auto &transfer : leaving)
            if (transfer->uses(used))
                users.insert(transfer);
    }
    for (const auto &transfer : users)
        if (!transfer->revoke(deadline)) {
            const std::lock_guard guard(mutex);
            leaving.insert(transfer);
            all = false;
        }
    return all;
}

void Backend::State::remove(const std::string &name) {
    std::shared_ptr<Peer> peer;
    {
        const std::lock_guard guard(mutex);
        const auto found = peers.find(name);
        if (found == peers.end())
            return;
        peer = std::move(found->second);
        peers.erase(found);
    }
    revoke(*peer, Clock::now());
}

/* Lets go what has ended since. What has not is there all the time, for who deregisters its memory. */
void Backend::State::sweep() {
    std::vector<std::shared_ptr<Transfer>> ended;
    {
        const std::lock_guard guard(mutex);
        ended.assign(leaving.begin(), leaving.end());
    }
    std::erase_if(ended, [](const auto &transfer) { return !transfer->revoke(Clock::now()); });
    const std::lock_guard guard(mutex);
    for (const auto &transfer : ended)
        leaving.erase(transfer);
}

/* ---- The whole ---------------------------------------------------------------------------------------- */

Backend::Backend(const abi::MakeOptions &options, const Settings &all)
    : Engine(options.backend, options.parameters ? *options.parameters : abi::Parameters(), options.agent,
             options.telemetry),
      settings(all), process(getpid()), state(std::make_unique<State>(options.agent)) {
}

bool Backend::is_inherited() const {
    return process != getpid();
}

/* Not on software GPUs in place of real ones, unless NVLX_BACKEND says so. */
bool Backend::make_engine() const {
    nvlx_config config;
    nvlx_config_init(&config);
    config.backend = getenv("NVLX_BACKEND") ? NVLX_BACKEND_AUTO : NVLX_BACKEND_CUDA;
    config.mechanism = settings.mechanism;
    config.max_sms = static_cast<uint32_t>(settings.max_sms);
    config.list_memory = settings.list_memory;
    if (!nvlx_engine_create(&config, &state->engine))
        return true;
    say("%s. NVLX_BACKEND=host takes software GPUs, for tests", nvlx_last_error());
    return false;
}

bool Backend::serve() const {
    nvlx_serve_options options;
    nvlx_serve_options_init(&options);
    options.max_connections = static_cast<uint32_t>(settings.connections);
    const std::string word = "nvlx-nixl-" + unique_word();
    state->address = settings.folder.empty() ? "@" + word : settings.folder + "/" + word;
    state->card = write_agent_card(state->address);
    if (state->card.empty()) {
        say("/proc does not tell this machine's boot id");
        return false;
    }
    if (!nvlx_serve(state->engine, state->address.c_str(), &options))
        return true;
    say("the agent '%s' cannot serve at '%s': %s", state->agent.c_str(), state->address.c_str(), nvlx_last_error());
    return false;
}

bool Backend::start() {
    if (!make_engine() || !serve())
        return false;
    state->copier.emplace(state->engine, state->closer, Copier::Patience{settings.connect_ns, settings.answer_ns},
                          [this](Notice &&notice) { state->inbox.add(std::move(notice)); });
    state->around.emplace(Surroundings{state->engine, state->inbox, state->agent, state->address, settings.connect_ns,
                                       settings.answer_ns});
    return state->inbox.start(state->engine, *state->copier);
}

/* What uses something goes before it. Of DRAM that a peer still copies, nobody can take the address away: it is waited
 * for, as deregister_memory does. */
Backend::~Backend() {
    const auto deadline = Clock::now() + std::chrono::nanoseconds(settings.withdraw_ns);
    for (auto &[handle, transfer] : state->transfers)
        state->leaving.insert(transfer);
    for (const auto &transfer : state->leaving)
        if (!transfer->revoke(deadline))
            say("the agent '%s' ends, while a transfer of it is in flight", state->agent.c_str());
    state->transfers.clear();
    state->leaving.clear();
    state->closer.hurry();
    state->peers.clear();
    state->inbox.stop();
    state->copier.reset();
    state->closer.end();
    if (state->engine)
        nvlx_engine_destroy(state->engine);
    for (Mine *range : state->ranges)
        delete range;
}

bool Backend::supports_remote() const {
    return true;
}

bool Backend::supports_local() const {
    return true;
}

bool Backend::supports_notices() const {
    return true;
}

std::vector<Segment> Backend::segments() const {
    return {Segment::dram, Segment::vram};
}

/* ---- This process's memory ---------------------------------------------------------------------------- */

Status Backend::register_vram(Mine &range) const {
    nvlx_region_options options;
    nvlx_region_options_init(&options);
    const std::string name = region_name(range.card.id);
    options.name = name.c_str();
    const auto *address = reinterpret_cast<const void *>(range.range.address);
    int code = nvlx_register(state->engine, address, range.range.length, &options, &range.region);
    if (!code && (code = nvlx_publish(state->engine, &range.card.generation))) {
        nvlx_unregister(range.region, 0);
        range.region = nullptr;
    }
    return status_of(code);
}

Status Backend::register_memory(const abi::Described &range, const Segment &segment, abi::Region *&region) {
    auto made = std::make_unique<Mine>();
    made->card = {segment, state->next_region++, 0};
    made->range = range;
    region = nullptr;
    if (segment == Segment::vram) {
        const Status status = register_vram(*made);
        if (status != Status::success)
            return status;
    } else if (segment != Segment::dram) {
        return Status::not_supported;
    }
    made->text = write_card(made->card);
    {
        const std::lock_guard guard(state->mutex);
        state->ranges.insert(made.get());
    }
    Mine *const kept = made.release(); /* until it is deregistered, or the end: so the copier may have it */
    if (segment == Segment::dram) {
        state->copier->add(kept->card.id, kept->dram.emplace(range));
        if (settings.traced)
            prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY); /* without Yama it fails, and is not needed */
    }
    region = kept;
    return Status::success;
}

/* Also of one that is WITHDRAWN: waits once more. */
Status Backend::withdraw(Mine &range) const {
    const auto deadline = Clock::now() + std::chrono::nanoseconds(settings.withdraw_ns);
    if (!state->revoke(range, deadline))
        return refuse(Status::active, "a transfer of this agent still uses the range at 0x%llx",
                      static_cast<unsigned long long>(range.range.address));
    if (range.dram && !state->copier->withdraw(range.card.id, deadline))
        return refuse(
            Status::active,
            "the range at 0x%llx is withdrawn, and must not be freed yet: a transfer of it for a peer is being "
            "started",
            static_cast<unsigned long long>(range.range.address));
    nvlx_region *const region = range.dram ? range.dram->lent() : range.region;
    if (!region) /* the library knows nothing of it */
        return Status::success;
    const auto left = std::max<std::chrono::nanoseconds>(deadline - Clock::now(), std::chrono::nanoseconds(0));
    const int code = nvlx_unregister(region, left.count());
    if (code == NVLX_ETIMEDOUT)
        return refuse(Status::active, "the range at 0x%llx is withdrawn, and must not be freed yet: %s",
                      static_cast<unsigned long long>(range.range.address), nvlx_last_error());
    if (code == NVLX_EBUSY) /* by another registration of the same bytes: requests of this one were revoked */
        return refuse(Status::active, "the range at 0x%llx is still registered, release the requests before: %s",
                      static_cast<unsigned long long>(range.range.address), nvlx_last_error());
    return status_of(code);
}

Status Backend::deregister_memory(abi::Region *region) {
    auto *range = static_cast<Mine *>(region);
    const Status status = withdraw(*range);
    if (status != Status::success)
        return status;
    const std::lock_guard guard(state->mutex);
    state->ranges.erase(range);
    delete range;
    return Status::success;
}

Status Backend::public_data(const abi::Region *region, std::string &text) const {
    text = static_cast<const Mine *>(region)->text;
    return Status::success;
}

/* An object of its own: NIXL frees the two in any order. */
Status Backend::load_local(abi::Region *mine, abi::Region *&region) {
    const auto *range = static_cast<const Mine *>(mine);
    region = nullptr;
    const Status status = load_connection(state->agent, state->card);
    if (status != Status::success)
        return status;
    return load_remote({range->range, range->text}, range->card.segment, state->agent, region);
}

/* ---- Peers -------------------------------------------------------------------------------------------- */

Status Backend::connection_info(std::string &text) const {
    text = state->card;
    return Status::success;
}

/* The same engine again is the same peer, as long as it is not lost. */
Status Backend::load_connection(const std::string &name, const std::string &text) {
    std::string address;
    const Status status = read_agent_card(name, text, address);
    if (status != Status::success)
        return status;
    const std::shared_ptr<Peer> before = state->find(name);
    if (before && before->link->address == address && !before->link->lost())
        return Status::success;
    state->remove(name);
    auto peer = std::make_shared<Peer>(Peer{name, Link::make(state->closer, state->engine, address)});
    const std::lock_guard guard(state->mutex);
    state->peers[name] = std::move(peer);
    return Status::success;
}

Status Backend::load_remote(const abi::Described &range, const Segment &segment, const std::string &name,
                            abi::Region *&region) {
    auto made = std::make_unique<Theirs>();
    region = nullptr;
    if (!state->find(name))
        return refuse(Status::not_found, "a range of '%s', of which nothing was loaded", name.c_str());
    if (!read_card(range.text, made->card) || made->card.segment != segment)
        return refuse(Status::mismatch, "the metadata of a range of '%s' is malformed", name.c_str());
    made->range = range;
    region = made.release();
    return Status::success;
}

Status Backend::unload(abi::Region *region) {
    delete region;
    return Status::success;
}

/* NIXL calls it with the agent's own name when the backend is made: that is a peer only when it is used. */
Status Backend::connect(const std::string &name) {
    if (name == state->agent)
        return Status::success;
    const std::shared_ptr<Peer> peer = state->find(name);
    return peer ? peer->link->connect(settings.connect_ns) : Status::not_found;
}

Status Backend::disconnect(const std::string &name) {
    state->remove(name);
    return Status::success;
}

/* ---- Requests ----------------------------------------------------------------------------------------- */

Status Backend::prepare(const abi::Operation &operation, const abi::Pieces &local, const abi::Pieces &remote,
                        const std::string &name, abi::Request *&request, const abi::PostOptions *) const {
    const std::shared_ptr<Peer> peer = state->find(name);
    request = nullptr;
    state->sweep();
    if (!peer)
        return refuse(Status::not_found, "a request to '%s', of which nothing was loaded", name.c_str());
    auto transfer = std::make_shared<Transfer>(*state->around, peer);
    const Status status = transfer->prepare({operation, local, remote});
    if (status != Status::success)
        return status;
    const std::lock_guard guard(state->mutex);
    request = transfer.get();
    state->transfers[request] = std::move(transfer);
    return Status::success;
}

Status Backend::post(const abi::Operation &, const abi::Pieces &, const abi::Pieces &, const std::string &,
                     abi::Request *&request, const abi::PostOptions *options) const {
    return static_cast<Transfer *>(request)->post(options && options->has_message ? &options->message : nullptr);
}

Status Backend::check(abi::Request *request) const {
    return static_cast<Transfer *>(request)->check();
}

Status Backend::release(abi::Request *request) const {
    std::shared_ptr<Transfer> transfer;
    {
        const std::lock_guard guard(state->mutex);
        transfer = state->transfers.at(request);
    }
    const Transfer::End end = transfer->end(std::chrono::nanoseconds(settings.withdraw_ns));
    const std::lock_guard guard(state->mutex);
    if (end != Transfer::End::ended)
        state->leaving.insert(std::move(transfer));
    if (end == Transfer::End::refused)
        return Status::active;
    state->transfers.erase(request);
    return end == Transfer::End::ended
               ? Status::success
               : refuse(Status::active, "a transfer was released that does not end: its memory is in use");
}

/* ---- Messages ----------------------------------------------------------------------------------------- */

Status Backend::take_notices(abi::Notices &notices) {
    state->inbox.take(notices);
    return Status::success;
}

Status Backend::send_notice(const std::string &name, const std::string &message) const {
    const std::shared_ptr<Peer> peer = state->find(name);
    const uint64_t number = unique_number();
    size_t next = 0;
    if (!peer)
        return refuse(Status::not_found, "a message to '%s', of which nothing was loaded", name.c_str());
    if (message.size() > notice_most)
        return refuse(Status::invalid, "a message of %zu bytes: %zu are allowed", message.size(), notice_most);
    Status status = peer->link->connect(settings.connect_ns);
    if (status == Status::success)
        status = peer->link->send(notice_letters({number, 0, state->agent, message}), &next);
    if (status != Status::success && next > 0) /* what has come of it shall not stay there */
        peer->link->owe(drop_letter(number));
    return status != Status::in_progress
               ? status
               : refuse(Status::backend, "'%s' does not take its messages: as much as is allowed is on its way",
                        name.c_str());
}

/* ---- What NIXL has for other backends ----------------------------------------------------------------- */

Status Backend::prepare_remote_view(const void *, void *&, const abi::PostOptions *) const {
    return Status::not_supported;
}

Status Backend::prepare_local_view(const void *, void *&, const abi::PostOptions *) const {
    return Status::not_supported;
}

void Backend::release_view(void *) const {
}

Status Backend::query(const abi::List<abi::Described> &, abi::Attributes &) const {
    return Status::not_supported;
}

Status Backend::estimate(const abi::Operation &, const abi::Pieces &, const abi::Pieces &, const std::string &,
                         abi::Request *const &, std::chrono::microseconds &, std::chrono::microseconds &, int &,
                         const abi::PostOptions *) const {
    return Status::not_supported;
}

} // namespace nvlx::nixl
