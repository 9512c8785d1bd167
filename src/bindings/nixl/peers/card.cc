/* Writes and reads the texts in NIXL's metadata. SPDX-License-Identifier: Apache-2.0 */
#include "bindings/nixl/peers/card.h"

#include <array>
#include <charconv>
#include <fstream>
#include <mutex>
#include <random>
#include <sstream>
#include <string_view>

#include "bindings/nixl/say.h"

namespace nvlx::nixl {

static constexpr char agent_word[] = "nvlx 1 ";

std::string write_card(const RegionCard &card) {
    return (card.segment == abi::Segment::vram ? "vram " : "dram ") + std::to_string(card.id) + " " +
           std::to_string(card.generation);
}

/* The decimal number before `end`, which is taken off with it. */
static bool take_number(std::string_view &text, char end, uint64_t &number) {
    const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const size_t length = static_cast<size_t>(stop - text.data());
    if (error != std::errc() || (length < text.size() ? text[length] != end : end != 0))
        return false;
    text.remove_prefix(length + (end != 0));
    return true;
}

bool read_card(const std::string &text, RegionCard &card) {
    std::string_view rest = text;
    if (!rest.starts_with("vram ") && !rest.starts_with("dram "))
        return false;
    card.segment = rest[0] == 'v' ? abi::Segment::vram : abi::Segment::dram;
    rest.remove_prefix(5);
    return take_number(rest, ' ', card.id) && take_number(rest, 0, card.generation) && rest.empty();
}

std::string region_name(uint64_t id) {
    return "nixl " + std::to_string(id);
}

/* Read once: it never changes, and a process may have no file left later. */
static std::string boot_id() {
    static std::mutex mutex;
    static std::string id;
    const std::lock_guard guard(mutex);
    if (id.empty()) {
        std::ifstream file("/proc/sys/kernel/random/boot_id");
        std::getline(file, id);
    }
    return id;
}

std::string write_agent_card(const std::string &address) {
    const std::string boot = boot_id();
    return boot.empty() ? "" : agent_word + boot + " " + address;
}

abi::Status read_agent_card(const std::string &peer, const std::string &text, std::string &address) {
    if (!text.starts_with(agent_word))
        return refuse(abi::Status::mismatch,
                      "the metadata of '%s' is of another plugin, or of another version of this one", peer.c_str());
    std::istringstream words(text.substr(sizeof agent_word - 1));
    std::string boot;
    if (!std::getline(words, boot, ' ') || !std::getline(words, address, '\0') || address.empty())
        return refuse(abi::Status::mismatch, "the metadata of '%s' is malformed", peer.c_str());
    if (boot != boot_id())
        return refuse(abi::Status::not_supported,
                      "'%s' is on another machine: NVLX reaches processes of one machine only", peer.c_str());
    return abi::Status::success;
}

std::string unique_word() {
    std::random_device device;
    std::array<char, 9> digits{};
    std::string word;
    for (int i = 0; i < 4; i++) {
        snprintf(digits.data(), digits.size(), "%08x", static_cast<unsigned>(device()));
        word += digits.data();
    }
    return word;
}

} // namespace nvlx::nixl
