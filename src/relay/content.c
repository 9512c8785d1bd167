/* Parts and pieces of what is relayed: see content.h. SPDX-License-Identifier: Apache-2.0 */
#include "relay/content.h"

#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/error.h"

#define PIECE_LEAST (UINT64_C(1) << 20)
#define PIECE_MOST  (UINT64_C(128) << 20)
/* Bytes that move in the time that a piece costs, divided by the readers in between. A GPU that is read from meanwhile
 * copies nothing for 12 us a piece (four H200). */
#define PIECE_SCALE (UINT64_C(2) << 20)

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct nvlx_relay_part *)a)->name, ((const struct nvlx_relay_part *)b)->name);
}

static int check_part(const struct nvlx_relay_part *part, size_t i) {
    if (!part->name)
        return nvlxi_fail(NVLX_EINVAL, "parts[%zu].name is NULL", i);
    if (!strcmp(part->name, NVLXI_RELAY_STATE) || !strcmp(part->name, NVLXI_RELAY_READER_STATE))
        return nvlxi_fail(NVLX_EINVAL, "parts[%zu].name is \"%s\", which the relay itself uses", i, part->name);
    if (part->length && !part->address)
        return nvlxi_fail(NVLX_EINVAL, "parts[%zu] (\"%s\") has %llu bytes and no address", i, part->name,
                          (unsigned long long)part->length);
    return 0;
}

static int check_parts(const struct nvlx_relay_part *parts, size_t count, uint64_t *bytes) {
    *bytes = 0;
    if (!parts)
        return nvlxi_fail(NVLX_EINVAL, "parts is NULL");
    for (size_t i = 0; i < count; i++) {
        int code = check_part(&parts[i], i);
        if (code)
            return code;
        if (!nvlxi_add(*bytes, parts[i].length, bytes))
            return nvlxi_fail(NVLX_EINVAL, "the parts have more than 2^64 bytes together");
    }
    return *bytes ? 0 : nvlxi_fail(NVLX_EINVAL, "the %zu parts have not one byte to relay", count);
}

static int check_names(const struct nvlx_relay_part *sorted, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (!strcmp(sorted[i].name, sorted[i - 1].name))
            return nvlxi_fail(NVLX_EINVAL, "two parts have the name \"%s\"", sorted[i].name);
    return 0;
}

static int by_address(const void *a, const void *b) {
    const uintptr_t first = (uintptr_t)(*(const struct nvlx_relay_part *const *)a)->address,
                    second = (uintptr_t)(*(const struct nvlx_relay_part *const *)b)->address;
    return (first > second) - (first < second);
}

static int check_sorted(const struct nvlx_relay_part **sorted, size_t count) {
    for (size_t i = 1; i < count; i++) {
        const struct nvlx_relay_part *before = sorted[i - 1], *part = sorted[i];
        if ((uintptr_t)part->address - (uintptr_t)before->address < before->length)
            return nvlxi_fail(NVLX_EINVAL, "the parts \"%s\" and \"%s\" share bytes", before->name, part->name);
    }
    return 0;
}

int nvlxi_relay_content_check_apart(const struct nvlxi_relay_content *content) {
    const struct nvlx_relay_part **sorted = calloc(content->part_count, sizeof *sorted);
    size_t count = 0;
    if (!sorted)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for %zu parts", content->part_count);
    for (size_t i = 0; i < content->part_count; i++)
        if (content->parts[i].length)
            sorted[count++] = &content->parts[i];
    qsort(sorted, count, sizeof *sorted, by_address);
    const int code = check_sorted(sorted, count);
    free(sorted);
    return code;
}

int nvlxi_relay_content_make(struct nvlxi_relay_content *content, const struct nvlx_relay_part *parts, size_t count) {
    struct nvlxi_relay_content made = {0};
    int code = check_parts(parts, count, &made.bytes);
    if (code)
        return code;
    made.parts = calloc(count, sizeof *made.parts);
    if (!made.parts)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for %zu parts", count);
    for (; made.part_count < count; made.part_count++) {
        struct nvlx_relay_part *part = &made.parts[made.part_count];
        *part = parts[made.part_count];
        part->name = strdup(parts[made.part_count].name);
        if (!part->name) {
            code = nvlxi_fail(NVLX_ENOMEM, "no memory for the name of a part");
            break;
        }
    }
    if (!code) {
        qsort(made.parts, count, sizeof *made.parts, by_name);
        code = check_names(made.parts, count);
    }
    if (code)
        nvlxi_relay_content_free(&made);
    else
        *content = made;
    return code;
}

/* A unit has at most a part of what is left, so that little is to be digested after the last piece. */
#define UNIT_LEAST (UINT64_C(64) << 20)
#define UNIT_MOST  (UINT64_C(512) << 20)
#define UNIT_PART  4

static size_t count_spans(const struct nvlxi_relay_content *content, uint64_t piece_bytes) {
    size_t count = 0;
    for (size_t i = 0; i < content->part_count; i++)
        count += nvlxi_ceil_div(content->parts[i].length, piece_bytes);
    return count;
}

/* The bytes that a unit may have when so many are left, with its own. */
static uint64_t unit_room(uint64_t left) {
    return nvlxi_min(nvlxi_max(left / UNIT_PART, UNIT_LEAST), UNIT_MOST);
}

struct cut {            /* how far the content is cut */
    uint64_t filled;    /* bytes of the last piece */
    uint64_t left;      /* not cut yet */
    uint64_t unit_room; /* bytes that the last unit may still get */
};

static void cut_part(struct nvlxi_relay_content *content, size_t part, uint64_t piece_bytes, struct cut *cut) {
    for (uint64_t offset = 0; offset < content->parts[part].length; offset += piece_bytes) {
        const uint64_t length = nvlxi_min(content->parts[part].length - offset, piece_bytes);
        const struct nvlxi_relay_unit *unit = content->unit_count ? &content->units[content->unit_count - 1] : NULL;
        if (!content->piece_count || cut->filled + length > piece_bytes) {
            content->first[content->piece_count++] = content->span_count;
            cut->filled = 0;
        }
        if (!unit || unit->part != part || length > cut->unit_room) {
            content->units[content->unit_count++] = (struct nvlxi_relay_unit){.part = (uint32_t)part, .offset = offset};
            cut->unit_room = unit_room(cut->left);
        }
        cut->filled += length;
        cut->left -= length;
        cut->unit_room -= nvlxi_min(length, cut->unit_room);
        content->units[content->unit_count - 1].length += length;
        content->spans[content->span_count++] = (struct nvlxi_relay_span){
            .part = (uint32_t)part, .offset = offset, .length = length, .unit = content->unit_count - 1};
    }
}

uint64_t nvlxi_relay_content_piece(const struct nvlxi_relay_content *content) {
    uint64_t piece = PIECE_LEAST;
    while (piece < PIECE_MOST && piece * piece / PIECE_SCALE < content->bytes)
        piece *= 2;
    return piece;
}

int nvlxi_relay_content_cut(struct nvlxi_relay_content *content, uint64_t piece_bytes) {
    struct cut cut = {.left = content->bytes};
    piece_bytes = nvlxi_min(piece_bytes, content->bytes); /* there is a byte; and no sum wraps around */
    const size_t spans = count_spans(content, piece_bytes);
    content->spans = calloc(spans + 1, sizeof *content->spans);
    content->units = calloc(spans + 1, sizeof *content->units);
    content->first = calloc(spans + 1, sizeof *content->first);
    if (!content->spans || !content->units || !content->first)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for %zu pieces", spans);
    for (size_t i = 0; i < content->part_count; i++)
        cut_part(content, i, piece_bytes, &cut);
    content->first[content->piece_count] = content->span_count;
    return 0;
}

void nvlxi_relay_content_free(struct nvlxi_relay_content *content) {
    for (size_t i = 0; i < content->part_count; i++)
        free((char *)(uintptr_t)content->parts[i].name);
    free(content->parts);
    free(content->spans);
    free(content->units);
    free(content->first);
    *content = (struct nvlxi_relay_content){0};
}
