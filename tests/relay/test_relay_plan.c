/* What of a relay is pure: how parts are cut into pieces, and who reads from whom. SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "cmocka_main.h"
#include "relay/content.h"
#include "relay/tree.h"

/* ---- Pieces ---------------------------------------------------------------------------------------------- */

static char somewhere[1];

static uint64_t next_number(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* Every byte is in one span, each piece has at most so many bytes, and no two neighbours would fit into one. */
static void check_pieces(const struct nvlxi_relay_content *content, uint64_t piece_bytes) {
    uint64_t before = 0;
    size_t span = 0;
    for (size_t i = 0; i < content->part_count; i++)
        for (uint64_t offset = 0; offset < content->parts[i].length; span++) {
            EQUAL(i, content->spans[span].part);
            EQUAL(offset, content->spans[span].offset);
            EXPECT(content->spans[span].length > 0);
            EXPECT(offset % piece_bytes == 0);
            EQUAL(i, content->units[content->spans[span].unit].part);
            offset += content->spans[span].length;
            EXPECT(offset <= content->parts[i].length);
        }
    EQUAL(content->span_count, span);
    EQUAL(0, content->first[0]);
    EQUAL(content->span_count, content->first[content->piece_count]);
    for (size_t piece = 0; piece < content->piece_count; piece++) {
        uint64_t bytes = 0;
        EXPECT(content->first[piece] < content->first[piece + 1]);
        for (size_t i = content->first[piece]; i < content->first[piece + 1]; i++)
            bytes += content->spans[i].length;
        EXPECT(bytes <= piece_bytes);
        EXPECT(!piece || before + content->spans[content->first[piece]].length > piece_bytes);
        before = bytes;
    }
}

static void pieces_have_all_bytes(void **state) {
    uint64_t random = 3;
    (void)state;
    for (int round = 0; round < 500; round++) {
        struct nvlx_relay_part parts[40];
        char names[40][16];
        struct nvlxi_relay_content content;
        const size_t count = 1 + next_number(&random) % COUNT(parts);
        const uint64_t piece_bytes = 1 + next_number(&random) % 3000;
        for (size_t i = 0; i < count; i++) {
            snprintf(names[i], sizeof names[i], "%u", (unsigned)(i * 7919 % 1000));
            parts[i] = (struct nvlx_relay_part){names[i], somewhere, i % 5 == 4 ? 0 : 1 + next_number(&random) % 9000};
        }
        OK(nvlxi_relay_content_make(&content, parts, count));
        OK(nvlxi_relay_content_cut(&content, piece_bytes));
        for (size_t i = 1; i < count; i++)
            EXPECT(strcmp(content.parts[i - 1].name, content.parts[i].name) < 0);
        check_pieces(&content, piece_bytes);
        nvlxi_relay_content_free(&content);
    }
}

/* The bytes that a unit may have when so many of the content are left. */
static uint64_t unit_most(uint64_t left) {
    const uint64_t mib = UINT64_C(1) << 20, quarter = left / 4;
    return quarter > 512 * mib ? 512 * mib : quarter < 64 * mib ? 64 * mib : quarter;
}

/* Half a GiB each, less towards the end, never of two parts; no piece longer, no two neighbours would be one. */
static void units_are_long_and_end_short(void **state) {
    const uint64_t gib = UINT64_C(1) << 30;
    const struct nvlx_relay_part parts[] = {{"a", somewhere, 3 * gib + 5}, {"b", somewhere, 100}};
    struct nvlxi_relay_content content;
    (void)state;
    for (uint64_t piece = gib / 64; piece <= gib / 16; piece *= 2) {
        uint64_t bytes = 0;
        OK(nvlxi_relay_content_make(&content, parts, 2));
        OK(nvlxi_relay_content_cut(&content, piece));
        EQUAL(gib / 2, content.units[0].length);
        for (size_t i = 0; i < content.unit_count; i++) {
            const struct nvlxi_relay_unit *unit = &content.units[i], *next = unit + 1;
            const bool last = i + 1 == content.unit_count;
            EXPECT(unit->length <= unit_most(content.bytes - bytes));
            EXPECT(last || next->part != unit->part || unit->length + piece > unit_most(content.bytes - bytes) ||
                   next->length < piece);
            EQUAL(last, unit->part);
            EQUAL(last ? 0 : bytes, unit->offset);
            bytes += unit->length;
        }
        EXPECT(content.units[content.unit_count - 2].length <= gib / 16);
        EQUAL(3 * gib + 105, bytes);
        nvlxi_relay_content_free(&content);
    }
}

/* 128 MiB of 8 GiB, as measured; of less, shorter ones, so that a reader behind others is not much later than they. */
static void fewer_bytes_have_shorter_pieces(void **state) {
    const uint64_t mib = UINT64_C(1) << 20,
                   bytes[] = {1, mib, 8 * mib, 64 * mib, 1024 * mib, 8192 * mib, UINT64_MAX - 1},
                   pieces[] = {mib, 2 * mib, 4 * mib, 16 * mib, 64 * mib, 128 * mib, 128 * mib};
    struct nvlxi_relay_content content;
    (void)state;
    for (size_t i = 0; i < COUNT(bytes); i++) {
        const struct nvlx_relay_part part = {"a", somewhere, bytes[i]};
        OK(nvlxi_relay_content_make(&content, &part, 1));
        EQUAL(pieces[i], nvlxi_relay_content_piece(&content));
        nvlxi_relay_content_free(&content);
    }
}

static void a_piece_may_be_longer_than_all(void **state) {
    const struct nvlx_relay_part parts[] = {{"a", somewhere, 300}, {"b", somewhere, 100}, {"c", somewhere, 7}};
    const uint64_t long_ones[] = {408, UINT64_MAX - 300, UINT64_MAX};
    struct nvlxi_relay_content content;
    (void)state;
    for (size_t i = 0; i < COUNT(long_ones); i++) {
        OK(nvlxi_relay_content_make(&content, parts, 3));
        OK(nvlxi_relay_content_cut(&content, long_ones[i]));
        EQUAL(1, content.piece_count);
        EQUAL(3, content.span_count);
        nvlxi_relay_content_free(&content);
    }
}

static void the_order_of_parts_does_not_matter(void **state) {
    const struct nvlx_relay_part there[] = {{"b", somewhere, 10}, {"a", somewhere, 700}, {"c", somewhere, 5}};
    const struct nvlx_relay_part here[] = {{"c", somewhere, 5}, {"b", somewhere, 10}, {"a", somewhere, 700}};
    struct nvlxi_relay_content one, other;
    (void)state;
    OK(nvlxi_relay_content_make(&one, there, 3));
    OK(nvlxi_relay_content_make(&other, here, 3));
    OK(nvlxi_relay_content_cut(&one, 256));
    OK(nvlxi_relay_content_cut(&other, 256));
    EQUAL(one.span_count, other.span_count);
    EXPECT(memcmp(one.spans, other.spans, one.span_count * sizeof *one.spans) == 0);
    nvlxi_relay_content_free(&one);
    nvlxi_relay_content_free(&other);
}

/* ---- The tree -------------------------------------------------------------------------------------------- */

static const uint8_t gpus[4][NVLXI_UUID_BYTES] = {{1}, {2}, {3}, {4}};

static void expect_parents(struct nvlxi_relay_place *places, size_t count, const int *parents) {
    nvlxi_relay_tree(places, count, gpus[0]);
    for (size_t i = 0; i < count; i++)
        if (places[i].reads)
            EQUAL((int64_t)parents[i], (int64_t)places[i].parent);
}

static void gpus_are_a_chain(void **state) {
    struct nvlxi_relay_place places[] = {
        {.gpu = gpus[1], .reads = true}, {.gpu = gpus[2], .reads = true}, {.gpu = gpus[1], .reads = true},
        {.gpu = gpus[0], .reads = true}, {.gpu = gpus[3], .reads = true}, {.gpu = gpus[2], .reads = true},
    };
    const int all[] = {-1, 0, 0, -1, 1, 1};
    const int one_is_out[] = {0, -1, 1, -1, 2, 1}; /* the third is the first on its GPU then */
    const int one_is_shunned[] = {-1, -1, 1, -1, 2, 1};
    (void)state;
    expect_parents(places, COUNT(places), all);
    places[0].shunned = true;
    expect_parents(places, COUNT(places), one_is_shunned);
    places[0].reads = false;
    expect_parents(places, COUNT(places), one_is_out);
}

/* Whoever is shunned or out: all come from the source, without a circle, and each link carries the bytes once. */
static void every_tree_has_all(void **state) {
    uint64_t random = 5;
    (void)state;
    for (int round = 0; round < 20000; round++) {
        struct nvlxi_relay_place places[12];
        const size_t count = 1 + next_number(&random) % COUNT(places);
        unsigned links[4][4] = {{0}};
        bool shunned = false;
        for (size_t i = 0; i < count; i++) {
            places[i] = (struct nvlxi_relay_place){.gpu = gpus[next_number(&random) % 4],
                                                   .reads = next_number(&random) % 8 != 0,
                                                   .shunned = round % 2 && next_number(&random) % 4 == 0,
                                                   .parent = 1000};
            shunned |= places[i].shunned;
        }
        nvlxi_relay_tree(places, count, gpus[0]);
        for (size_t i = 0; i < count; i++) {
            const int parent = places[i].parent;
            if (!places[i].reads)
                continue;
            EXPECT(parent >= -1 && parent < (int)i);
            EXPECT(parent < 0 || (places[parent].reads && !places[parent].shunned));
            links[(parent < 0 ? gpus[0] : places[parent].gpu)[0] - 1][places[i].gpu[0] - 1]++;
        }
        for (int from = 0; from < 4 && !shunned; from++)
            for (int to = 0; to < 4; to++)
                EXPECT(from == to || links[from][to] <= 1);
    }
}

static const struct CMUnitTest cases[] = {cmocka_unit_test(pieces_have_all_bytes),
                                          cmocka_unit_test(units_are_long_and_end_short),
                                          cmocka_unit_test(a_piece_may_be_longer_than_all),
                                          cmocka_unit_test(fewer_bytes_have_shorter_pieces),
                                          cmocka_unit_test(the_order_of_parts_does_not_matter),
                                          cmocka_unit_test(gpus_are_a_chain),
                                          cmocka_unit_test(every_tree_has_all)};
const struct program program = {.name = "relay_plan", .cases = cases, .count = COUNT(cases)};
