// The words of the format: kinds and hexadecimal numbers, read and written. SPDX-License-Identifier: Apache-2.0
#include "descriptor/words.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

extern "C" {
#include "base/error.h"
}

namespace nvlxi {

// ---- How reading fails -----------------------------------------------------------------------------------

int malformed(const Place &place, const char *format, ...) {
    char index[24] = "", text[320];
    if (place.index != Place::no_index)
        std::snprintf(index, sizeof index, "[%zu]", place.index);
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return nvlxi_fail(NVLX_EFORMAT, "descriptor: %s%s%s%s%s", place.list, index, place.field != nullptr ? "." : "",
                      place.field != nullptr ? place.field : "", text);
}

Shown::Shown(std::string_view string) {
    constexpr size_t most = 40;
    size_t length = 0;
    for (; length < string.size() && length < most; length++)
        text[length] = string[length] >= ' ' && string[length] <= '~' ? string[length] : '?';
    std::memcpy(text + length, string.size() > most ? "..." : "\0\0\0", 4);
}

int bad_word(std::string_view word, const Place &place, const char *expected) {
    if (word.data() == nullptr)
        return malformed(place, " is missing: expected %s", expected);
    return malformed(place, " is \"%s\": expected %s", Shown(word).text, expected);
}

// ---- Words -----------------------------------------------------------------------------------------------

std::string_view Words::next() {
    const size_t length = rest.find(' ');
    const std::string_view word = rest.substr(0, length);
    rest = length == std::string_view::npos ? std::string_view() : rest.substr(length + 1);
    return word;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_hex_digit(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f');
}

static unsigned hex_digit(char c) {
    return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10);
}

static bool has_leading_zero(std::string_view digits) {
    return digits[0] == '0' && digits.size() > 1;
}

bool parse_hex(std::string_view string, uint64_t *value) {
    if (string.size() < 3 || string.size() > 18 || string[0] != '0' || string[1] != 'x')
        return false;
    string.remove_prefix(2);
    if (!std::all_of(string.begin(), string.end(), is_hex_digit) || has_leading_zero(string))
        return false;
    *value = 0;
    for (const char c : string)
        *value = *value << 4 | hex_digit(c);
    return true;
}

int read_hex_word(std::string_view word, const Place &place, uint64_t *number) {
    return parse_hex(word, number) ? NVLX_OK : bad_word(word, place, hex_form);
}

bool parse_index(std::string_view string, uint32_t *index) {
    if (string.empty() || string.size() > 10 || !std::all_of(string.begin(), string.end(), is_digit) ||
        has_leading_zero(string))
        return false;
    uint64_t value = 0;
    for (const char c : string)
        value = value * 10 + static_cast<unsigned>(c - '0');
    *index = static_cast<uint32_t>(value);
    return value <= UINT32_MAX;
}

size_t parse_bytes(std::string_view string, uint8_t *bytes, size_t most) {
    if (string.size() % 2 != 0 || string.size() / 2 > most || !std::all_of(string.begin(), string.end(), is_hex_digit))
        return 0;
    for (size_t i = 0; i < string.size() / 2; i++)
        bytes[i] = static_cast<uint8_t>(hex_digit(string[2 * i]) << 4 | hex_digit(string[2 * i + 1]));
    return string.size() / 2;
}

bool is_word(std::string_view string) {
    return !string.empty() && std::all_of(string.begin(), string.end(),
                                          [](char c) { return (c >= 'a' && c <= 'z') || is_digit(c) || c == '_'; });
}

bool is_printable(std::string_view string) {
    return std::all_of(string.begin(), string.end(), [](char c) { return c >= ' ' && c <= '~'; });
}

} // namespace nvlxi
