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
    const char *advice = text[at] == '\0' && at + 1 == text.size() ? ": the length is without a final NUL" : "";
    return nvlxi_fail(NVLX_EFORMAT, "descriptor: control character 0x%02x at byte %zu%s",
                      static_cast<unsigned>(static_cast<unsigned char>(text[at])), at, advice);
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

// Of jsoncpp's "* Line 1, Column 2\n  What it means.\n..." the first two lines in one, without the words that jsoncpp
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

bool parse(std::string_view text, Json::Value *root, std::string *errors) {
    Json::CharReaderBuilder builder;
    Json::CharReaderBuilder::strictMode(&builder.settings_);
    builder["skipBom"] = false;
    builder["stackLimit"] = DEPTH_MAX + 8;
    const std::unique_ptr<Json::CharReader> reader(builder.newCharReader());
    return reader->parse(text.data(), text.data() + text.size(), root, errors);
}

int parse_whole(std::string_view text, Json::Value *root) {
    std::string errors;
    return parse(text, root, &errors) ? NVLX_OK : syntax_error(errors);
}

// ---- Lists that are read in portions ---------------------------------------------------------------------
// A text that was scanned, and may be no JSON yet.

constexpr size_t LONG_TEXT = size_t{256} * 1024;
constexpr size_t PORTION = 4096; // items

bool is_blank(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

size_t skip_blanks(std::string_view text, size_t at) {
    while (at < text.size() && is_blank(text[at]))
        at++;
    return at;
}

// From `at` on, where the next comma of this level is, or the bracket that ends it; beyond the text if there is none.
size_t find_item_end(std::string_view text, size_t at) {
    unsigned depth = 0;
    for (; at < text.size(); at++) {
        const char c = text[at];
        if (c == '"')
            at = find_string_end(text, at + 1);
        else if (c == '[' || c == '{')
            depth++;
        else if (depth == 0 && (c == ',' || c == ']' || c == '}'))
            break;
        else if (c == ']' || c == '}')
            depth--;
    }
    return at;
}

// Where the items of this field of the outermost object begin, if it is a list; 0 if there is none.
size_t find_list(std::string_view text, std::string_view field) {
    const size_t begin = skip_blanks(text, 0);
    for (size_t at = begin; at < text.size() && (at == begin || text[at] == ',');) {
        at = skip_blanks(text, at + 1);
        if (at >= text.size() || text[at] != '"')
            return 0;
        const size_t end = find_string_end(text, at + 1);
        const size_t colon = skip_blanks(text, end + 1), value = skip_blanks(text, colon + 1);
        if (value >= text.size() || text[colon] != ':')
            return 0;
        if (text.substr(at + 1, end - at - 1) == field)
            return text[value] == '[' ? value + 1 : 0;
        at = find_item_end(text, value);
    }
    return 0;
}

// Counts the items from `*at` on, at most PORTION; *at becomes the place of the comma or bracket behind them.
size_t find_portion(std::string_view text, size_t *at) {
    size_t count = 0;
    for (size_t begin = *at; count < PORTION; begin = *at + 1) {
        *at = find_item_end(text, begin);
        count++;
        if (*at >= text.size() || text[*at] != ',')
            break;
    }
    return count;
}

} // namespace

int read_json(std::string_view text, const char *field, Json::Value *root, Cut *cut) {
    *cut = Cut();
    if (text.empty())
        return nvlxi_fail(NVLX_EFORMAT, "descriptor: the text is empty");
    if (text[0] == '@' || text[0] == '/')
        return nvlxi_fail(NVLX_EFORMAT,
                          "descriptor: begins with '%c': an address is for nvlx_connect, not a descriptor", text[0]);
    const int code = scan(text);
    if (code != NVLX_OK)
        return code;
    const size_t begin = text.size() > LONG_TEXT ? find_list(text, field) : 0;
    size_t end = begin, count = 0;
    for (bool more = begin > 0; more; end += more ? 1 : 0) {
        count += find_portion(text, &end);
        more = end < text.size() && text[end] == ',';
    }
    std::string errors;
    if (count > PORTION && end < text.size() && text[end] == ']' &&
        parse(std::string(text.substr(0, begin)).append(text.substr(end)), root, &errors)) {
        *cut = {text, begin, count};
        return NVLX_OK;
    }
    *root = Json::Value();
    return parse_whole(text, root);
}

int read_cut(const Cut &cut, const std::function<int(const Json::Value &)> &take) {
    for (size_t begin = cut.begin, end = begin, left = cut.count; left > 0; begin = ++end) {
        Json::Value portion;
        std::string errors;
        const size_t count = find_portion(cut.text, &end);
        const std::string list = "[" + std::string(cut.text.substr(begin, end - begin)) + "]";
        if (!parse(list, &portion, &errors) || portion.size() != count) {
            const int code = parse_whole(cut.text, &portion); // which tells the place
            return code != NVLX_OK ? code : nvlxi_fail(NVLX_EFORMAT, "descriptor: not strict JSON");
        }
        for (const Json::Value &item : portion)
            if (const int code = take(item))
                return code;
        left -= count;
    }
    return NVLX_OK;
}

} // namespace nvlxi
