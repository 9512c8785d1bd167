/* Reads of a process of a storm that the library verifies by digests. SPDX-License-Identifier: Apache-2.0
 *
 * Some digests are those of other bytes than their regions have: such a read must be found damaged, no other. */
#include <inttypes.h>
#include <string.h>

#include "storm/worker.h"

/* A whole region, of which its owner has told a digest. Returns whether there is such a one. */
static bool choose_whole(struct worker *w, struct list *list) {
    struct move *move = &list->moves[0];
    struct nvlx_region_info info = {.size = sizeof info};
    struct link *link = draw_link(w);
    char name[16];
    if (!link)
        return false;
    *move = (struct move){.link = link, .process = link->process, .incarnation = link->incarnation};
    move->name = (unsigned)draw(w, REGIONS);
    region_name(move->name, name);
    if (nvlx_peer_generation(link->peer, &move->asked) ||
        find_name(w, link, move->name, &move->address, &move->length, &move->known[0]) ||
        nvlx_peer_region_by_name(link->peer, name, &info) || !info.has_digest || info.length > w->sizes.op)
        return false;
    move->address = info.address;
    move->length = info.length;
    move->local = list->scratch + 64 * draw(w, 4);
    list->count = 1;
    return true;
}

/* What cannot be verified any more is refused. */
static bool may_be_refused(struct worker *w, const struct move *move, int code) {
    const struct record *known = board_follow(w->board, move->known[0]);
    return code == NVLX_EINVAL &&
           (!known || !atomic_load(&known->digest) || atomic_load(&known->withdrawn) || atomic_load(&known->suspended));
}

void act_verify(struct worker *w) {
    struct list *list = draw_list(w, LIST_EMPTY);
    if (!list || !choose_whole(w, list))
        return;
    const struct nvlx_op op = op_of(&list->moves[0]);
    fill_local(w, &list->moves[0]);
    nvlx_transfer_options_init(&list->options);
    list->options.flags = NVLX_VERIFY;
    begin_call(list);
    draw_event(w, list, &list->options);
    const int code = nvlx_transfer(w->engine, &op, 1, &list->options, &list->request);
    if (code == 0)
        in_flight(w, list);
    else if (may_be_refused(w, &list->moves[0], code))
        board_count(w->place, COUNT_refusals, 1);
    else
        check_refusal(w, list, "nvlx_transfer", code);
}

void check_verified(struct worker *w, const struct list *list, int code) {
    const struct move *move = &list->moves[0];
    uint64_t word = 0;
    const int copied = nvlx_memcpy(w->engine, &word, move->local, sizeof word);
    const struct record *record = board_record(w->board, read_word(word).stamp);
    const enum told_digest digest = record ? (enum told_digest)atomic_load(&record->digest) : DIGEST_NONE;
    char history[HISTORY_MAX];
    if (!copied && code == (digest == DIGEST_WRONG ? NVLX_EDIGEST : 0)) {
        board_count(w->place, code ? COUNT_damaged : COUNT_verified, 1);
        return;
    }
    wrong_code(w, "a verified transfer", code);
    board_wrong(w->board,
                "process %u.%" PRIu32 ", step %" PRIu64 ": that was region %u of process %u.%" PRIu32 ", 0x%" PRIx64
                " + %" PRIu64 ": %s",
                w->number, w->incarnation, w->step, move->name, move->process, move->incarnation, move->address,
                move->length, describe_history(w->board, read_word(word).stamp, list->submitted_at, history));
}
