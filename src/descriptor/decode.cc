// JSON -> records; encode.c is the way back. SPDX-License-Identifier:
// Apache-2.0
//
// The wire format, version 1.1: one JSON object in UTF-8, at most NVLXI_TEXT_MAX bytes. What encode writes has no line
// breaks; here it has, to be read:
//
//     {"format": "nvlxfer", "version": [1, 1], "backend": "cuda",
//      "process": {"boot_id": "0c2f5a9e-...", "pid": "0x7b", "pid_namespace": "0xeffffffc", "start_time": "0x1234",
//                  "engine": "<32 digits>", "generation": "0x5", "address": "/run/model.sock"},
//      "segments": [{"kind": "cuda_malloc", "device": "<32 digits>", "serial": "0x1", "base": "0x7f0000000000",
//                    "size": "0x200000", "handle": "<2 to 128 digits>"},
//                   {"kind": "vmm", ..., "file": true}, ...],
//      "regions": [["name", "0 0x0 0x200 rw"], ...],
//      "suspended": [["name", "0x7f0000000000 0x200 rw"], ...]}
//
// - version: major, minor. A reader refuses another major version, and reads every minor one: it ignores fields of
//   objects and further elements of arrays that it does not know. A change that a reader must not ignore makes a new
//   major version; there only "format" and "version" are sure to be where they are.
// - 64-bit values: strings of "0x" and 1 to 16 lower-case hex digits without leading zeros, since a JSON number loses
//   bits above 2^53. Bytes: lower-case hex digits, two a byte.
// - backend: 1 to 15 characters of a-z 0-9 _: whose handles these are. Peers of another backend cannot open them.
// - process: struct nvlxi_identity. boot_id: 1 to 39 printable ASCII characters. engine: 16 bytes. address: where the
//   process gives out file descriptors, an absolute path or "@name", of at most 107 bytes of UTF-8 without control
//   characters; absent if it does not.
// - segments: at most NVLXI_SEGMENTS_MAX. kind: characters of a-z 0-9 _; a reader keeps a segment of a kind unknown to
//   it, without its handle and file, of whatever form. device: the GPU's UUID, 16 bytes. [base, base + size) is not
//   empty, does not wrap, and overlaps no other segment's. handle: 1 to 64 bytes, a capability: it is never logged.
//   file: true if opening the segment takes a file descriptor from `address`, else absent or false. What a segment has
//   goes by its kind, and so does whether it joins:
//     cuda_malloc   a handle, no file
//     vmm           a file, a handle or none; joins
//     pool          a handle, a file
//     fabric        a handle, no file; joins
//     host          a file, a handle or none; joins. Host memory, and device is the GPU that is near
// - regions: at most NVLXI_REGIONS_MAX, each an array of two, since each value costs jsoncpp 250 ns. First the name, as
//   nvlxi_utf8_is_name wants it, unique; null for none. Then words with one space between them, of which a reader
//   ignores what follows these:
//     segment   index into "segments" in decimal digits; "-" if, and only if, the length is 0
//     offset    of the region in its segment, where it begins; 0 without one
//     length    in bytes. The region stays in its segment, or goes on into those that follow in the list: each of them
//               begins where the one before ends, is of its device and kind, and both join
//     access    what peers may do: "-", "r", "w" or "rw"
//     since     the generation that the region came with; absent where that is not known
//   What follows since are names, each with a colon and a value, in any order; a reader ignores those unknown to it:
//     digest    of the region's bytes, as nvlxfer.h defines it; absent where the owner tells none
// - Changes have the same form, and two fields more; their segments and regions are those that were added, or are
// others
//   than before. A region of a later generation than "from" was added. One as old as it or older, which must have a
//   "since", is known by that, keeps name, length and access, and is now as told here: asleep or awake, in these
//   segments, with this digest or none:
//     from      the generation that these are changes of, less than "generation"
//     removed   a string of words with one space between them: the "since" of each region that is not there any more,
//               in hex as other numbers; absent if there is none
// - suspended: since version 1.1, regions whose memory sleeps: as in "regions", with the words address, length, access,
//   since. Absent if there are none. They count among the regions; to who does not know it, they were withdrawn.
// - Keys are not repeated, and JSON is strict: no comments, nothing after the object but blanks, no control characters.
//   No more than DEPTH_MAX levels and VALUES_MAX values (json.cc).
#include "descriptor/descriptor.h"

#include <json/json.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "base/base.h"
#include "base/utf8.h"
#include "descriptor/format.h"
#include "descriptor/json.h"
#include "descriptor/words.h"
extern "C" {
#include "base/error.h"
}

namespace {

using namespace nvlxi;

#define ENTRY(...) {__VA_ARGS__},
constexpr nvlxi_format_kind kinds[] = {NVLXI_FORMAT_KINDS(ENTRY)};
constexpr nvlxi_format_access accesses[] = {NVLXI_FORMAT_ACCESSES(ENTRY)};
#undef ENTRY

// ---- How reading fails -----------------------------------------------------------------------------------

bool get_string(const Json::Value *value, std::string_view *string) {
    const char *begin = nullptr, *end = nullptr;
    if (value == nullptr || !value->isString() || !value->getString(&begin, &end))
        return false;
    *string = std::string_view(begin, static_cast<size_t>(end - begin));
    return true;
}

const char *type_name(const Json::Value *value) {
    if (value == nullptr)
        return "missing";
    switch (value->type()) {
    case Json::nullValue:
        return "null";
    case Json::booleanValue:
        return "a truth value";
    case Json::stringValue:
        return "a string";
    case Json::arrayValue:
        return "an array";
    case Json::objectValue:
        return "an object";
    default:
        return "a number";
    }
}

int unexpected(const Json::Value *value, const Place &place, const char *expected) {
    std::string_view string;
    if (get_string(value, &string))
        return bad_word(string, place, expected);
    return malformed(place, " is %s: expected %s", type_name(value), expected);
}

// ---- Reading values --------------------------------------------------------------------------------------
// jsoncpp asserts or throws when a value is of another type than the caller thinks: all access is through these.

// NULL if there is none.
const Json::Value *member(const Json::Value &object, const char *name) {
    return object.find(name, name + std::strlen(name));
}

int read_hex(const Json::Value *value, const Place &place, uint64_t *number) {
    std::string_view string;
    return get_string(value, &string) ? read_hex_word(string, place, number) : unexpected(value, place, hex_form);
}

// A number without a point or exponent, as JSON has it for small counts.
bool get_index(const Json::Value &value, uint32_t *index) {
    if ((value.type() != Json::intValue && value.type() != Json::uintValue) || !value.isUInt())
        return false;
    *index = value.asUInt();
    return true;
}

// `room`: of the destination, zeroed before, of which the last byte stays 0.
void copy_string(char *destination, size_t room, std::string_view string) {
    std::memcpy(destination, string.data(), std::min(room - 1, string.size()));
}

// ---- Reading records -------------------------------------------------------------------------------------

int read_version(const Json::Value &root) {
    const Json::Value *format = member(root, "format"), *version = member(root, "version");
    std::string_view name;
    if (!get_string(format, &name) || name != NVLXI_FORMAT_NAME)
        return unexpected(format, {"format", Place::no_index, nullptr}, "\"" NVLXI_FORMAT_NAME "\"");
    uint32_t major = 0, minor = 0;
    if (version == nullptr || !version->isArray() || version->size() < 2 || !get_index((*version)[0], &major) ||
        !get_index((*version)[1], &minor))
        return unexpected(version, {"version", Place::no_index, nullptr}, "two numbers");
    if (major != NVLXI_FORMAT_MAJOR)
        return nvlxi_fail(NVLX_EVERSION, "descriptor version %" PRIu32 ".%" PRIu32 ", this library reads %u.x", major,
                          minor, NVLXI_FORMAT_MAJOR);
    return NVLX_OK;
}

int read_address(const Json::Value *value, nvlxi_descriptor *descriptor) {
    std::string_view string;
    if (value == nullptr)
        return NVLX_OK;
    if (!get_string(value, &string) || !nvlxi_address_bytes_valid(string.data(), string.size()))
        return unexpected(value, {"process", Place::no_index, "address"},
                          "an absolute path or \"@name\", of at most 107 bytes of UTF-8 without control characters");
    copy_string(descriptor->address, sizeof descriptor->address, string);
    return NVLX_OK;
}

int read_process(const Json::Value *process, nvlxi_descriptor *descriptor) {
    nvlxi_identity *identity = &descriptor->identity;
    const auto place = [](const char *field) { return Place{"process", Place::no_index, field}; };
    if (process == nullptr || !process->isObject())
        return unexpected(process, place(nullptr), "an object");
    const Json::Value *boot_id = member(*process, "boot_id"), *engine = member(*process, "engine");
    std::string_view string;
    if (!get_string(boot_id, &string) || string.empty() || string.size() >= sizeof identity->boot_id ||
        !is_printable(string))
        return unexpected(boot_id, place("boot_id"), "1 to 39 printable characters");
    copy_string(identity->boot_id, sizeof identity->boot_id, string);
    uint8_t bytes[16];
    if (!get_string(engine, &string) || parse_bytes(string, bytes, sizeof bytes) != sizeof bytes)
        return unexpected(engine, place("engine"), "32 lower-case hex digits");
    copy_string(identity->engine, sizeof identity->engine, string);

    const std::pair<const char *, uint64_t *> numbers[] = {{"pid", &identity->pid},
                                                           {"pid_namespace", &identity->pid_namespace},
                                                           {"start_time", &identity->start_time},
                                                           {"generation", &identity->generation}};
    for (const auto &[field, number] : numbers)
        if (const int code = read_hex(member(*process, field), place(field), number))
            return code;
    return read_address(member(*process, "address"), descriptor);
}

// *kind is NULL if it is of a newer minor version.
int read_kind(const Json::Value *value, const Place &place, nvlxi_segment_record *segment,
              const nvlxi_format_kind **kind) {
    std::string_view name;
    *kind = nullptr;
    if (!get_string(value, &name) || !is_word(name))
        return unexpected(value, place, "a word of a-z, 0-9 and _");
    copy_string(segment->kind_name, sizeof segment->kind_name, name);
    segment->kind = NVLXI_KIND_UNKNOWN;
    for (const nvlxi_format_kind &known : kinds)
        if (known.name == name) {
            *kind = &known;
            segment->kind = known.kind;
            segment->joins = known.joins;
        }
    return NVLX_OK;
}

int read_file(const Json::Value *value, const Place &place, const nvlxi_format_kind &kind, bool *file) {
    if (value != nullptr && !value->isBool())
        return unexpected(value, place, "a truth value");
    *file = value != nullptr && value->asBool();
    if (*file != kind.file)
        return malformed(place, " is %s: expected %s for a segment of kind \"%s\"", *file ? "true" : "not true",
                         kind.file ? "true" : "none", kind.name);
    return NVLX_OK;
}

// A handle lets its holder open the memory: the message has no byte of it.
int read_handle(const Json::Value *value, const Place &place, nvlxi_handle *handle) {
    std::string_view digits;
    if (!get_string(value, &digits))
        return malformed(place, " is %s: expected a string", type_name(value));
    handle->length = static_cast<uint32_t>(parse_bytes(digits, handle->bytes, sizeof handle->bytes));
    if (handle->length == 0)
        return malformed(place, " of %zu characters: expected 1 to %zu bytes in lower-case hex", digits.size(),
                         sizeof handle->bytes);
    return NVLX_OK;
}

int read_segment(const Json::Value &item, size_t index, nvlxi_segment_record *segment) {
    const auto place = [index](const char *field) { return Place{"segments", index, field}; };
    if (!item.isObject())
        return unexpected(&item, place(nullptr), "an object");
    const nvlxi_format_kind *kind;
    int code = read_kind(member(item, "kind"), place("kind"), segment, &kind);
    if (code != NVLX_OK)
        return code;
    const Json::Value *device = member(item, "device");
    std::string_view digits;
    if (!get_string(device, &digits) ||
        parse_bytes(digits, segment->device, sizeof segment->device) != sizeof segment->device)
        return unexpected(device, place("device"), "32 lower-case hex digits");
    if ((code = read_hex(member(item, "serial"), place("serial"), &segment->serial)) != NVLX_OK ||
        (code = read_hex(member(item, "base"), place("base"), &segment->base)) != NVLX_OK ||
        (code = read_hex(member(item, "size"), place("size"), &segment->size)) != NVLX_OK)
        return code;
    uint64_t end;
    if (segment->size == 0 || !nvlxi_add(segment->base, segment->size, &end))
        return malformed(place(nullptr), ": base 0x%" PRIx64 " + size 0x%" PRIx64 " is empty or wraps", segment->base,
                         segment->size);
    if (kind == nullptr)
        return NVLX_OK;
    if ((code = read_file(member(item, "file"), place("file"), *kind, &segment->file)) != NVLX_OK)
        return code;
    const Json::Value *handle = member(item, "handle");
    return handle == nullptr && !kind->handle ? NVLX_OK : read_handle(handle, place("handle"), &segment->handle);
}

// In order of their bases, if any two overlap then two neighbours do. So no two have one base either.
int check_overlap(const nvlxi_descriptor &descriptor) {
    const nvlxi_segment_record *segments = descriptor.segments;
    std::vector<size_t> order(descriptor.segment_count);
    for (size_t i = 0; i < order.size(); i++)
        order[i] = i;
    std::sort(order.begin(), order.end(),
              [segments](size_t a, size_t b) { return std::tie(segments[a].base, a) < std::tie(segments[b].base, b); });
    for (size_t i = 1; i < order.size(); i++) {
        const nvlxi_segment_record &before = segments[order[i - 1]], &after = segments[order[i]];
        if (after.base - before.base < before.size)
            return malformed({"segments", order[i], nullptr}, " at 0x%" PRIx64 " overlaps segments[%zu] at 0x%" PRIx64,
                             after.base, order[i - 1], before.base);
    }
    return NVLX_OK;
}

// ---- Reading regions -------------------------------------------------------------------------------------

struct RegionReader {
    const nvlxi_descriptor &descriptor;
    // For each segment the end of those that a region which begins in it may go on into.
    std::vector<uint32_t> run_ends;
    char *arena; // where the next name goes
};

std::vector<uint32_t> find_run_ends(const nvlxi_descriptor &descriptor) {
    std::vector<uint32_t> ends(descriptor.segment_count);
    for (size_t i = ends.size(); i-- > 0;) {
        const bool goes_on =
            i + 1 < ends.size() && nvlxi_format_adjoin(&descriptor.segments[i], &descriptor.segments[i + 1]);
        ends[i] = goes_on ? ends[i + 1] : static_cast<uint32_t>(i + 1);
    }
    return ends;
}

// Fills address and segment_count from the offset, for a region whose other numbers are read.
int place_region(uint64_t offset, size_t index, const RegionReader &reader, nvlxi_region_record *region) {
    const Place place = {"regions", index, nullptr};
    if (region->segment == NVLXI_NO_SEGMENT) {
        if (offset != 0 || region->length != 0)
            return malformed(place, ": offset 0x%" PRIx64 " + length 0x%" PRIx64 " without a segment", offset,
                             region->length);
        return NVLX_OK;
    }
    if (region->length == 0)
        return malformed(place, ": 0 bytes in segment %" PRIu32 ", not in none", region->segment);
    const nvlxi_segment_record *first = &reader.descriptor.segments[region->segment];
    const nvlxi_segment_record *end = &reader.descriptor.segments[reader.run_ends[region->segment]];
    const uint64_t room = end[-1].base + end[-1].size - first->base;
    if (offset >= first->size || region->length > room - offset)
        return malformed(place,
                         ": offset 0x%" PRIx64 " + length 0x%" PRIx64 " leave segment %" PRIu32 " of 0x%" PRIx64
                         " bytes, or the 0x%" PRIx64 " with those that it joins",
                         offset, region->length, region->segment, first->size, room);
    region->address = first->base + offset;
    const nvlxi_segment_record *after =
        std::upper_bound(first, end, region->address + (region->length - 1),
                         [](uint64_t last, const nvlxi_segment_record &segment) { return last < segment.base; });
    region->segment_count = static_cast<uint32_t>(after - first);
    return NVLX_OK;
}

int read_name(const Json::Value &value, const Place &place, char **arena, const char **name) {
    std::string_view string;
    *name = "";
    if (value.isNull())
        return NVLX_OK;
    if (!get_string(&value, &string) || !nvlxi_utf8_bytes_are_name(string.data(), string.size()))
        return unexpected(&value, place, "null, or 1 to 255 bytes of UTF-8 without control characters");
    std::memcpy(*arena, string.data(), string.size());
    (*arena)[string.size()] = '\0';
    *name = *arena;
    *arena += string.size() + 1;
    return NVLX_OK;
}

int read_segment_index(std::string_view word, const Place &place, size_t count, uint32_t *segment) {
    *segment = NVLXI_NO_SEGMENT;
    if (word == NVLXI_FORMAT_NO_SEGMENT || (parse_index(word, segment) && *segment < count))
        return NVLX_OK;
    char expected[64];
    std::snprintf(expected, sizeof expected, "\"" NVLXI_FORMAT_NO_SEGMENT "\" or an index below %zu", count);
    return bad_word(word, place, expected);
}

int read_access(std::string_view word, const Place &place, uint32_t *access) {
    for (const nvlxi_format_access &known : accesses)
        if (known.name == word) {
            *access = known.access;
            return NVLX_OK;
        }
    return bad_word(word, place, "\"-\", \"r\", \"w\" or \"rw\"");
}

// What may follow, in any order.
int read_named(Words *words, const Place &place, nvlxi_region_record *region) {
    constexpr std::string_view digest = NVLXI_FORMAT_DIGEST;
    for (std::string_view word = words->next(); word.data() != nullptr; word = words->next()) {
        if (word.substr(0, digest.size()) != digest)
            continue;
        if (const int code = read_hex_word(word.substr(digest.size()), place, &region->digest))
            return code;
        region->has_digest = true;
    }
    return NVLX_OK;
}

int read_range(const Json::Value &value, const Place &where, const RegionReader &reader, nvlxi_region_record *region) {
    const auto place = [&where](const char *field) { return Place{where.list, where.index, field}; };
    const bool asleep = region->suspended;
    std::string_view string;
    if (!get_string(&value, &string))
        return unexpected(&value, place("range"),
                          asleep ? "a string of address, length, access and since"
                                 : "a string of segment, offset, length, access and since");
    Words words(string);
    uint64_t at = 0, end;
    const size_t count = reader.descriptor.segment_count;
    int code = asleep ? NVLX_OK : read_segment_index(words.next(), place("segment"), count, &region->segment);
    if (code != NVLX_OK || (code = read_hex_word(words.next(), place(asleep ? "address" : "offset"), &at)) != NVLX_OK ||
        (code = read_hex_word(words.next(), place("length"), &region->length)) != NVLX_OK ||
        (code = read_access(words.next(), place("access"), &region->access)) != NVLX_OK)
        return code;
    const std::string_view since = words.next();
    if (!since.empty() && (code = read_hex_word(since, place("since"), &region->since)) != NVLX_OK)
        return code;
    if ((code = read_named(&words, place("digest"), region)) != NVLX_OK)
        return code;
    if (!asleep)
        return place_region(at, where.index, reader, region);
    region->address = at;
    region->segment = NVLXI_NO_SEGMENT;
    return nvlxi_add(at, region->length, &end)
               ? NVLX_OK
               : malformed(where, ": 0x%" PRIx64 " + 0x%" PRIx64 " wraps", at, region->length);
}

int read_region(const Json::Value &item, const Place &where, RegionReader *reader, nvlxi_region_record *region) {
    if (!item.isArray() || item.size() < 2)
        return unexpected(&item, where, "an array of name and range");
    Json::Value::const_iterator element = item.begin(); // operator[] would search
    const int code = read_name(*element, {where.list, where.index, "name"}, &reader->arena, &region->name);
    return code != NVLX_OK ? code : read_range(*++element, where, *reader, region);
}

int index_names(nvlxi_descriptor *descriptor) {
    size_t index = 0, twin = 0;
    const int code =
        nvlxi_name_index_build(descriptor->regions, descriptor->region_count, &descriptor->by_name, &index, &twin);
    if (code == NVLX_ENOMEM)
        throw std::bad_alloc();
    if (code != NVLX_OK)
        return malformed({"regions", index, "name"}, " is \"%s\", which is taken by regions[%zu]",
                         Shown(descriptor->regions[index].name).text, twin);
    return NVLX_OK;
}

int check_list(const Json::Value *list, const char *name, size_t more, size_t most) {
    if (list == nullptr || !list->isArray())
        return unexpected(list, {name, Place::no_index, nullptr}, "an array");
    if (list->size() + more > most)
        return malformed({name, Place::no_index, nullptr}, ": %zu entries, of at most %zu", list->size() + more, most);
    return NVLX_OK;
}

// Zeroed, for free(3).
template <typename T> T *allocate(size_t count) {
    T *memory = static_cast<T *>(std::calloc(std::max<size_t>(count, 1), sizeof(T)));
    if (memory == nullptr)
        throw std::bad_alloc();
    return memory;
}

int read_segments(const Json::Value *list, nvlxi_descriptor *descriptor) {
    if (const int code = check_list(list, "segments", 0, NVLXI_SEGMENTS_MAX))
        return code;
    descriptor->segments = allocate<nvlxi_segment_record>(list->size());
    for (const Json::Value &item : *list) {
        const size_t index = descriptor->segment_count;
        if (const int code = read_segment(item, index, &descriptor->segments[index]))
            return code;
        descriptor->segment_count++;
    }
    return check_overlap(*descriptor);
}

// A region that sleeps stands behind all others.
int take_region(const Json::Value &item, const Place &where, RegionReader *reader, nvlxi_descriptor *descriptor) {
    nvlxi_region_record *region = &descriptor->regions[descriptor->region_count];
    const int code = read_region(item, where, reader, region);
    descriptor->region_count += code == NVLX_OK ? 1 : 0;
    return code;
}

int read_sleepers(const Json::Value *list, RegionReader *reader, nvlxi_descriptor *descriptor) {
    for (Json::ArrayIndex i = 0; list != nullptr && i < list->size(); i++) {
        descriptor->regions[descriptor->region_count].suspended = true;
        if (const int code = take_region((*list)[i], {"suspended", i, nullptr}, reader, descriptor))
            return code;
        descriptor->suspended_count++;
    }
    return NVLX_OK;
}

// The items of the list, or of what was cut out of it, and those that sleep, of which there may be no list.
// `text_size`: room for all names with their NULs, which in the text have two quotes each.
int read_regions(const Json::Value *list, const Json::Value *sleepers, const Cut &cut, size_t text_size,
                 nvlxi_descriptor *descriptor) {
    int code = check_list(list, "regions", cut.count, NVLXI_REGIONS_MAX);
    if (code == NVLX_OK && sleepers != nullptr)
        code = check_list(sleepers, "suspended", cut.count + list->size(), NVLXI_REGIONS_MAX);
    if (code != NVLX_OK)
        return code;
    const size_t asleep = sleepers != nullptr ? sleepers->size() : 0;
    descriptor->regions = allocate<nvlxi_region_record>(cut.count + list->size() + asleep);
    descriptor->names = allocate<char>(text_size);
    RegionReader reader = {*descriptor, find_run_ends(*descriptor), descriptor->names};
    const auto take = [descriptor, &reader](const Json::Value &item) {
        return take_region(item, {"regions", descriptor->region_count, nullptr}, &reader, descriptor);
    };
    for (const Json::Value &item : *list)
        if ((code = take(item)) != NVLX_OK)
            return code;
    if ((code = read_cut(cut, take)) != NVLX_OK || (code = read_sleepers(sleepers, &reader, descriptor)) != NVLX_OK)
        return code;
    return index_names(descriptor);
}

// Room for all words, of which each but the first takes 4 characters at least.
int read_removed(const Json::Value *value, nvlxi_descriptor *descriptor) {
    const Place place = {"removed", Place::no_index, nullptr};
    std::string_view string;
    if (value == nullptr)
        return NVLX_OK;
    if (!get_string(value, &string))
        return unexpected(value, place, "a string of generations");
    descriptor->removed = allocate<uint64_t>(string.size() / 4 + 1);
    Words words(string);
    for (std::string_view word = words.next(); word.data() != nullptr; word = words.next())
        if (const int code = read_hex_word(word, place, &descriptor->removed[descriptor->removed_count++]))
            return code;
    return NVLX_OK;
}

int read_changes(const Json::Value &root, nvlxi_descriptor *descriptor) {
    const Place place = {"from", Place::no_index, nullptr};
    const Json::Value *from = member(root, "from");
    if (from == nullptr)
        return NVLX_OK;
    if (const int code = read_hex(from, place, &descriptor->from))
        return code;
    if (descriptor->from == 0 || descriptor->from >= descriptor->identity.generation)
        return malformed(place, " is 0x%" PRIx64 ": expected more than 0x0, and less than generation 0x%" PRIx64,
                         descriptor->from, descriptor->identity.generation);
    return read_removed(member(root, "removed"), descriptor);
}

int read_text(std::string_view text, nvlxi_descriptor *descriptor) {
    Json::Value root;
    Cut cut;
    int code = read_json(text, "regions", &root, &cut);
    if (code != NVLX_OK)
        return code;
    if (!root.isObject())
        return unexpected(&root, {"the text", Place::no_index, nullptr}, "an object");
    if ((code = read_version(root)) != NVLX_OK)
        return code;
    const Json::Value *backend = member(root, "backend");
    std::string_view name;
    if (!get_string(backend, &name) || !is_word(name) || name.size() >= sizeof descriptor->backend)
        return unexpected(backend, {"backend", Place::no_index, nullptr}, "1 to 15 characters of a-z, 0-9 and _");
    copy_string(descriptor->backend, sizeof descriptor->backend, name);
    if ((code = read_process(member(root, "process"), descriptor)) != NVLX_OK ||
        (code = read_changes(root, descriptor)) != NVLX_OK ||
        (code = read_segments(member(root, "segments"), descriptor)) != NVLX_OK)
        return code;
    return read_regions(member(root, "regions"), member(root, "suspended"), cut, text.size(), descriptor);
}

} // namespace

// ---- The C side: no exception passes ---------------------------------------------------------------------

int nvlxi_descriptor_decode(const char *text, size_t length, nvlxi_descriptor **descriptor) {
    if (length > NVLXI_TEXT_MAX)
        return nvlxi_fail(NVLX_EFORMAT, "descriptor: %zu bytes, of at most %u", length, NVLXI_TEXT_MAX);
    try {
        std::unique_ptr<nvlxi_descriptor, decltype(&nvlxi_descriptor_free)> read(allocate<nvlxi_descriptor>(1),
                                                                                 &nvlxi_descriptor_free);
        if (const int code = read_text({text, length}, read.get()))
            return code;
        *descriptor = read.release();
        return NVLX_OK;
    } catch (const std::bad_alloc &) {
        return nvlxi_fail(NVLX_ENOMEM, "descriptor: no memory to read %zu bytes", length);
    } catch (const std::exception &error) {
        return nvlxi_fail(NVLX_EFORMAT, "descriptor: %s", Shown(error.what()).text);
    } catch (...) {
        return nvlxi_fail(NVLX_EFORMAT, "descriptor: cannot be read");
    }
}

void nvlxi_descriptor_free(nvlxi_descriptor *descriptor) {
    if (descriptor == nullptr)
        return;
    std::free(descriptor->segments);
    std::free(descriptor->regions);
    std::free(descriptor->names);
    std::free(descriptor->removed);
    nvlxi_name_index_free(&descriptor->by_name);
    std::free(descriptor);
}
