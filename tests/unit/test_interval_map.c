/* The lookup table alone, against a search through all of its ranges. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/intervals/interval_map.h"
#include "support.h"

#define RANGES_MAX 300

static uint64_t state;

static uint64_t any(void) {
    const uint64_t high = next_random(&state);
    return high << 32 | next_random(&state);
}

static uint64_t below(uint64_t limit) {
    return any() % limit;
}

static struct nvlxi_range sorted[RANGES_MAX];
static size_t count;
static struct nvlxi_intervals table;

static int compare(const void *a, const void *b) {
    const struct nvlxi_range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static void put_range(uint64_t start, uint64_t length) {
    sorted[count++] = (struct nvlxi_range){
        .start = start, .end = start + length, .access = (uint8_t)(1 + below(3)), .since = below(20)};
}

static void build(void) {
    qsort(sorted, count, sizeof *sorted, compare);
    OK(nvlxi_intervals_build(sorted, count, &table));
}

/* What grants what at an address, by all ranges. */
static bool registered(uint64_t address, uint32_t *access, uint64_t *since) {
    bool found = false;
    *access = 0;
    *since = UINT64_MAX;
    for (size_t i = 0; i < count; i++) {
        if (address - sorted[i].start < sorted[i].end - sorted[i].start) {
            *access |= sorted[i].access;
            *since = sorted[i].since < *since ? sorted[i].since : *since;
            found = true;
        }
    }
    return found;
}

static void expect(uint64_t address) {
    uint32_t access, index = nvlxi_intervals_find(&table, address), first = 1;
    while (first <= table.count && table.piece[first].end <= address)
        first++;
    EQUAL(first <= table.count ? first : 0, index);
    const struct nvlxi_range *piece = &table.piece[index];
    uint64_t since;
    bool inside = registered(address, &access, &since);
    EXPECT(inside == (index && nvlxi_range_holds(piece, address, 1)));
    if (inside)
        EQUAL(access, piece->access);
    if (inside)
        EQUAL(since ? since : 1, nvlxi_intervals_born(&table, index));
    uint64_t where;
    bool known;
    if (inside && address) { /* a range that wraps around is in no table, wherever it begins */
        EXPECT(!nvlxi_intervals_cover(&table, index, address, UINT64_MAX, NVLX_ACCESS_NONE, &where, &known));
        EXPECT(where >= piece->end);
    }
}

/* Around every boundary, inside of every piece, and anywhere. */
static void expect_everywhere(void) {
    for (size_t i = 0; i < count; i++) {
        for (uint64_t step = 0; step < 5; step++) {
            expect(sorted[i].start - 2 + step);
            expect(sorted[i].end - 2 + step);
        }
        expect(sorted[i].start + below(sorted[i].end - sorted[i].start));
    }
    for (int i = 0; i < 100; i++)
        expect(any() >> below(64));
    expect(0);
    expect(UINT64_MAX);
    nvlxi_intervals_free(&table);
}

static void none_and_one(void) {
    count = 0;
    build();
    expect_everywhere();
    for (uint64_t shift = 0; shift < 64; shift++) {
        count = 0;
        put_range(UINT64_C(1) << shift, 1 + below(UINT64_C(1) << shift));
        build();
        expect_everywhere();
    }
    count = 0;
    put_range(0, UINT64_MAX);
    build();
    expect_everywhere();
}

/* Adjacent, apart, of all lengths, in clusters far from each other. */
static void that_do_not_overlap(void) {
    for (int round = 0; round < 300; round++) {
        uint64_t at = below(UINT64_C(1) << 40), unit = UINT64_C(1) << below(24);
        count = 0;
        for (size_t ranges = 1 + below(RANGES_MAX); ranges; ranges--) {
            uint64_t length = unit * (1 + below(8)) - (below(3) ? 0 : below(unit));
            put_range(at, length);
            at += length + (below(2) ? 0 : unit * below(9)) + (below(60) ? 0 : UINT64_C(1) << (20 + below(22)));
        }
        build();
        EQUAL(count, table.count);
        expect_everywhere();
    }
}

static void that_overlap(void) {
    for (int round = 0; round < 100; round++) {
        uint64_t run = UINT64_C(1) << (4 + below(40)), base = below(UINT64_C(1) << 46);
        count = 0;
        for (size_t ranges = 1 + below(60); ranges; ranges--)
            put_range(base + below(run), 1 + below(run) / (1 + below(20)));
        build();
        expect_everywhere();
    }
}

/* Where all begin at multiples of a power of two, as what is allocated does, the first slot that is asked names the
 * piece, and there are not many slots. */
static void aligned_ones_are_found_at_once(void) {
    for (uint64_t shift = 9; shift < 32; shift++) {
        const uint64_t unit = UINT64_C(1) << shift;
        uint64_t at = unit * below(1000);
        count = 0;
        for (size_t ranges = 0; ranges < RANGES_MAX; ranges++) {
            put_range(at, unit * below(10) + 1 + below(unit));
            at = (sorted[count - 1].end + unit - 1) / unit * unit + unit * below(3);
        }
        build();
        EXPECT(table.mask + 1 <= 16 * RANGES_MAX);
        for (uint32_t i = 1; i <= table.count; i++) {
            const struct nvlxi_range *piece = &table.piece[i];
            for (uint64_t address = piece->start; address < piece->end; address += 1 + below(unit))
                EQUAL(i * NVLXI_PIECE, table.slot[(address >> table.shift) & table.mask]);
        }
        expect_everywhere();
    }
}

static void versions_are_unique(void) {
    struct nvlxi_intervals other;
    count = 0;
    put_range(1000, 1000);
    build();
    OK(nvlxi_intervals_build(sorted, count, &other));
    EXPECT(table.version && other.version && table.version != other.version);
    nvlxi_intervals_free(&other);
    nvlxi_intervals_free(&table);
}

/* ---- Tables that change -------------------------------------------------------------------------------- */

#define UNITS   600 /* addresses of a small world, in which all may be compared */
#define SEGMENT 100 /* of them; between the last three there is no border */
#define LIVE    40  /* ranges at most */
#define CHANGES 100000

static struct nvlxi_range live[LIVE];
static size_t live_count;
static uint32_t over[UNITS + 1], access_of[UNITS + 1]; /* the ranges over an address, and what they grant */
static bool border[UNITS + 1];                         /* whether one starts or ends there */

static void make_model(void) {
    for (size_t i = 0; i <= UNITS; i++)
        over[i] = access_of[i] = border[i] = 0;
    for (size_t i = 0; i < live_count; i++) {
        border[live[i].start] = border[live[i].end] = true;
        for (uint64_t at = live[i].start; at < live[i].end; at++) {
            over[at]++;
            access_of[at] |= live[i].access;
        }
    }
}

static bool no_copy_into(uint64_t at) {
    return at % SEGMENT == 0 && at / SEGMENT <= 3;
}

static bool goes_on(uint64_t at) {
    return at && over[at] && over[at - 1] && !no_copy_into(at);
}

/* Pieces begin where ranges begin or end, and nowhere else, and know what lies over them. */
static void expect_pieces(void) {
    uint32_t pieces = 0, id = 0;
    for (uint64_t at = 0; at < UNITS; at++) {
        if (!over[at] || (at && over[at - 1] && !border[at]))
            continue;
        id = nvlxi_intervals_next(&table, id);
        pieces++;
        const struct nvlxi_range *piece = &table.piece[id];
        EXPECT(id && piece->start == at && piece->last == piece->end - piece->start - 1);
        EQUAL(access_of[at], piece->access);
        EQUAL(goes_on(at), piece->joined);
        EQUAL(at && over[at - 1] && no_copy_into(at), nvlxi_intervals_border(&table, id));
        EQUAL(at / SEGMENT >= 3, piece->place);
        EXPECT(piece->owner <= at / SEGMENT + 1);
        EXPECT(!at || !over[at - 1] || goes_on(at) || piece->owner == at / SEGMENT + 1);
    }
    EQUAL(0, nvlxi_intervals_next(&table, id));
    EQUAL(pieces, table.count);
}

static void expect_lookups(void) {
    uint64_t next = UNITS;
    for (uint64_t at = UNITS; at-- > 0;) {
        next = over[at] ? at : next;
        const uint32_t id = nvlxi_intervals_find(&table, at);
        EXPECT(next == UNITS ? !id : nvlxi_range_holds(&table.piece[id], next, 1));
        EQUAL(id, nvlxi_intervals_search(&table, at));
    }
}

static void expect_cover(void) {
    const uint64_t start = below(UNITS), length = 1 + below(UNITS - start);
    const uint32_t access = (uint32_t)below(4);
    uint64_t where, stop = start;
    bool registered;
    const uint32_t first = nvlxi_intervals_find(&table, start);
    while (stop < start + length && over[stop] && (access_of[stop] & access) == access)
        stop++;
    bool covered = nvlxi_intervals_cover(&table, first, start, length, access, &where, &registered);
    EQUAL(stop == start + length, covered);
    if (!covered) {
        EQUAL(stop, where);
        EQUAL(over[stop] != 0, registered);
        return;
    }
    for (stop = start + 1; stop < start + length && goes_on(stop);)
        stop++;
    EQUAL(stop, nvlxi_intervals_reach(&table, first, start + length));
}

static struct nvlxi_range any_range(void) {
    const uint64_t segment = below(UNITS / SEGMENT), base = segment * SEGMENT;
    const uint64_t room = segment >= 3 ? UNITS - base : SEGMENT;
    uint64_t start = base + below(SEGMENT), length = 1 + below(below(3) ? 20 : room);
    if (!below(4))
        start = base;
    length = nvlxi_min(length, base + room - start);
    return (struct nvlxi_range){.start = start,
                                .end = start + length,
                                .owner = (uint32_t)segment + 1,
                                .access = (uint8_t)below(4),
                                .place = segment >= 3};
}

static void insert(const struct nvlxi_range *range) {
    OK(nvlxi_intervals_reserve(&table, range->start, range->end, 1));
    const uint32_t id = nvlxi_intervals_insert(&table, range, no_copy_into(range->start));
    EQUAL(range->start, table.piece[id].start);
    nvlxi_intervals_tidy(&table);
}

static void renew(void) {
    if (nvlxi_intervals_worn(&table))
        free(nvlxi_intervals_swap_slots(&table, nvlxi_intervals_new_slots(&table)));
    EXPECT(!nvlxi_intervals_worn(&table));
}

/* Builds the table at once, to be changed from then on. */
static void build_again(void) {
    nvlxi_intervals_free(&table);
    for (count = 0; count < live_count; count++) {
        sorted[count] = live[count];
        sorted[count].owner = (uint32_t)nvlxi_min(live[count].owner, 4);
        sorted[count].joined = !no_copy_into(live[count].start);
        sorted[count].since = 1 + below(20);
    }
    build();
}

/* As many as are allowed, then fewer, and so on. */
static void changes_in_a_small_world(void) {
    OK(nvlxi_intervals_init(&table));
    live_count = 0;
    for (int change = 0; change < CHANGES; change++) {
        const bool more = live_count < LIVE && (change / 200 % 2 ? !below(3) : below(3));
        if (more || !live_count) {
            live[live_count] = any_range();
            insert(&live[live_count++]);
        } else {
            const size_t which = below(live_count);
            nvlxi_intervals_remove(&table, &live[which]);
            live[which] = live[--live_count];
        }
        renew();
        if (change % 100 == 50)
            build_again();
        make_model();
        expect_pieces();
        if (change % 8 == 0)
            expect_lookups();
        expect_cover();
    }
    while (live_count)
        nvlxi_intervals_remove(&table, &live[--live_count]);
    EQUAL(0, table.count);
    EQUAL(0, table.taken);
    nvlxi_intervals_free(&table);
}

#define MANY 50000

/* So many that the order has many leaves: in any order, with gaps, next to each other, over each other. */
static void changes_of_many(void) {
    uint32_t *order = malloc(MANY * sizeof *order);
    EXPECT(order != NULL);
    for (uint32_t i = 0; i < MANY; i++)
        order[i] = i;
    for (uint64_t unit = 1; unit <= 4096; unit *= 64) {
        struct nvlxi_range all = {.start = 7, .end = 8 + MANY * unit * 2};
        OK(nvlxi_intervals_init(&table));
        for (uint32_t i = 0; i < MANY; i++) {
            const uint64_t other = below(MANY);
            const uint32_t swapped = order[i];
            order[i] = order[other];
            order[other] = swapped;
        }
        for (int round = 0; round < 2; round++) {
            for (uint32_t i = 0; i < MANY; i++) {
                const struct nvlxi_range range = {.start = 8 + order[i] * unit * 2,
                                                  .end = 8 + (order[i] * 2 + 1) * unit};
                if (round == 0)
                    insert(&range);
                else
                    nvlxi_intervals_remove(&table, &range);
                renew();
                if (i == MANY / 2)
                    insert(&all);
                if (i == MANY / 2 + MANY / 4)
                    nvlxi_intervals_remove(&table, &all);
            }
            EQUAL(round == 0 ? MANY : 0, table.count);
            uint32_t id = 0;
            for (uint32_t i = 0; i < table.count; i++) {
                id = nvlxi_intervals_next(&table, id);
                EQUAL(8 + i * unit * 2, table.piece[id].start);
                EQUAL(8 + (i * 2 + 1) * unit, table.piece[id].end);
                EQUAL(id, nvlxi_intervals_find(&table, table.piece[id].end - 1));
                EQUAL(id, nvlxi_intervals_find(&table, table.piece[id].start - 1));
            }
        }
        nvlxi_intervals_free(&table);
    }
    free(order);
}

/* What is known of a piece is known by its birth: no two have the same one, though they may have the same id. */
static void births_are_unique(void) {
    const struct nvlxi_range range = {.start = 1000, .end = 2000};
    uint64_t born = 0;
    OK(nvlxi_intervals_init(&table));
    for (int i = 0; i < 10; i++) {
        insert(&range);
        EQUAL(1, nvlxi_intervals_find(&table, 1500));
        EXPECT(nvlxi_intervals_born(&table, 1) > born);
        born = nvlxi_intervals_born(&table, 1);
        nvlxi_intervals_remove(&table, &range);
    }
    nvlxi_intervals_free(&table);
}

static struct nvlxi_range place(uint64_t i, uint64_t unit) {
    return (struct nvlxi_range){.start = i * unit, .end = i * unit + unit / 2};
}

/* Where slots do not fit the pieces any more, searches tell: then others are made that fit. */
static void slots_wear_out(void) {
    enum { PIECES = 64 };
    struct nvlxi_range range;
    long searches = 0;
    OK(nvlxi_intervals_init(&table));
    for (uint64_t i = 0; i < PIECES; i++) {
        range = place(i, UINT64_C(1) << 30);
        insert(&range);
        renew();
    }
    for (uint64_t i = 0; i < PIECES; i++) {
        range = place(i, UINT64_C(1) << 30);
        nvlxi_intervals_remove(&table, &range);
        range = place(i, 16);
        insert(&range); /* all of them in one slot */
    }
    EXPECT(!nvlxi_intervals_worn(&table));
    for (; !nvlxi_intervals_worn(&table); searches++)
        EXPECT(searches < 100000 && nvlxi_intervals_find(&table, 16 * below(PIECES)));
    EXPECT(searches > PIECES);
    renew();
    for (searches = 0; searches < 100000; searches++)
        EXPECT(nvlxi_intervals_find(&table, 16 * below(PIECES)));
    EXPECT(!nvlxi_intervals_worn(&table));
    nvlxi_intervals_free(&table);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"none_and_one", none_and_one},
                                        {"that_do_not_overlap", that_do_not_overlap},
                                        {"that_overlap", that_overlap},
                                        {"aligned_ones_are_found_at_once", aligned_ones_are_found_at_once},
                                        {"versions_are_unique", versions_are_unique},
                                        {"changes_in_a_small_world", changes_in_a_small_world},
                                        {"changes_of_many", changes_of_many},
                                        {"births_are_unique", births_are_unique},
                                        {"slots_wear_out", slots_wear_out},
                                        {0}};
    static const struct role roles[] = {{0}};
    state = 7;
    return run_tests(argc, argv, tests, roles, 20);
}
