/* What travels in NIXL's metadata: text that says where an engine serves, and which region a range is.
 * SPDX-License-Identifier: Apache-2.0
 *
 * "nvlx 1 BOOT ADDRESS" for an agent: BOOT is the machine's boot id, so that another machine is known by it. ADDRESS is
 * never used by two engines: a process that restarts has another one.
 * "vram ID GENERATION", "dram ID 0" for a range: no two registrations have one ID. GENERATION is one of the owner's
 * engine that has the region. So a range that was registered again, at the same address, is another text. */
#ifndef NVLX_BINDINGS_NIXL_PEERS_CARD_H
#define NVLX_BINDINGS_NIXL_PEERS_CARD_H

#include "bindings/nixl/abi.h"

namespace nvlx::nixl {

struct RegionCard {
    abi::Segment segment;
    uint64_t id;
    uint64_t generation;
};

std::string write_card(const RegionCard &card);
bool read_card(const std::string &text, RegionCard &card);
std::string region_name(uint64_t id); /* by which peers find a region of VRAM */

/* "" if /proc does not tell the boot id. */
std::string write_agent_card(const std::string &address);
/* Says what is wrong, if something is. */
abi::Status read_agent_card(const std::string &peer, const std::string &text, std::string &address);

/* 128 bits that nobody else has, as 32 digits. */
std::string unique_word();

} // namespace nvlx::nixl

#endif
