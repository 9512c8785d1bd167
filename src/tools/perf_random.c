/* nvlx_perf: random lists, all bytes checked after each. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "perf_modes.h"

#define LENGTH_BITS 20 /* fragments have up to 2^20 bytes */
#define COUNT_BITS  9
#define GAP_MAX     4096
#define WRONG_LISTS 10 /* after which no more are tried */

/* From 1 to 2^bits, each power of two as likely as the next. */
static uint64_t up_to(uint64_t *random, unsigned bits) {
    const uint64_t most = UINT64_C(1) << perf_random(random) % (bits + 1);
    return 1 + perf_random(random) % most;
}

/* Destinations follow each other, often without a gap; they begin anywhere. Sources lie anywhere, also on each other.
 */
static void place(struct perf_list *list, const struct perf_layout *layout, uint64_t most, uint64_t *random) {
    const bool read = list->spec.opcode == NVLX_OP_READ;
    uint64_t region = perf_random(random) % layout->count, at = perf_random(random) % (layout->size / 2);
    while (list->count < most) {
        uint64_t length = up_to(random, LENGTH_BITS);
        if (length > layout->size / 4)
            length = 1 + length % (layout->size / 4);
        if (at + length > layout->size && ++region >= layout->count)
            break;
        if (at + length > layout->size)
            at = perf_random(random) % 64;
        const uint64_t source =
            perf_random(random) % layout->count * layout->step + perf_random(random) % (layout->size - length + 1);
        const uint64_t destination = region * layout->step + at;
        list->fragments[list->count++] =
            (struct perf_fragment){read ? destination : source, read ? source : destination, length};
        list->bytes += length;
        at += length + (perf_random(random) % 2 ? 0 : perf_random(random) % GAP_MAX);
    }
}

static void shuffle(struct perf_list *list, uint64_t *random) {
    for (size_t i = 1; i < list->count; i++) {
        const size_t other = perf_random(random) % (i + 1);
        const struct perf_fragment kept = list->fragments[i];
        list->fragments[i] = list->fragments[other];
        list->fragments[other] = kept;
    }
}

static void make_list(struct perf_list *list, const struct perf_options *options, uint64_t *random) {
    const struct perf_layout layout = perf_layout_of(options->arena, options->regions);
    const uint64_t most = up_to(random, COUNT_BITS);
    const bool both = options->op[NVLX_OP_READ] && options->op[NVLX_OP_WRITE];
    *list = (struct perf_list){.fragments = perf_alloc(most, sizeof *list->fragments)};
    list->spec.opcode =
        both ? 1 + (uint32_t)(perf_random(random) % 2) : (options->op[NVLX_OP_READ] ? NVLX_OP_READ : NVLX_OP_WRITE);
    place(list, &layout, most, random);
    shuffle(list, random);
}

/* By any mechanism, with any budget, unless the options ask for one; prepared or in one call. */
static void move(struct perf_session *session, uint64_t *random) {
    static const uint32_t budgets[] = {0, 1, 8, 16, 64};
    struct perf_side *side = &session->end.side;
    struct nvlx_transfer_options options = perf_side_options(session->options, session->options->budgets[0]);
    struct perf_sample ignored;
    if (!options.mechanism)
        options.mechanism = NVLX_MECHANISM_AUTO + (uint32_t)(perf_random(random) % 3);
    if (!options.max_sms)
        options.max_sms = budgets[perf_random(random) % PERF_ENTRIES(budgets)];
    struct nvlx_prepared *prepared = perf_random(random) % 2 ? perf_side_prepare(side, &options) : NULL;
    perf_side_move(side, prepared, &options, &ignored, NULL);
    perf_side_unprepare(prepared);
}

static uint64_t check_one(struct perf_session *session, struct perf_results *results, uint64_t seed) {
    struct perf_list list;
    uint64_t random = seed, seeds[2];
    make_list(&list, session->options, &random);
    perf_side_set_list(&session->end.side, &list);
    perf_session_fill(session, seeds);
    move(session, &random);
    const uint64_t wrong = perf_session_check(session, &list, 1, seeds);
    if (wrong)
        fprintf(stderr, "WRONG: random list %" PRIu64 ", a %s of %zu fragments\n", seed,
                list.spec.opcode == NVLX_OP_READ ? "read" : "write", list.count);
    results->random_lists++;
    results->random_fragments += list.count;
    results->random_bytes += list.bytes;
    perf_list_free(&list);
    return wrong;
}

void perf_check_random(struct perf_session *session, struct perf_results *results) {
    for (uint64_t i = 1; i <= session->options->random && results->random_wrong < WRONG_LISTS; i++) {
        const uint64_t wrong = check_one(session, results, i);
        results->wrong += wrong;
        results->random_wrong += wrong != 0;
        perf_progress("random list %" PRIu64 " of %" PRIu64, i, session->options->random);
    }
}
