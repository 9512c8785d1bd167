/* What must hold of every descriptor that was decoded, for the test and the fuzzer. SPDX-License-Identifier: Apache-2.0
 */
#ifndef DESCRIPTOR_CHECK_H
#define DESCRIPTOR_CHECK_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/base.h"
#include "base/utf8.h"
#include "descriptor/merge.h"
#include "nvlxfer.h"

static inline bool same_identity(const struct nvlxi_identity *a, const struct nvlxi_identity *b) {
    return strcmp(a->boot_id, b->boot_id) == 0 && a->pid == b->pid && a->pid_namespace == b->pid_namespace &&
           a->start_time == b->start_time && strcmp(a->engine, b->engine) == 0 && a->generation == b->generation;
}

/* All functions from here on return NULL, or what is wrong. */

static inline const char *compare_descriptors(const struct nvlxi_descriptor *a, const struct nvlxi_descriptor *b) {
    if (strcmp(a->backend, b->backend) != 0)
        return "another backend";
    const struct nvlxi_identity *one = &a->identity, *other = &b->identity;
    if (strcmp(one->boot_id, other->boot_id) || strcmp(one->engine, other->engine) || one->pid != other->pid ||
        one->pid_namespace != other->pid_namespace || one->start_time != other->start_time ||
        one->generation != other->generation)
        return "another identity";
    if (strcmp(a->address, b->address) != 0)
        return "another address";
    if (a->from != b->from || a->removed_count != b->removed_count ||
        (a->removed_count && memcmp(a->removed, b->removed, a->removed_count * sizeof *a->removed)))
        return "other changes";
    if (a->segment_count != b->segment_count || a->region_count != b->region_count ||
        a->suspended_count != b->suspended_count)
        return "another number of segments or regions";
    for (size_t i = 0; i < a->segment_count; i++) {
        const struct nvlxi_segment_record *x = &a->segments[i], *y = &b->segments[i];
        if (x->kind != y->kind || strcmp(x->kind_name, y->kind_name) != 0 ||
            memcmp(x->device, y->device, sizeof x->device) != 0 || x->serial != y->serial || x->base != y->base ||
            x->size != y->size || x->file != y->file || x->joins != y->joins || x->handle.length != y->handle.length ||
            memcmp(x->handle.bytes, y->handle.bytes, x->handle.length) != 0)
            return "another segment";
    }
    for (size_t i = 0; i < a->region_count; i++) {
        const struct nvlxi_region_record *x = &a->regions[i], *y = &b->regions[i];
        if (strcmp(x->name, y->name) != 0 || x->segment != y->segment || x->access != y->access ||
            x->address != y->address || x->length != y->length || x->segment_count != y->segment_count ||
            x->since != y->since || x->has_digest != y->has_digest || x->digest != y->digest ||
            x->suspended != y->suspended)
            return "another region";
    }
    return NULL;
}

/* A region with a length begins in its first segment, ends in the last that it lies in, and has no gap between. */
static inline const char *check_segments(const struct nvlxi_descriptor *d, const struct nvlxi_region_record *region) {
    if (region->segment >= d->segment_count || region->segment_count == 0 ||
        region->segment_count > d->segment_count - region->segment)
        return "a segment that is none";
    const struct nvlxi_segment_record *first = &d->segments[region->segment], *last = first + region->segment_count - 1;
    for (const struct nvlxi_segment_record *a = first, *b = first + 1; b <= last; a++, b++)
        if (!a->joins || !b->joins || a->kind != b->kind || memcmp(a->device, b->device, sizeof a->device) != 0 ||
            a->base + a->size != b->base)
            return "a region over segments that do not join";
    if (region->length == 0 || region->address + region->length < region->address)
        return "a region that is empty or wraps";
    if (region->address < first->base || region->address - first->base >= first->size)
        return "a region that does not begin in its segment";
    if (region->address + region->length <= last->base || region->address + region->length > last->base + last->size)
        return "a region that does not end in the last segment that it lies in";
    return NULL;
}

static inline const char *check_region(const struct nvlxi_descriptor *d, size_t index) {
    const struct nvlxi_region_record *region = &d->regions[index];
    if (region->name[0] && !nvlxi_utf8_is_name(region->name))
        return "an invalid name";
    for (size_t i = 0; i < index && region->name[0]; i++)
        if (strcmp(d->regions[i].name, region->name) == 0)
            return "a name twice";
    if (region->access > NVLX_ACCESS_READ_WRITE)
        return "an access that is none";
    if (region->suspended != (index >= d->region_count - d->suspended_count))
        return "a region that sleeps among others, or is awake among those that sleep";
    if (region->suspended)
        return region->segment != NVLXI_NO_SEGMENT || region->segment_count ||
                       region->address + region->length < region->address
                   ? "a region that sleeps, and has segments or wraps"
                   : NULL;
    if (region->segment == NVLXI_NO_SEGMENT)
        return region->length || region->address || region->segment_count ? "bytes outside segments" : NULL;
    return check_segments(d, region);
}

static inline const char *check_kind(const struct nvlxi_segment_record *segment) {
    const uint32_t kind = segment->kind;
    const bool by_file = kind == NVLXI_KIND_VMM || kind == NVLXI_KIND_HOST; /* which is all that it takes */
    if (segment->handle.length > NVLXI_HANDLE_BYTES)
        return "a handle of a wrong length";
    if (segment->joins != (by_file || kind == NVLXI_KIND_FABRIC))
        return "a segment that joins, or does not, unlike its kind";
    if (segment->file != (by_file || kind == NVLXI_KIND_POOL))
        return "a segment with a file, or without, unlike its kind";
    if (!by_file && (segment->handle.length != 0) != (kind != NVLXI_KIND_UNKNOWN))
        return "a segment with a handle, or without, unlike its kind";
    return NULL;
}

static inline const char *check_address(const char *address) {
    return address[0] && !nvlxi_address_bytes_valid(address, strlen(address)) ? "an address that is not valid" : NULL;
}

/* What the header promises, checked the slow way: for small descriptors. */
static inline const char *check_sound(const struct nvlxi_descriptor *d) {
    for (size_t i = 0; i < d->segment_count; i++) {
        const struct nvlxi_segment_record *a = &d->segments[i];
        uint64_t end;
        if (a->size == 0 || !nvlxi_add(a->base, a->size, &end))
            return "a segment that is empty or wraps";
        const char *wrong = check_kind(a);
        if (wrong)
            return wrong;
        for (size_t j = 0; j < i; j++)
            if (a->base < d->segments[j].base + d->segments[j].size && d->segments[j].base < end)
                return "segments that overlap";
    }
    for (size_t i = 0; i < d->region_count; i++) {
        const char *wrong = check_region(d, i);
        if (wrong)
            return wrong;
    }
    if (d->from ? d->from >= d->identity.generation : d->removed_count)
        return "changes from no generation, or from a later one";
    return check_address(d->address);
}

/* Decodes a text; if that succeeds, what comes back must be sound, and the same after encoding and decoding. */
static inline const char *check_text(const char *text, size_t length) {
    struct nvlxi_descriptor *first = NULL, *second = NULL;
    char *again = NULL;
    size_t again_length;
    const char *wrong = NULL;
    if (nvlxi_descriptor_decode(text, length, &first))
        return first ? "an output in spite of the failure" : NULL;
    wrong = check_sound(first);
    if (!wrong && nvlxi_descriptor_encode(first, &again, &again_length))
        wrong = "it cannot be encoded";
    if (!wrong && nvlxi_descriptor_decode(again, again_length, &second))
        wrong = "its encoding cannot be decoded";
    if (!wrong)
        wrong = compare_descriptors(first, second);
    nvlxi_descriptor_free(second);
    free(again);
    nvlxi_descriptor_free(first);
    return wrong;
}

/* What changes make of what is known, if they fit to it, must be sound, and survive as any other. */
static inline const char *check_merge(const struct nvlxi_descriptor *known, const struct nvlxi_descriptor *changes) {
    struct nvlxi_descriptor *made = NULL;
    char *text = NULL;
    size_t length;
    if (known->from || !changes->from || changes->from > known->identity.generation ||
        changes->identity.generation <= known->identity.generation || nvlxi_descriptor_merge(known, changes, &made))
        return NULL;
    const char *wrong = made->from || made->removed_count ? "what is made is changes" : check_sound(made);
    if (!wrong && nvlxi_descriptor_encode(made, &text, &length))
        wrong = "what is made cannot be encoded";
    if (!wrong)
        wrong = check_text(text, length);
    free(text);
    nvlxi_descriptor_free(made);
    return wrong;
}

/* Two texts with a NUL between, which no text has: what is known, and changes. */
static inline const char *check_texts(const char *text, size_t length) {
    struct nvlxi_descriptor *known = NULL, *changes = NULL;
    const char *end = memchr(text, 0, length), *wrong = NULL;
    if (!end)
        return check_text(text, length);
    const size_t first = (size_t)(end - text);
    if (!nvlxi_descriptor_decode(text, first, &known) &&
        !nvlxi_descriptor_decode(end + 1, length - first - 1, &changes))
        wrong = check_merge(known, changes);
    nvlxi_descriptor_free(known);
    nvlxi_descriptor_free(changes);
    return wrong;
}

#endif
