/* Connects to engines of other agents. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/peers/link.h"

#include "bindings/nixl/say.h"

namespace nvlx::nixl {

std::shared_ptr<Link> Link::make(Worker &closer, nvlx_engine *engine, const std::string &address) {
    return {new Link(engine, address), [&closer](Link *link) {
                closer.add([link, &closer] {
                    if (closer.is_hurried())
                        link->found.store(nullptr);
                    delete link;
                });
            }};
}

Link::Link(nvlx_engine *library, std::string served) : address(std::move(served)), engine(library) {
}

Link::~Link() {
    if (peer())
        nvlx_peer_close(peer());
}

abi::Status Link::connect(int64_t timeout_ns) {
    const bool known = peer();
    const abi::Status status = reach(timeout_ns);
    return known || status != abi::Status::disconnected
               ? status
               : refuse(status, "nobody serves at '%s' any more: %s", address.c_str(), nvlx_last_error());
}

abi::Status Link::reach(int64_t timeout_ns) {
    const std::lock_guard guard(connecting);
    nvlx_peer *made = nullptr;
    if (peer())
        return lost() ? abi::Status::disconnected : abi::Status::success;
    const int code = nvlx_connect(engine, address.c_str(), timeout_ns, &made);
    if (code == NVLX_ETIMEDOUT)
        return abi::Status::disconnected;
    if (code)
        return nixl::status_of(code);
    found.store(made, std::memory_order_release);
    return abi::Status::success;
}

bool Link::lost() const {
    if (!gone.load() && peer() && nvlx_peer_test(peer()) == NVLX_ESTALE)
        gone.store(true);
    return gone.load();
}

abi::Status Link::status_of(int code) const {
    return code == NVLX_ESTALE && lost() ? abi::Status::disconnected : nixl::status_of(code);
}

abi::Status Link::send_one(const std::string &letter) {
    const int code = nvlx_send(peer(), letter.data(), letter.size());
    return code == NVLX_EBUSY ? abi::Status::in_progress : status_of(code);
}

/* As many as are of use: the receiver has a limit of its own. */
void Link::owe(std::string &&letter) {
    constexpr size_t most = 1024;
    const std::lock_guard guard(owing);
    owed.push_back(std::move(letter));
    if (owed.size() > most)
        owed.pop_front();
}

abi::Status Link::pay() {
    abi::Status status = abi::Status::success;
    const std::lock_guard guard(owing);
    while (!owed.empty() && (status = send_one(owed.front())) == abi::Status::success)
        owed.pop_front();
    return status;
}

abi::Status Link::send(const Letters &letters, size_t *next) {
    abi::Status status = pay();
    for (; status == abi::Status::success && *next < letters.size(); *next += status == abi::Status::success)
        status = send_one(letters[*next]);
    return status;
}

} // namespace nvlx::nixl
