/* What must hold of every descriptor that was decoded, for the test and the fuzzer. SPDX-License-Identifier: Apache-2.0
 */
#ifndef DESCRIPTOR_CHECK_H
#define DESCRIPTOR_CHECK_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base.h"
#include "descriptor.h"
#include "name.h"
#include "nvlxfer.h"

/* All functions return NULL, or what is wrong. */

static inline const char *compare_descriptors(const struct nvlxi_descriptor *a, const struct nvlxi_descriptor *b) {
    if (strcmp(a->backend, b->backend) != 0)
        return "another backend";
    const struct nvlxi_identity *one = &a->identity, *other = &b->identity;
    if (strcmp(one->boot_id, other->boot_id) || strcmp(one->engine, other->engine) || one->pid != other->pid ||
        one->pid_namespace != other->pid_namespace || one->start_time != other->start_time ||
        one->generation != other->generation)
        return "another identity";
    if (a->segment_count != b->segment_count || a->region_count != b->region_count)
        return "another number of segments or regions";
    for (size_t i = 0; i < a->segment_count; i++) {
        const struct nvlxi_segment_record *x = &a->segments[i], *y = &b->segments[i];
        if (x->kind != y->kind || strcmp(x->kind_name, y->kind_name) != 0 ||
            memcmp(x->device, y->device, sizeof x->device) != 0 || x->serial != y->serial || x->base != y->base ||
            x->size != y->size || x->handle.length != y->handle.length ||
            memcmp(x->handle.bytes, y->handle.bytes, x->handle.length) != 0)
            return "another segment";
    }
    for (size_t i = 0; i < a->region_count; i++) {
        const struct nvlxi_region_record *x = &a->regions[i], *y = &b->regions[i];
        if (strcmp(x->name, y->name) != 0 || x->segment != y->segment || x->access != y->access ||
            x->address != y->address || x->length != y->length)
            return "another region";
    }
    return NULL;
}

static inline const char *check_region(const struct nvlxi_descriptor *d, size_t index) {
    const struct nvlxi_region_record *region = &d->regions[index];
    if (region->name[0] && !nvlxi_name_valid(region->name))
        return "an invalid name";
    for (size_t i = 0; i < index && region->name[0]; i++)
        if (strcmp(d->regions[i].name, region->name) == 0)
            return "a name twice";
    if (region->access > NVLX_ACCESS_READ_WRITE)
        return "an access that is none";
    if (region->segment == NVLXI_NO_SEGMENT)
        return region->length || region->address ? "bytes outside segments" : NULL;
    if (region->segment >= d->segment_count)
        return "a segment that is none";
    const struct nvlxi_segment_record *segment = &d->segments[region->segment];
    if (region->length == 0 || region->address < segment->base || region->length > segment->size ||
        region->address - segment->base > segment->size - region->length)
        return "a region outside its segment";
    return NULL;
}

/* What the header promises, checked the slow way: for small descriptors. */
static inline const char *check_sound(const struct nvlxi_descriptor *d) {
    for (size_t i = 0; i < d->segment_count; i++) {
        const struct nvlxi_segment_record *a = &d->segments[i];
        uint64_t end;
        if (a->size == 0 || !nvlxi_add(a->base, a->size, &end))
            return "a segment that is empty or wraps";
        if ((a->kind == NVLXI_KIND_UNKNOWN) != (a->handle.length == 0) || a->handle.length > NVLXI_HANDLE_BYTES)
            return "a handle of a wrong length";
        for (size_t j = 0; j < i; j++)
            if (a->base < d->segments[j].base + d->segments[j].size && d->segments[j].base < end)
                return "segments that overlap";
    }
    for (size_t i = 0; i < d->region_count; i++) {
        const char *wrong = check_region(d, i);
        if (wrong)
            return wrong;
    }
    return NULL;
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

#endif
