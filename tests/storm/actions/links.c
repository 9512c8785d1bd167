/* Whom a process of a storm follows. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "storm/worker.h"

#define CONNECT_LONG (2 * SECOND_NS)

struct link *draw_link(struct worker *w) {
    const unsigned first = (unsigned)draw(w, w->board->processes);
    for (unsigned i = 0; i < w->board->processes; i++) {
        struct link *link = &w->links[(first + i) % w->board->processes];
        if (link->peer)
            return link;
    }
    return NULL;
}

/* ---- Names --------------------------------------------------------------------------------------------- */

static bool has_place(const struct record *record, uint64_t stamp) {
    return atomic_load(&record->stamp) == stamp && !atomic_load(&record->gone);
}

/* What is registered, if the peer has already told it to this process. */
static struct record *find_known(struct worker *w, const struct link *link, unsigned name, uint64_t *stamp) {
    *stamp = atomic_load(&w->board->places[link->process].current[name]);
    struct record *record = *stamp ? board_record(w->board, *stamp) : NULL;
    if (!record || stamp_incarnation(*stamp) != link->incarnation)
        return NULL;
    const uint64_t generation = atomic_load(&record->generation);
    if (!generation || nvlx_peer_sync(link->peer, generation, 0))
        return NULL;
    board_count(w->place, COUNT_syncs, 1);
    return record;
}

int find_name(struct worker *w, struct link *link, unsigned name, uint64_t *address, uint64_t *length,
              uint64_t *known) {
    char text[16];
    char history[HISTORY_MAX];
    uint64_t stamp;
    region_name(name, text);
    const struct record *record = find_known(w, link, name, &stamp);
    const int code = nvlx_peer_find(link->peer, text, address, length);
    if (code && code != NVLX_ENOENT)
        wrong_code(w, "nvlx_peer_find", code);
    *known = 0;
    if (!record || !has_place(record, stamp))
        return code;
    *known = stamp; /* it may sleep, with its name and place */
    if (code || *address != atomic_load(&record->address) || *length != atomic_load(&record->length))
        board_wrong(w->board,
                    "process %u.%" PRIu32 ", step %" PRIu64 ": \"%s\" of process %u.%" PRIu32
                    " is known, but nvlx_peer_find gives %d, 0x%" PRIx64 " + %" PRIu64 ": %s",
                    w->number, w->incarnation, w->step, text, link->process, link->incarnation, code,
                    code ? 0 : *address, code ? 0 : *length, describe_history(w->board, stamp, now_ns(), history));
    return code;
}

/* ---- Connecting ---------------------------------------------------------------------------------------- */

/* Whom it has reached: an engine that has lived since `before`. */
static bool identify(struct worker *w, struct link *link, uint32_t before) {
    const uint32_t after = (uint32_t)atomic_load(&w->board->places[link->process].incarnation);
    uint64_t address, length;
    char text[16];
    for (uint32_t incarnation = before; incarnation <= after; incarnation++) {
        snprintf(text, sizeof text, "%" PRIu32, incarnation);
        if (nvlx_peer_find(link->peer, text, &address, &length) == 0) {
            link->incarnation = incarnation;
            return true;
        }
    }
    board_wrong(w->board,
                "process %u.%" PRIu32 " has reached process %u, but none of its engines %" PRIu32 " to %" PRIu32,
                w->number, w->incarnation, link->process, before, after);
    return false;
}

static void close_link(struct worker *w, struct link *link) {
    release_link(w, link);
    const int code = nvlx_peer_close(link->peer);
    if (code == 0)
        note_taken(w, link->process, receipt_of(link));
    else if (code != NVLX_ETIMEDOUT || !link->sent)
        wrong_code(w, "nvlx_peer_close", code);
    link->peer = NULL;
}

void act_connect(struct worker *w) {
    static const int64_t timeouts[] = {0, 1000000, 20000000, CONNECT_LONG};
    const unsigned process = (unsigned)draw(w, w->board->processes);
    const int64_t timeout = timeouts[draw(w, COUNT(timeouts))];
    const struct place *place = &w->board->places[process];
    struct link *link = &w->links[process];
    char address[108];
    const uint32_t serving = (uint32_t)atomic_load(&place->serving),
                   before = (uint32_t)atomic_load(&place->incarnation);
    if (link->peer)
        return;
    serve_address(w->board, process, address);
    *link = (struct link){.process = process, .id = (uint32_t)(atomic_fetch_add(&w->place->links, 1) + 1)};
    const int code = nvlx_connect(w->engine, address, timeout, &link->peer);
    if (code == 0) {
        board_count(w->place, COUNT_connects, 1);
        if (!identify(w, link, before))
            close_link(w, link);
    } else {
        link->peer = NULL;
        if (code != NVLX_ETIMEDOUT || (timeout == CONNECT_LONG && serving && !board_doomed(w->board, process, serving)))
            wrong_code(w, "nvlx_connect", code);
    }
}

void act_part(struct worker *w) {
    struct link *link = draw_link(w);
    if (link)
        close_link(w, link);
}

/* Those that are gone are seldom kept. */
void act_test(struct worker *w) {
    for (unsigned i = 0; i < w->board->processes; i++) {
        struct link *link = &w->links[i];
        if (!link->peer)
            continue;
        const uint64_t before = now_ns() - (uint64_t)KNOWN_DEAD_NS;
        const int code = nvlx_peer_test(link->peer);
        if (code == 0 && board_buried_since(w->board, i, link->incarnation, before))
            board_wrong(w->board, "process %u.%" PRIu32 " still takes process %u.%" PRIu32 " for alive", w->number,
                        w->incarnation, i, link->incarnation);
        if (code && (code != NVLX_ESTALE || !board_doomed(w->board, i, link->incarnation)))
            wrong_code(w, "nvlx_peer_test", code);
        if (code && chance(w, 70))
            close_link(w, link);
    }
}

void act_map(struct worker *w) {
    struct move move = {.link = draw_link(w), .name = (unsigned)draw(w, NAMES)};
    if (!move.link || find_name(w, move.link, move.name, &move.address, &move.length, &move.known[0]))
        return;
    move.process = move.link->process;
    move.incarnation = move.link->incarnation;
    int code = nvlx_peer_map(move.link->peer, w->board->gpus[draw(w, 2)], move.address, move.length);
    if (code && !may_fail(w, &move, 0, code))
        wrong_code(w, "nvlx_peer_map", code);
    code = nvlx_peer_wake(move.link->peer);
    if (code && (code != NVLX_ESTALE || !board_doomed(w->board, move.process, move.incarnation)))
        wrong_code(w, "nvlx_peer_wake", code);
}

/* What a peer has published becomes known; what it has not, does not. */
void act_sync(struct worker *w) {
    struct link *link = draw_link(w);
    uint64_t known;
    if (!link)
        return;
    const uint64_t published = atomic_load(&w->board->places[link->process].published);
    if (published >> 48 != (link->incarnation & 0xffff))
        return;
    const uint64_t generation = published & ((UINT64_C(1) << 48) - 1);
    int code = nvlx_peer_sync(link->peer, generation, 20 * SECOND_NS);
    if (code && (code != NVLX_ESTALE || !board_doomed(w->board, link->process, link->incarnation)))
        wrong_code(w, "nvlx_peer_sync", code);
    if (code)
        return;
    if ((code = nvlx_peer_generation(link->peer, &known)) || known < generation)
        wrong_code(w, "nvlx_peer_generation, after nvlx_peer_sync,", code);
    code = nvlx_peer_sync(link->peer, known + (UINT64_C(1) << 40), 0);
    if (code != NVLX_ETIMEDOUT && code != NVLX_ESTALE)
        wrong_code(w, "nvlx_peer_sync for what is to come", code);
    board_count(w->place, COUNT_waited, 1);
}

void end_links(struct worker *w) {
    for (unsigned i = 0; i < w->board->processes; i++)
        if (w->links[i].peer)
            close_link(w, &w->links[i]);
}
