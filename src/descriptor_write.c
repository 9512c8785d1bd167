/* Records -> JSON, in the format that descriptor.cc describes. SPDX-License-Identifier: Apache-2.0
 *
 * Without jsoncpp: building its values for 100,000 regions and writing them takes 300 ms, this takes a tenth, and an
 * engine exports anew after every change. Control characters are nowhere allowed, so that two escapes suffice. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "descriptor.h"
#include "descriptor_wire.h"
#include "error.h"
#include "name.h"

#define HEX "\"0x%" PRIx64 "\""

static const char *kind_name(const struct nvlxi_segment_record *segment) {
    switch (segment->kind) {
#define KIND_NAME(kind, name)                                                                                          \
    case kind:                                                                                                         \
        return name;
        NVLXI_WIRE_KINDS(KIND_NAME)
#undef KIND_NAME
    default:
        return segment->kind_name;
    }
}

/* NULL if there is no such access. */
static const char *access_name(uint32_t access) {
    switch (access) {
#define ACCESS_NAME(access, name)                                                                                      \
    case access:                                                                                                       \
        return name;
        NVLXI_WIRE_ACCESSES(ACCESS_NAME)
#undef ACCESS_NAME
    default:
        return NULL;
    }
}

static bool lies_in_segment(const struct nvlxi_region_record *region, const struct nvlxi_descriptor *descriptor) {
    if (region->segment == NVLXI_NO_SEGMENT)
        return region->length == 0;
    if (region->segment >= descriptor->segment_count)
        return false;
    const struct nvlxi_segment_record *segment = &descriptor->segments[region->segment];
    uint64_t offset = region->address - segment->base; /* wraps to beyond the size if the address is below */
    return region->length > 0 && offset < segment->size && region->length <= segment->size - offset;
}

/* Refuses what no peer would read. */
static int check(const struct nvlxi_descriptor *descriptor) {
    if (descriptor->segment_count > NVLXI_SEGMENTS_MAX || descriptor->region_count > NVLXI_REGIONS_MAX)
        return nvlxi_fail(NVLX_EINVAL, "%zu segments and %zu regions: a descriptor has at most %u and %u",
                          descriptor->segment_count, descriptor->region_count, NVLXI_SEGMENTS_MAX, NVLXI_REGIONS_MAX);
    for (size_t i = 0; i < descriptor->segment_count; i++) {
        uint32_t length = descriptor->segments[i].handle.length;
        if (length > NVLXI_HANDLE_BYTES)
            return nvlxi_fail(NVLX_EINVAL, "segments[%zu] has a handle of %" PRIu32 " bytes, of at most %d", i, length,
                              NVLXI_HANDLE_BYTES);
    }
    for (size_t i = 0; i < descriptor->region_count; i++) {
        const struct nvlxi_region_record *region = &descriptor->regions[i];
        if (region->name[0] && !nvlxi_name_valid(region->name))
            return nvlxi_fail(NVLX_EINVAL,
                              "the name of regions[%zu] is not 1 to 255 bytes of UTF-8 without control characters", i);
        if (!access_name(region->access))
            return nvlxi_fail(NVLX_EINVAL, "regions[%zu] has access %" PRIu32 ", not 0 to 3", i, region->access);
        if (!lies_in_segment(region, descriptor))
            return nvlxi_fail(NVLX_EINVAL, "regions[%zu] at 0x%" PRIx64 " of 0x%" PRIx64 " bytes is not in its segment",
                              i, region->address, region->length);
    }
    return NVLX_OK;
}

static void write_bytes(FILE *file, const uint8_t *bytes, size_t length) {
    char digits[2 * NVLXI_HANDLE_BYTES];
    for (size_t i = 0; i < length; i++) {
        digits[2 * i] = "0123456789abcdef"[bytes[i] >> 4];
        digits[2 * i + 1] = "0123456789abcdef"[bytes[i] & 15];
    }
    fwrite(digits, 1, 2 * length, file);
}

static void write_segment(FILE *file, const struct nvlxi_segment_record *segment) {
    fprintf(file, "{\"kind\":\"%s\",\"device\":\"", kind_name(segment));
    write_bytes(file, segment->device, sizeof segment->device);
    fprintf(file, "\",\"serial\":" HEX ",\"base\":" HEX ",\"size\":" HEX ",\"handle\":\"", segment->serial,
            segment->base, segment->size);
    write_bytes(file, segment->handle.bytes, segment->handle.length);
    fputs("\"}", file);
}

static void write_string(FILE *file, const char *string) {
    fputc('"', file);
    while (*string) {
        size_t plain = strcspn(string, "\"\\");
        fwrite(string, 1, plain, file);
        string += plain;
        if (*string)
            fprintf(file, "\\%c", *string++);
    }
    fputc('"', file);
}

static void write_region(FILE *file, const struct nvlxi_region_record *region,
                         const struct nvlxi_segment_record *segments) {
    fputc('[', file);
    if (region->name[0])
        write_string(file, region->name);
    else
        fputs("null", file);
    if (region->segment == NVLXI_NO_SEGMENT)
        fputs(",null,\"0x0\",\"0x0\"", file);
    else
        fprintf(file, ",%" PRIu32 "," HEX "," HEX, region->segment, region->address - segments[region->segment].base,
                region->length);
    fprintf(file, ",\"%s\"]", access_name(region->access));
}

static void write_text(FILE *file, const struct nvlxi_descriptor *descriptor) {
    const struct nvlxi_identity *identity = &descriptor->identity;
    fprintf(file,
            "{\"format\":\"%s\",\"version\":[%u,%u],\"backend\":\"%s\",\"process\":{\"boot_id\":", NVLXI_WIRE_FORMAT,
            NVLXI_WIRE_MAJOR, NVLXI_WIRE_MINOR, descriptor->backend);
    write_string(file, identity->boot_id);
    fprintf(file,
            ",\"pid\":" HEX ",\"pid_namespace\":" HEX ",\"start_time\":" HEX ",\"engine\":\"%s\",\"generation\":" HEX
            "}",
            identity->pid, identity->pid_namespace, identity->start_time, identity->engine, identity->generation);
    fputs(",\"segments\":[", file);
    for (size_t i = 0; i < descriptor->segment_count; i++) {
        fputs(i > 0 ? "," : "", file);
        write_segment(file, &descriptor->segments[i]);
    }
    fputs("],\"regions\":[", file);
    for (size_t i = 0; i < descriptor->region_count; i++) {
        fputs(i > 0 ? "," : "", file);
        write_region(file, &descriptor->regions[i], descriptor->segments);
    }
    fputs("]}", file);
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
