/* The life of one process of a storm: see worker.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "worker.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crash.h"
#include "support.h"

/* ---- Chance -------------------------------------------------------------------------------------------- */

uint64_t draw(struct worker *w, uint64_t below) {
    w->random = hash_of(w->random, below);
    return below ? (w->random >> 11) % below : 0;
}

bool chance(struct worker *w, unsigned percent) {
    return draw(w, 100) < percent;
}

int64_t draw_timeout(struct worker *w) {
    static const int64_t timeouts[] = {0, 0, 200000, 5000000, 200000000, FOR_EVER};
    return timeouts[draw(w, COUNT(timeouts))];
}

/* ---- Calls --------------------------------------------------------------------------------------------- */

void wrong_code(struct worker *w, const char *call, int code) {
    board_wrong(w->board, "process %u.%" PRIu32 ", step %" PRIu64 " (%s): %s gives %d (%s): %s", w->number,
                w->incarnation, w->step, action_name(atomic_load(&w->place->action)), call, code, nvlx_strerror(code),
                nvlx_last_error());
}

uint64_t new_stamp(struct worker *w) {
    uint32_t number;
    do {
        number = (uint32_t)(atomic_fetch_add(&w->place->numbers, 1) & NUMBERS_MASK);
    } while (!number);
    return make_stamp(w->number, w->incarnation, number);
}

void region_name(unsigned name, char text[16]) {
    snprintf(text, 16, name < REGIONS ? "region %u" : "inbox %u", name < REGIONS ? name : name - REGIONS);
}

size_t scratch_stride(const struct worker *w) {
    return w->sizes.op + 2 * 512;
}

/* ---- Actions of the process itself --------------------------------------------------------------------- */

static void act_pause(struct worker *w) {
    usleep((useconds_t)draw(w, 3000));
}

/* Wakes up when the judge says so. */
static void act_stop(struct worker *w) {
    atomic_store(&w->place->stop_ms, 1 + (int)draw(w, 120));
    raise(SIGSTOP);
}

static void act_crash(struct worker *w) {
    atomic_store(&w->place->doomed, w->incarnation | ((1u << LIFE_SHIFT) - 1));
    kill(getpid(), SIGKILL);
}

struct action {
    const char *name;
    unsigned weight;
    void (*run)(struct worker *w);
};

static void act_restart(struct worker *w);

static const struct action actions[] = {
    {"grow", 120, act_grow},
    {"renew", 60, act_renew},
    {"withdraw", 20, act_withdraw},
    {"withdraw all", 12, act_withdraw_all},
    {"settle", 60, act_settle},
    {"swap", 12, act_swap},
    {"inspect", 10, act_inspect},
    {"inboxes", 100, act_inboxes},
    {"connect", 60, act_connect},
    {"part", 6, act_part},
    {"test peers", 30, act_test},
    {"map ahead", 10, act_map},
    {"transfer", 700, act_transfer},
    {"prepare", 60, act_prepare},
    {"post", 300, act_post},
    {"free a prepared list", 12, act_unprepare},
    {"complete", 500, act_complete},
    {"pause", 20, act_pause},
    {"stop", 2, act_stop},
    {"crash", 2, act_crash},
    {"restart", 2, act_restart},
    {"suspend", 40, act_suspend},
    {"resume", 120, act_resume},
    {"free unasked", 8, act_free},
    {"send", 40, act_send},
    {"events", 60, act_events},
    {"verify", 60, act_verify},
    {"sync", 20, act_sync},
    {"nap", 20, act_nap},
};

const char *action_name(int action) {
    return action >= 0 && action < (int)COUNT(actions) ? actions[action].name : "begin or end";
}

static int choose(struct worker *w) {
    unsigned sum = 0;
    for (size_t i = 0; i < COUNT(actions); i++)
        sum += actions[i].weight;
    uint64_t left = draw(w, sum);
    int chosen = 0;
    while (left >= actions[chosen].weight)
        left -= actions[chosen++].weight;
    return chosen;
}

static void take_step(struct worker *w) {
    const struct board *board = w->board;
    w->step++;
    w->random = hash_of(hash_of(board->seed, w->number), hash_of(w->incarnation, w->step));
    const int action = choose(w);
    atomic_store(&w->place->action, action);
    actions[action].run(w);
    atomic_store(&w->place->action, -1);
    atomic_fetch_add(&w->place->steps, 1);
}

/* ---- One engine ---------------------------------------------------------------------------------------- */

void serve_address(const struct board *board, unsigned process, char text[108]) {
    if (process % 3)
        snprintf(text, 108, "%s/%u", board->folder, process);
    else
        snprintf(text, 108, "@%s/%u", board->folder, process);
}

static void begin_engine(struct worker *w) {
    struct nvlx_config config;
    struct nvlx_region *name;
    char address[108], text[16];
    w->step = 0;
    w->random = hash_of(hash_of(w->board->seed, w->number), hash_of(w->incarnation, 0));
    nvlx_config_init(&config);
    config.gpus = w->board->gpus;
    config.gpu_count = w->board->gpus[0] == w->board->gpus[1] ? 1 : 2;
    config.backend = w->board->cuda ? NVLX_BACKEND_CUDA : NVLX_BACKEND_HOST;
    OK(nvlx_engine_create(&config, &w->engine));
    OK(nvlx_engine_create(&config, &w->stranger));
    w->told = 0;
    w->held = false;
    memset(w->inbound, 0, sizeof w->inbound);
    memset(w->checked, 0, sizeof w->checked);
    memset(w->kept, 0, sizeof w->kept);
    snprintf(text, sizeof text, "%" PRIu32, w->incarnation);
    name = register_range(w->engine, NULL, 0, text, NVLX_ACCESS_READ); /* by which a peer knows whom it has reached */
    (void)name;
    serve_address(w->board, w->number, address);
    begin_lists(w);
    begin_inboxes(w);
    atomic_store(&w->place->incarnation, w->incarnation);
    OK(nvlx_serve(w->engine, address, NULL));
    atomic_store(&w->place->serving, w->incarnation);
    board_count(w->place, COUNT_engines, 1);
}

/* Waits for those who use what is here. */
static void let_go(struct worker *w) {
    struct nvlx_engine_info info = {.size = sizeof info};
    end_lists(w);
    end_links(w);
    end_memory(w);
    OK(nvlx_engine_get_info(w->engine, &info));
    if (info.mappings || info.requests || info.regions > 1)
        board_wrong(w->board,
                    "process %u.%" PRIu32 " holds %" PRIu64 " mappings, %" PRIu64 " requests, %" PRIu64
                    " regions when it has let go of all",
                    w->number, w->incarnation, info.mappings, info.requests, info.regions);
}

static bool has_sent(const struct worker *w) {
    bool sent = false;
    for (unsigned i = 0; i < w->board->processes; i++)
        sent = sent || (w->links[i].peer && w->links[i].sent);
    return sent;
}

/* `abrupt`: with all that it has, what is in flight too. */
static void end_engine(struct worker *w, bool abrupt) {
    atomic_store(&w->place->doomed, w->incarnation);
    if (abrupt)
        forget_memory(w);
    else
        let_go(w);
    int code = nvlx_engine_destroy(w->engine);
    if (code && !(code == NVLX_ETIMEDOUT && has_sent(w)))
        wrong_code(w, "nvlx_engine_destroy", code);
    if ((code = nvlx_engine_destroy(w->stranger)))
        wrong_code(w, "nvlx_engine_destroy of what only allocates", code);
    atomic_store(&w->place->buried_at, now_ns());
    atomic_store(&w->place->buried, w->incarnation);
    memset(w->links, 0, sizeof w->links);
}

/* The same process goes on with another engine. */
static void act_restart(struct worker *w) {
    const uint32_t next = w->incarnation + 1;
    if (!(next & ((1u << LIFE_SHIFT) - 1)))
        return;
    end_engine(w,
               !w->board->cuda && chance(w, 50)); /* CUDA does not define what readers find of memory that is freed */
    w->incarnation = next;
    begin_engine(w);
}

/* ---- The process --------------------------------------------------------------------------------------- */

static const struct sizes host_sizes = {512, 48, 8 * KIB, 16 * KIB, 2 * MIB};
static const struct sizes cuda_sizes = {512, 24 * 1024, 2 * MIB, 12 * MIB, 2 * MIB};

static void *take_memory(size_t length) {
    void *memory = malloc(length);
    if (!memory)
        FAIL("no memory for %zu bytes", length);
    return memory;
}

static void compare_holdings(struct worker *w, const struct holdings *before) {
    struct holdings now = holdings();
    for (int i = 0; i < 100 && now.threads > before->threads && !sanitized(); i++) {
        usleep(10000);
        now = holdings();
    }
    if (sanitized()) /* which has a thread of its own */
        now.threads = before->threads;
    /* CUDA keeps files and threads of its own until the process ends */
    if (!w->board->cuda && (now.fds != before->fds || now.threads != before->threads || now.maps != before->maps))
        board_wrong(
            w->board,
            "process %u.%" PRIu32 " has %zu files, %zu threads, %zu maps at its end, %zu, %zu, %zu at its begin",
            w->number, w->incarnation, now.fds, now.threads, now.maps, before->fds, before->threads, before->maps);
}

static void drop_line(void *context, int level, const char *message) {
    (void)context;
    (void)level;
    (void)message;
}

void worker_role(int socket) {
    static struct worker worker;
    struct worker *w = &worker;
    struct beginning beginning;
    int file;
    watchdog(0); /* the judge's is enough */
    if (!getenv("NVLX_LOG_LEVEL"))
        nvlx_set_log(NVLX_LOG_ERROR, drop_line, NULL); /* refusals are what a storm is made of */
    if (!get_file_or_end(socket, &beginning, sizeof beginning, &file))
        return;
    w->board = board_open(file);
    close(file);
    w->number = beginning.number;
    w->incarnation = beginning.incarnation;
    w->place = &w->board->places[w->number];
    atomic_store(&w->place->pid, getpid());
    tell_crashes(w);
    w->sizes = w->board->cuda ? cuda_sizes : host_sizes;
    w->bytes = take_memory(w->sizes.tensor_unit * w->sizes.tensor_units * REGIONS_PER_GROUP);
    w->letter = take_memory(LETTER_MOST);
    w->poison = take_memory(scratch_stride(w));
    fill_words(w->poison, scratch_stride(w) / WORD * WORD, make_stamp(w->number, w->incarnation, 0), 0);
    const struct holdings before = holdings();
    begin_engine(w);
    while (!atomic_load(&w->board->end))
        take_step(w);
    end_engine(w, false);
    compare_holdings(w, &before);
    free(w->bytes);
    free(w->poison);
    free(w->letter);
}
