/* Records -> JSON, in the format that decode.cc describes. SPDX-License-Identifier: Apache-2.0
 *
 * Without jsoncpp: building its values for 100,000 regions and writing them takes 300 ms, this takes a tenth, and an
 * engine exports anew after every change. Control characters are nowhere allowed, so that two escapes suffice. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/base.h"
#include "base/error.h"
#include "base/utf8.h"
#include "descriptor/descriptor.h"
#include "descriptor/format.h"

#define HEX "\"0x%" PRIx64 "\""

#define ENTRY(...) {__VA_ARGS__},
static const struct nvlxi_format_kind kinds[] = {NVLXI_FORMAT_KINDS(ENTRY)};
static const struct nvlxi_format_access accesses[] = {NVLXI_FORMAT_ACCESSES(ENTRY)};
#undef ENTRY

/* NULL for one of a newer version. */
static const struct nvlxi_format_kind *find_kind(const struct nvlxi_segment_record *segment) {
    for (size_t i = 0; i < NVLXI_COUNT(kinds); i++)
        if (kinds[i].kind == segment->kind)
            return &kinds[i];
    return NULL;
}

/* NULL if there is no such access. */
static const char *access_name(uint32_t access) {
    for (size_t i = 0; i < NVLXI_COUNT(accesses); i++)
        if (accesses[i].access == access)
            return accesses[i].name;
    return NULL;
}

/* ---- Checks ---------------------------------------------------------------------------------------------- */

/* As a peer will take them from the kind. */
static bool has_what_kind_takes(const struct nvlxi_segment_record *segment) {
    const struct nvlxi_format_kind *kind = find_kind(segment);
    if (!kind)
        return !segment->file && !segment->joins;
    return segment->file == kind->file && segment->joins == kind->joins && (segment->handle.length || !kind->handle);
}

static bool lies_in_segments(const struct nvlxi_region_record *region, const struct nvlxi_descriptor *descriptor) {
    uint64_t end;
    if (region->suspended)
        return region->segment == NVLXI_NO_SEGMENT && nvlxi_add(region->address, region->length, &end);
    if (region->segment == NVLXI_NO_SEGMENT)
        return region->length == 0 && region->segment_count == 0;
    if (region->segment >= descriptor->segment_count || region->length == 0 || region->segment_count == 0 ||
        region->segment_count > descriptor->segment_count - region->segment)
        return false;
    const struct nvlxi_segment_record *first = &descriptor->segments[region->segment],
                                      *last = first + region->segment_count - 1;
    for (const struct nvlxi_segment_record *segment = first; segment < last; segment++)
        if (!nvlxi_format_adjoin(segment, segment + 1))
            return false;
    uint64_t offset = region->address - first->base; /* wraps to beyond the size if the address is below */
    uint64_t before_last = last->base - first->base;
    return offset < first->size && region->length > before_last - nvlxi_min(offset, before_last) &&
           region->length <= before_last + last->size - offset;
}

static int check_segment(const struct nvlxi_segment_record *segment, size_t index) {
    if (segment->handle.length > NVLXI_HANDLE_BYTES)
        return nvlxi_fail(NVLX_EINVAL, "segments[%zu] has a handle of %" PRIu32 " bytes, of at most %d", index,
                          segment->handle.length, NVLXI_HANDLE_BYTES);
    if (!has_what_kind_takes(segment))
        return nvlxi_fail(NVLX_EINVAL,
                          "segments[%zu] of kind %" PRIu32 " has a handle of %" PRIu32
                          " bytes, file %d and joins %d: its kind takes others",
                          index, segment->kind, segment->handle.length, segment->file, segment->joins);
    return NVLX_OK;
}

/* Refuses what no peer would read. */
static int check(const struct nvlxi_descriptor *descriptor) {
    if (descriptor->segment_count > NVLXI_SEGMENTS_MAX || descriptor->region_count > NVLXI_REGIONS_MAX)
        return nvlxi_fail(NVLX_EINVAL, "%zu segments and %zu regions: a descriptor has at most %u and %u",
                          descriptor->segment_count, descriptor->region_count, NVLXI_SEGMENTS_MAX, NVLXI_REGIONS_MAX);
    if (descriptor->from && descriptor->from >= descriptor->identity.generation)
        return nvlxi_fail(NVLX_EINVAL, "changes from generation %" PRIu64 " to %" PRIu64, descriptor->from,
                          descriptor->identity.generation);
    if (descriptor->address[0] && !nvlxi_address_bytes_valid(descriptor->address, strlen(descriptor->address)))
        return nvlxi_fail(NVLX_EINVAL, "the address to be served at is no absolute path or \"@name\"");
    for (size_t i = 0; i < descriptor->segment_count; i++) {
        int code = check_segment(&descriptor->segments[i], i);
        if (code)
            return code;
    }
    for (size_t i = 0; i < descriptor->region_count; i++) {
        const struct nvlxi_region_record *region = &descriptor->regions[i];
        if (region->name[0] && !nvlxi_utf8_is_name(region->name))
            return nvlxi_fail(NVLX_EINVAL,
                              "the name of regions[%zu] is not 1 to 255 bytes of UTF-8 without control characters", i);
        if (!access_name(region->access))
            return nvlxi_fail(NVLX_EINVAL, "regions[%zu] has access %" PRIu32 ", not 0 to 3", i, region->access);
        if (!lies_in_segments(region, descriptor))
            return nvlxi_fail(NVLX_EINVAL,
                              "regions[%zu] at 0x%" PRIx64 " of 0x%" PRIx64 " bytes is not in its segments", i,
                              region->address, region->length);
    }
    return NVLX_OK;
}

/* ---- Writing --------------------------------------------------------------------------------------------- */

static void write_bytes(FILE *file, const uint8_t *bytes, size_t length) {
    char digits[2 * NVLXI_HANDLE_BYTES];
    for (size_t i = 0; i < length; i++) {
        digits[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        digits[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    fwrite(digits, 1, 2 * length, file);
}

static void write_segment(FILE *file, const struct nvlxi_segment_record *segment) {
    const struct nvlxi_format_kind *kind = find_kind(segment);
    fprintf(file, "{\"kind\":\"%s\",\"device\":\"", kind ? kind->name : segment->kind_name);
    write_bytes(file, segment->device, sizeof segment->device);
    fprintf(file, "\",\"serial\":" HEX ",\"base\":" HEX ",\"size\":" HEX, segment->serial, segment->base,
            segment->size);
    if (segment->handle.length) {
        fputs(",\"handle\":\"", file);
        write_bytes(file, segment->handle.bytes, segment->handle.length);
        fputc('"', file);
    }
    fputs(segment->file ? ",\"file\":true}" : "}", file);
}

static void write_string(FILE *file, const char *string) {
    char escaped[512]; /* a call of stdio's for each part costs far more than the parts: names may be all " */
    size_t length = 0;
    escaped[length++] = '"';
    for (; *string; string++) {
        if (length > sizeof escaped - 3) {
            fwrite(escaped, 1, length, file);
            length = 0;
        }
        if (*string == '"' || *string == '\\')
            escaped[length++] = '\\';
        escaped[length++] = *string;
    }
    escaped[length++] = '"';
    fwrite(escaped, 1, length, file);
}

static void write_region(FILE *file, const struct nvlxi_region_record *region,
                         const struct nvlxi_segment_record *segments) {
    fputc('[', file);
    if (region->name[0])
        write_string(file, region->name);
    else
        fputs("null", file);
    if (region->suspended)
        fprintf(file, ",\"0x%" PRIx64 " 0x%" PRIx64, region->address, region->length);
    else if (region->segment == NVLXI_NO_SEGMENT)
        fputs(",\"" NVLXI_FORMAT_NO_SEGMENT " 0x0 0x0", file);
    else
        fprintf(file, ",\"%" PRIu32 " 0x%" PRIx64 " 0x%" PRIx64, region->segment,
                region->address - segments[region->segment].base, region->length);
    fprintf(file, " %s 0x%" PRIx64, access_name(region->access), region->since);
    if (region->has_digest)
        fprintf(file, " " NVLXI_FORMAT_DIGEST "0x%" PRIx64, region->digest);
    fputs("\"]", file);
}

static void write_process(FILE *file, const struct nvlxi_descriptor *descriptor) {
    const struct nvlxi_identity *identity = &descriptor->identity;
    fputs("{\"boot_id\":", file);
    write_string(file, identity->boot_id);
    fprintf(file,
            ",\"pid\":" HEX ",\"pid_namespace\":" HEX ",\"start_time\":" HEX ",\"engine\":\"%s\",\"generation\":" HEX,
            identity->pid, identity->pid_namespace, identity->start_time, identity->engine, identity->generation);
    if (descriptor->address[0]) {
        fputs(",\"address\":", file);
        write_string(file, descriptor->address);
    }
    fputc('}', file);
}

static void write_changes(FILE *file, const struct nvlxi_descriptor *descriptor) {
    fprintf(file, ",\"from\":" HEX, descriptor->from);
    if (!descriptor->removed_count)
        return;
    for (size_t i = 0; i < descriptor->removed_count; i++)
        fprintf(file, "%s0x%" PRIx64, i ? " " : ",\"removed\":\"", descriptor->removed[i]);
    fputc('"', file);
}

static void write_text(FILE *file, const struct nvlxi_descriptor *descriptor) {
    fprintf(file, "{\"format\":\"%s\",\"version\":[%u,%u],\"backend\":\"%s\",\"process\":", NVLXI_FORMAT_NAME,
            NVLXI_FORMAT_MAJOR, NVLXI_FORMAT_MINOR, descriptor->backend);
    write_process(file, descriptor);
    if (descriptor->from)
        write_changes(file, descriptor);
    fputs(",\"segments\":[", file);
    for (size_t i = 0; i < descriptor->segment_count; i++) {
        fputs(i > 0 ? "," : "", file);
        write_segment(file, &descriptor->segments[i]);
    }
    const size_t awake = descriptor->region_count - descriptor->suspended_count;
    fputs("],\"regions\":[", file);
    for (size_t i = 0; i < descriptor->region_count; i++) {
        fputs(i == awake ? "],\"suspended\":[" : i > 0 ? "," : "", file);
        write_region(file, &descriptor->regions[i], descriptor->segments);
    }
    fputs("]}", file);
}

/* The index of a segment has up to 6 digits, a number up to 18 characters. */
size_t nvlxi_descriptor_region_room(const char *name, bool has_digest) {
    size_t room = sizeof ",[null,\"262143 0x0123456789abcdef 0x0123456789abcdef rw 0x0123456789abcdef\"]";
    room += has_digest ? sizeof " " NVLXI_FORMAT_DIGEST "0x0123456789abcdef" - 1 : 0;
    for (; name && *name; name++)
        room += *name == '"' || *name == '\\' ? 2 : 1;
    return room;
}

size_t nvlxi_descriptor_segment_room(const struct nvlxi_handle *handle) {
    return sizeof ",{\"kind\":\"cuda_malloc\",\"device\":\"\",\"serial\":\"0x0123456789abcdef\",\"base\":"
                  "\"0x0123456789abcdef\",\"size\":\"0x0123456789abcdef\",\"handle\":\"\",\"file\":true}" +
           (size_t)2 * NVLXI_UUID_BYTES + (size_t)2 * handle->length;
}

int nvlxi_descriptor_encode(const struct nvlxi_descriptor *descriptor, char **text, size_t *length) {
    int code = check(descriptor);
    if (code)
        return code;
    char *written = NULL;
    size_t count = 0;
    FILE *file = open_memstream(&written, &count);
    if (!file)
        goto no_memory;
    write_text(file, descriptor);
    bool failed = ferror(file);
    if (fclose(file) || failed)
        goto free_text;
    if (count > NVLXI_TEXT_MAX) {
        free(written);
        return nvlxi_fail(NVLX_EINVAL, "a descriptor of %zu bytes: at most %u are allowed", count, NVLXI_TEXT_MAX);
    }
    *text = written;
    *length = count;
    return 0;
free_text:
    free(written);
no_memory:
    return nvlxi_fail(NVLX_ENOMEM, "no memory to write a descriptor of %zu segments and %zu regions",
                      descriptor->segment_count, descriptor->region_count);
}
