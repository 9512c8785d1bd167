/* The backend of one NIXL agent, over one engine of the library. SPDX-License-Identifier: Apache-2.0
 *
 * It serves at an address of its own from the start, which its metadata tells, and connects to others when the first
 * request or message needs it. VRAM is registered with the library. To and from a peer's VRAM the library moves all: a
 * request is a prepared list, a post is a post, a notification a message after the data. A peer's DRAM is copied by its
 * owner, who is asked for it: peers/copier.h. This process is a peer of its own, like others.
 *
 * Any thread may call, all functions at the same time, except that NIXL releases what no other thread uses. Whoever
 * holds a lock takes only later ones of: Backend's, a Transfer's, Answers', those of Link, Inbox, Copier, Worker and
 * Dram, the library's. None is held while something waits, except a Link's own while it connects, and that of Dram
 * while the library registers it. */
#ifndef NVLX_BINDINGS_NIXL_ENTRY_BACKEND_H
#define NVLX_BINDINGS_NIXL_ENTRY_BACKEND_H

#include <sys/types.h>

#include <atomic>
#include <optional>

#include "bindings/nixl/entry/settings.h"
#include "bindings/nixl/peers/copier.h"
#include "bindings/nixl/transfer.h"

namespace nvlx::nixl {

class Backend final : public abi::Engine {
  public:
    Backend(const abi::MakeOptions &options, const Settings &all);
    ~Backend() override;
    /* Once, before all else; false, and says so, if it cannot be. */
    bool start();
    /* True in a forked child, which owns nothing of it. */
    bool is_inherited() const;

    bool supports_remote() const override;
    bool supports_local() const override;
    bool supports_notices() const override;
    std::vector<abi::Segment> segments() const override;
    abi::Status register_memory(const abi::Described &range, const abi::Segment &segment,
                                abi::Region *&region) override;
    abi::Status deregister_memory(abi::Region *region) override;
    abi::Status connect(const std::string &name) override;
    abi::Status disconnect(const std::string &name) override;
    abi::Status unload(abi::Region *region) override;
    abi::Status prepare(const abi::Operation &operation, const abi::Pieces &local, const abi::Pieces &remote,
                        const std::string &name, abi::Request *&request,
                        const abi::PostOptions *options) const override;
    abi::Status post(const abi::Operation &operation, const abi::Pieces &local, const abi::Pieces &remote,
                     const std::string &name, abi::Request *&request, const abi::PostOptions *options) const override;
    abi::Status check(abi::Request *request) const override;
    abi::Status release(abi::Request *request) const override;
    abi::Status prepare_remote_view(const void *list, void *&view, const abi::PostOptions *options) const override;
    abi::Status prepare_local_view(const void *list, void *&view, const abi::PostOptions *options) const override;
    void release_view(void *view) const override;
    abi::Status public_data(const abi::Region *region, std::string &text) const override;
    abi::Status connection_info(std::string &text) const override;
    abi::Status load_connection(const std::string &name, const std::string &text) override;
    abi::Status load_remote(const abi::Described &range, const abi::Segment &segment, const std::string &name,
                            abi::Region *&region) override;
    abi::Status load_local(abi::Region *mine, abi::Region *&region) override;
    abi::Status take_notices(abi::Notices &notices) override;
    abi::Status send_notice(const std::string &name, const std::string &message) const override;
    abi::Status query(const abi::List<abi::Described> &ranges, abi::Attributes &attributes) const override;
    abi::Status estimate(const abi::Operation &operation, const abi::Pieces &local, const abi::Pieces &remote,
                         const std::string &name, abi::Request *const &request, std::chrono::microseconds &duration,
                         std::chrono::microseconds &error, int &method, const abi::PostOptions *options) const override;

  private:
    struct State; /* of which NIXL's const functions change much */

    abi::Status register_vram(Mine &range) const;
    abi::Status withdraw(Mine &range) const;
    bool make_engine() const;
    bool serve() const;

    const Settings settings;
    const pid_t process;
    const std::unique_ptr<State> state;
};

} // namespace nvlx::nixl

#endif
