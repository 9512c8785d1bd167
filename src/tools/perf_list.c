/* nvlx_perf: lists of fragments. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

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

static uint64_t next_random(uint64_t *state) { /* splitmix64 */
    uint64_t x = *state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The first `count` of a random order of [0, slots). */
static uint32_t *draw(uint64_t slots, size_t count, uint64_t *random) {
    uint32_t *order = perf_alloc(slots, sizeof *order);
    for (uint64_t i = 0; i < slots; i++)
        order[i] = (uint32_t)i;
    for (size_t i = 0; i < count && i < slots; i++) {
        const uint64_t other = i + next_random(random) % (slots - i);
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
    const uint64_t length = (spec->fragment * 2) >> (next_random(random) % 4);
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

/* One every pitch on both sides; of half of the memory, in it. */
static void make_rows(struct perf_list *list, const struct perf_list_spec *spec) {
    const uint64_t size = spec->half ? spec->arena / 2 / GAP * GAP : spec->arena, begin = spec->half == 2 ? size : 0;
    uint64_t count = spec->fragment <= size ? (size - spec->fragment) / spec->pitch + 1 : 0;
    count = count < spec->count ? count : spec->count;
    count = count < spec->bytes / spec->fragment ? count : spec->bytes / spec->fragment;
    if (!count)
        perf_die("--shape: a row of %s does not fit into --bytes and the memory", perf_size_text(spec->fragment).text);
    *list = (struct perf_list){.spec = *spec,
                               .fragments = perf_alloc(count, sizeof *list->fragments),
                               .count = count,
                               .bytes = count * spec->fragment,
                               .aligned = (spec->pitch | spec->fragment) % 16 == 0};
    for (uint64_t i = 0; i < count; i++)
        list->fragments[i] = (struct perf_fragment){begin + i * spec->pitch, begin + i * spec->pitch, spec->fragment};
}

static struct perf_fragment block_at(const struct perf_list *list, size_t index, uint64_t layer) {
    const struct perf_list_spec *spec = &list->spec;
    const uint64_t begin = list->first + layer * list->blocks * spec->fragment;
    return (struct perf_fragment){begin + list->ids[0][index] * spec->fragment,
                                  begin + list->ids[1][index] * spec->fragment, spec->fragment};
}

/* Blocks at random, each in all layers. */
static void make_blocks(struct perf_list *list, const struct perf_list_spec *spec) {
    const uint64_t size = spec->half ? spec->arena / 2 / GAP * GAP : spec->arena, each = spec->fragment * spec->layers;
    const uint64_t blocks = size / each < SLOTS_MAX ? size / each : SLOTS_MAX;
    uint64_t random = spec->seed, count = blocks < spec->bytes / each ? blocks : spec->bytes / each;
    count = count < spec->count / spec->layers ? count : spec->count / spec->layers;
    if (!count)
        perf_die("--shape: a block of %llu layers does not fit into --count, --bytes and the memory",
                 (unsigned long long)spec->layers);
    *list = (struct perf_list){.spec = *spec,
                               .fragments = perf_alloc(count * spec->layers, sizeof *list->fragments),
                               .count = count * spec->layers,
                               .bytes = count * each,
                               .aligned = spec->fragment % 16 == 0,
                               .ids = {draw(blocks, count, &random), draw(blocks, count, &random)},
                               .id_count = count,
                               .first = spec->half == 2 ? size : 0,
                               .blocks = blocks};
    for (size_t i = 0; i < list->count; i++)
        list->fragments[i] = block_at(list, i / spec->layers, i % spec->layers);
}

void perf_list_make(struct perf_list *list, const struct perf_list_spec *spec) {
    if (spec->pattern == PERF_IN_BLOCKS) {
        make_blocks(list, spec);
        return;
    }
    if (spec->pattern == PERF_IN_ROWS) {
        make_rows(list, spec);
        return;
    }
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
    free(list->ids[0]);
    free(list->ids[1]);
    *list = (struct perf_list){0};
}
