// What the strings of a descriptor are made of, and the messages about it: what reading takes that knows no JSON. The
// format is described in decode.cc. SPDX-License-Identifier: Apache-2.0
#ifndef NVLXI_DESCRIPTOR_WORDS_H
#define NVLXI_DESCRIPTOR_WORDS_H

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nvlxi {

// ---- How reading fails -----------------------------------------------------------------------------------

// A place in the text: `list`[`index`].`field`, or those parts of it that are set.
struct Place {
    static constexpr size_t no_index = SIZE_MAX;
    const char *list;
    size_t index;
    const char *field;
};

// Some text of the peer's for a message: its first characters, those that are harmless to print.
struct Shown {
    char text[48];

    explicit Shown(std::string_view string);
};

// NVLX_EFORMAT, with the place before the text.
__attribute__((format(printf, 2, 3))) int malformed(const Place &place, const char *format, ...);

// The same for a word that is not as expected, or without data, which is one that is missing.
int bad_word(std::string_view word, const Place &place, const char *expected);

// ---- Words -----------------------------------------------------------------------------------------------

// Takes words off a string, in which there is one space between them.
class Words {
  public:
    explicit Words(std::string_view string) : rest(string) {
    }
    // Without data after the last one.
    std::string_view next();

  private:
    std::string_view rest;
};

constexpr const char *hex_form = "\"0x\" and 1 to 16 lower-case hex digits without leading zeros";

bool parse_hex(std::string_view string, uint64_t *value);

int read_hex_word(std::string_view word, const Place &place, uint64_t *number);

// Decimal digits without leading zeros.
bool parse_index(std::string_view string, uint32_t *index);

// How many bytes these digits are; 0 if they are no digits, or not for 1 to `most` bytes.
size_t parse_bytes(std::string_view string, uint8_t *bytes, size_t most);

// 1 or more of a-z, 0-9 and _.
bool is_word(std::string_view string);

// ASCII without control characters.
bool is_printable(std::string_view string);

} // namespace nvlxi

#endif
