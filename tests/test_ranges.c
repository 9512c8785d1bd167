/* The lookup table alone, against a search through all of its pieces. SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "ranges.h"
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
static struct nvlxi_ranges table;

static int compare(const void *a, const void *b) {
    const struct nvlxi_range *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static void put_range(uint64_t start, uint64_t length) {
    sorted[count++] = (struct nvlxi_range){.start = start, .end = start + length, .access = 1 + (uint16_t)below(3)};
}

static void build(void) {
    qsort(sorted, count, sizeof *sorted, compare);
    OK(nvlxi_ranges_build(sorted, count, &table));
}

/* What grants what at an address, by all ranges. */
static bool registered(uint64_t address, uint32_t *access) {
    bool found = false;
    *access = 0;
    for (size_t i = 0; i < count; i++) {
        if (address - sorted[i].start < sorted[i].end - sorted[i].start) {
            *access |= sorted[i].access;
            found = true;
        }
    }
    return found;
}

static void expect(uint64_t address) {
    uint32_t access, index = nvlxi_ranges_find(&table, address), first = 0;
    while (first < table.count && table.piece[first].end <= address)
        first++;
    EQUAL(first, index);
    const struct nvlxi_range *piece = &table.piece[index];
    bool inside = registered(address, &access);
    EXPECT(inside == (index < table.count && nvlxi_range_holds(piece, address, 1)));
    if (inside)
        EQUAL(access, piece->access);
    uint64_t where;
    bool known;
    if (index < table.count && inside && address) { /* a range that wraps around is in no table, wherever it begins */
        EXPECT(!nvlxi_ranges_cover(&table, index, address, UINT64_MAX, NVLX_ACCESS_NONE, &where, &known));
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
    nvlxi_ranges_free(&table);
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
        uint64_t span = UINT64_C(1) << (4 + below(40)), base = below(UINT64_C(1) << 46);
        count = 0;
        for (size_t ranges = 1 + below(60); ranges; ranges--)
            put_range(base + below(span), 1 + below(span) / (1 + below(20)));
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
        for (uint32_t i = 0; i < table.count; i++) {
            const struct nvlxi_range *piece = &table.piece[i];
            for (uint64_t address = piece->start; address < piece->end; address += 1 + below(unit))
                EQUAL(i * sizeof *piece, table.slot[(address >> table.shift) & table.mask]);
        }
        expect_everywhere();
    }
}

/* Four that adjoin, the first two of one owner, the last two of another; then a gap. */
static void owners_have_borders(void) {
    static const uint32_t owners[] = {1, 1, 2, 2, 2};
    uint64_t where;
    bool known;
    count = 0;
    for (uint32_t i = 0; i < COUNT(owners); i++) {
        put_range(1000 + 100 * i + (i == 4), 100);
        sorted[i].owner = owners[i];
    }
    build();
    EQUAL(COUNT(owners), table.count);
    for (uint32_t i = 0; i < COUNT(owners); i++)
        EQUAL(i == 2, nvlxi_ranges_border(&table, &table.piece[i]));
    EQUAL(1200, nvlxi_ranges_reach(&table, 0, 1400));
    EQUAL(1200, nvlxi_ranges_reach(&table, 1, 1201));
    EQUAL(1150, nvlxi_ranges_reach(&table, 0, 1150));
    EQUAL(1400, nvlxi_ranges_reach(&table, 2, 1400));
    EXPECT(nvlxi_ranges_cover(&table, 0, 1000, 400, NVLX_ACCESS_NONE, &where, &known));
    EXPECT(!nvlxi_ranges_cover(&table, 0, 1000, 401, NVLX_ACCESS_NONE, &where, &known));
    EQUAL(1400, where);
    nvlxi_ranges_free(&table);
}

static void versions_are_unique(void) {
    struct nvlxi_ranges other;
    count = 0;
    put_range(1000, 1000);
    build();
    OK(nvlxi_ranges_build(sorted, count, &other));
    EXPECT(table.version && other.version && table.version != other.version);
    nvlxi_ranges_free(&other);
    nvlxi_ranges_free(&table);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"none_and_one", none_and_one},
                                        {"that_do_not_overlap", that_do_not_overlap},
                                        {"that_overlap", that_overlap},
                                        {"aligned_ones_are_found_at_once", aligned_ones_are_found_at_once},
                                        {"owners_have_borders", owners_have_borders},
                                        {"versions_are_unique", versions_are_unique},
                                        {0}};
    static const struct role roles[] = {{0}};
    state = 7;
    return run_tests(argc, argv, tests, roles, 20);
}
