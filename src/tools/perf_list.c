/* nvlx_perf: lists of fragments, and what memory must hold after they were moved. SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "perf.h"

#define GAP       UINT64_C(4096)
#define SLOTS_MAX (UINT64_C(1) << 22) /* that are shuffled; with more, those in between stay empty */

struct perf_layout perf_layout_of(uint64_t arena, uint64_t regions) {
    if (regions == 1)
        return (struct perf_layout){1, arena, arena};
    const uint64_t step = arena / regions / GAP * GAP;
    if (step < 2 * GAP)
        perf_die("--regions: %s of memory is too little for %llu of them", perf_size_text(arena).text,
                 (unsigned long long)regions);
    return (struct perf_layout){regions, step, step - GAP};
}

/* ---- Slots: places of the same length, numbered through all areas ---------------------------------------- */

struct slots {
    uint64_t first, areas, step; /* areas: regions, or half of one */
    uint64_t each, stride;       /* slots an area; from one to the next */
    uint64_t count;
};

static uint64_t slot_offset(const struct slots *slots, uint64_t slot) {
    return slots->first + slot / slots->each * slots->step + slot % slots->each * slots->stride;
}

static struct slots slots_of(const struct perf_list_spec *spec, uint64_t length) {
    const struct perf_layout layout = perf_layout_of(spec->arena, spec->regions);
    struct slots slots = {.areas = layout.count, .step = layout.step, .stride = length};
    uint64_t size = layout.size;
    if (spec->half && layout.count == 1) {
        size = size / 2 / GAP * GAP;
        slots.first = spec->half == 2 ? size : 0;
    } else if (spec->half) {
        slots.areas = layout.count / 2;
        slots.first = spec->half == 2 ? slots.areas * layout.step : 0;
    }
    slots.each = size / length;
    const uint64_t most = SLOTS_MAX / slots.areas;
    if (spec->pattern != PERF_CONTIGUOUS && spec->count <= SLOTS_MAX && slots.each > most) {
        slots.each = most;
        slots.stride = size / most / length * length;
    }
    slots.count = slots.each * slots.areas;
    if (!slots.count)
        perf_die("--fragment: one of %s does not fit into the %s that there are for it%s", perf_size_text(length).text,
                 perf_size_text(size).text, spec->pattern == PERF_MIXED ? " (mixed: up to twice the size)" : "");
    return slots;
}

/* The first `count` of a random order of [0, slots). */
static uint32_t *draw(uint64_t slots, size_t count, uint64_t *random) {
    uint32_t *order = perf_alloc(slots, sizeof *order);
    for (uint64_t i = 0; i < slots; i++)
        order[i] = (uint32_t)i;
    for (size_t i = 0; i < count && i < slots; i++) {
        const uint64_t other = i + perf_random(random) % (slots - i);
        const uint32_t kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    return order;
}

/* ---- Lists ----------------------------------------------------------------------------------------------- */

static uint64_t length_of(const struct perf_list_spec *spec, uint64_t *random) {
    if (spec->pattern != PERF_MIXED)
        return spec->fragment;
    const uint64_t length = (spec->fragment * 2) >> (perf_random(random) % 4);
    return length ? length : 1;
}

static void place(struct perf_list *list, size_t most, const struct slots *slots, uint64_t *random) {
    const struct perf_list_spec *spec = &list->spec;
    const bool ordered = spec->pattern == PERF_CONTIGUOUS;
    uint32_t *local = ordered ? NULL : draw(slots->count, most, random);
    uint32_t *remote = ordered ? NULL : draw(slots->count, most, random);
    for (size_t i = 0; i < most; i++) {
        const uint64_t length = length_of(spec, random);
        if (i && list->bytes + length > spec->bytes)
            break;
        const uint64_t here = slot_offset(slots, ordered ? i : local[i]);
        const uint64_t there = slot_offset(slots, ordered ? i : remote[i]);
        list->fragments[list->count++] = (struct perf_fragment){here, there, length};
        list->aligned = list->aligned && (here | there | length) % 16 == 0;
        list->bytes += length;
    }
    free(local);
    free(remote);
}

void perf_list_make(struct perf_list *list, const struct perf_list_spec *spec) {
    const struct slots slots = slots_of(spec, spec->pattern == PERF_MIXED ? 2 * spec->fragment : spec->fragment);
    uint64_t random = spec->seed, count = spec->count;
    const uint64_t least = spec->pattern == PERF_MIXED && spec->fragment >= 4 ? spec->fragment / 4 : spec->fragment;
    if (count > slots.count)
        count = slots.count;
    if (count > spec->bytes / least)
        count = spec->bytes / least ? spec->bytes / least : 1;
    *list = (struct perf_list){.spec = *spec, .fragments = perf_alloc(count, sizeof *list->fragments), .aligned = true};
    place(list, count, &slots, &random);
}

void perf_list_free(struct perf_list *list) {
    free(list->fragments);
    *list = (struct perf_list){0};
}

/* ---- What memory holds ------------------------------------------------------------------------------------ */

#define PIECE_MAX (UINT64_C(1) << 18) /* a unit of work for who checks */

static int by_place(const void *left, const void *right) {
    const struct perf_piece *a = left, *b = right;
    return a->at < b->at ? -1 : a->at > b->at;
}

/* The lists' fragments that end in the memory of one process, in the order of their places. */
static struct perf_piece *arrivals(const struct perf_list *lists, size_t list_count, bool owner, uint64_t seed,
                                   size_t *count) {
    size_t most = 0;
    for (size_t i = 0; i < list_count; i++)
        most += lists[i].count;
    struct perf_piece *pieces = perf_alloc(most, sizeof *pieces);
    *count = 0;
    for (size_t i = 0; i < list_count; i++) {
        const bool swap = lists[i].spec.swap, to_owner = (lists[i].spec.opcode == NVLX_OP_WRITE) != swap;
        for (size_t j = 0; to_owner == owner && j < lists[i].count; j++) {
            const struct perf_fragment *fragment = &lists[i].fragments[j];
            pieces[(*count)++] = owner ? (struct perf_piece){fragment->remote, fragment->length, seed, fragment->local}
                                       : (struct perf_piece){fragment->local, fragment->length, seed, fragment->remote};
        }
    }
    qsort(pieces, *count, sizeof *pieces, by_place);
    return pieces;
}

/* Appends a piece, cut. */
static void append(struct perf_content *content, struct perf_piece piece) {
    while (piece.length) {
        struct perf_piece cut = piece;
        if (cut.length > PIECE_MAX)
            cut.length = PIECE_MAX;
        content->pieces[content->count++] = cut;
        piece.at += cut.length;
        piece.from += cut.length;
        piece.length -= cut.length;
    }
}

void perf_content_make(struct perf_content *content, const struct perf_list *lists, size_t list_count, bool owner,
                       uint64_t size, const uint64_t seeds[2]) {
    size_t count;
    struct perf_piece *arrived = arrivals(lists, list_count, owner, seeds[!owner], &count);
    uint64_t at = 0;
    *content = (struct perf_content){.pieces = perf_alloc(2 * count + 1 + size / PIECE_MAX, sizeof *arrived)};
    for (size_t i = 0; i < count; i++) {
        if (arrived[i].at < at || arrived[i].at + arrived[i].length > size)
            perf_die("a list's destinations overlap, or leave the memory: a mistake in nvlx_perf");
        append(content, (struct perf_piece){at, arrived[i].at - at, seeds[owner], at});
        append(content, arrived[i]);
        at = arrived[i].at + arrived[i].length;
    }
    append(content, (struct perf_piece){at, size - at, seeds[owner], at});
    free(arrived);
}

void perf_content_free(struct perf_content *content) {
    free(content->pieces);
    *content = (struct perf_content){0};
}

void perf_fill(void *bytes, uint64_t seed, uint64_t offset, size_t length) {
    unsigned char *to = bytes;
    for (size_t done = 0, part; done < length; done += part) {
        const uint64_t at = offset + done, word = perf_word(seed, at / 8);
        const size_t into = at % 8;
        part = length - done < 8 - into ? length - done : 8 - into;
        memcpy(to + done, (const unsigned char *)&word + into, part);
    }
}

void perf_content_check(const struct perf_content *content, const char *memory, struct perf_wrong *wrong) {
    char *expected = perf_alloc(PIECE_MAX, 1);
    *wrong = (struct perf_wrong){0};
    for (size_t i = 0; i < content->count; i++) {
        const struct perf_piece *piece = &content->pieces[i];
        perf_fill(expected, piece->seed, piece->from, piece->length);
        if (!memcmp(expected, memory + piece->at, piece->length))
            continue;
        for (uint64_t j = 0; j < piece->length; j++)
            if (expected[j] != memory[piece->at + j] && !wrong->count++)
                wrong->first = piece->at + j;
    }
    free(expected);
}
