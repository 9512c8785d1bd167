// Text -> jsoncpp's values, within bounds. SPDX-License-Identifier: Apache-2.0
#include "descriptor/json.h"

#include <json/json.h>

#include <algorithm>
#include <array>
#include <memory>

#include "base/records.h"
#include "descriptor/words.h"
extern "C" {
#include "base/error.h"
}

namespace nvlxi {

namespace {

// jsoncpp takes about 100 bytes for each value and recurses at each level. A region is 3 values and a segment 9: this
// is what the largest descriptor has, and room for newer minor versions, instead of what 256 MiB of commas would make.
constexpr unsigned DEPTH_MAX = 32;
constexpr size_t VALUES_MAX = size_t{NVLXI_REGIONS_MAX} * 4 + size_t{NVLXI_SEGMENTS_MAX} * 16;

// What ends a run of characters that mean nothing in a string.
constexpr auto stops_string = []() {
    std::array<bool, 256> stops = {};
    for (size_t c = 0; c < ' '; c++)
        stops[c] = true;
    stops['"'] = stops['\\'] = true;
    return stops;
}();

// The index of a string's closing quote, or of a control character in it; beyond the text if it ends before.
size_t find_string_end(std::string_view text, size_t begin) {
    for (size_t i = begin;; i += 2) {
        while (i < text.size() && !stops_string[static_cast<unsigned char>(text[i])])
            i++;
        if (i >= text.size() || text[i] != '\\')
            return i;
    }
}

int control_character(std::string_view text, size_t at) {
    return nvlxi_fail(NVLX_EFORMAT, "descriptor: control character 0x%02x at byte %zu",
                      static_cast<unsigned>(static_cast<unsigned char>(text[at])), at);
}

// Looks at the text before jsoncpp does, which would recurse, allocate without bound, take a NUL for the end, and skip
// comments between an object's fields even where they are forbidden.
int scan(std::string_view text) {
    unsigned depth = 0;
    size_t values = 1;
    for (size_t i = 0; i < text.size(); i++) {
        if (text[i] == '"') {
            i = find_string_end(text, i + 1);
            if (i < text.size() && text[i] != '"')
                return control_character(text, i);
            continue;
        }
        const char c = text[i];
        if (static_cast<unsigned char>(c) < ' ' && c != '\n' && c != '\r' && c != '\t')
            return control_character(text, i);
        if (c == '/')
            return nvlxi_fail(NVLX_EFORMAT, "descriptor: a comment at byte %zu", i);
        const bool opens = c == '[' || c == '{';
        values += opens || c == ',' ? 1 : 0;
        depth += opens ? 1 : 0;
        depth -= (c == ']' || c == '}') && depth > 0 ? 1 : 0;
        if (depth > DEPTH_MAX)
            return nvlxi_fail(NVLX_EFORMAT, "descriptor: more than %u levels at byte %zu", DEPTH_MAX, i);
        if (values > VALUES_MAX)
            return nvlxi_fail(NVLX_EFORMAT, "descriptor: more than %zu values at byte %zu", VALUES_MAX, i);
    }
    return NVLX_OK;
}

// Of jsoncpp's "* Line 1, Column 2\n  What it means.\n..." the first two lines in one, but for the words that jsoncpp
// quotes from the text, which might be a handle: "'x' is not a number.", "Duplicate key: 'x'".
int syntax_error(const std::string &errors) {
    const size_t first = errors.find('\n'), second = errors.find('\n', first + 1);
    if (first == std::string::npos || errors.compare(0, 2, "* ") != 0)
        return nvlxi_fail(NVLX_EFORMAT, "descriptor: not strict JSON");
    std::string_view meaning(errors);
    meaning = meaning.substr(first + 1, second - first - 1);
    meaning.remove_prefix(std::min(meaning.size(), meaning.find_first_not_of(' ')));
    if (!meaning.empty() && meaning[0] == '\'')
        meaning = "Not a number.";
    else if (meaning.substr(0, 9) == "Duplicate")
        meaning = "Duplicate key.";
    return nvlxi_fail(NVLX_EFORMAT, "descriptor: not strict JSON: %.*s: %s", static_cast<int>(first - 2),
                      errors.c_str() + 2, Shown(meaning).text);
}

int parse(std::string_view text, Json::Value *root) {
    Json::CharReaderBuilder builder;
    Json::CharReaderBuilder::strictMode(&builder.settings_);
    builder["skipBom"] = false;
    builder["stackLimit"] = DEPTH_MAX + 8;
    const std::unique_ptr<Json::CharReader> reader(builder.newCharReader());
    std::string errors;
    if (!reader->parse(text.data(), text.data() + text.size(), root, &errors))
        return syntax_error(errors);
    return NVLX_OK;
}

} // namespace

int read_json(std::string_view text, Json::Value *root) {
    const int code = scan(text);
    return code != NVLX_OK ? code : parse(text, root);
}

} // namespace nvlxi
