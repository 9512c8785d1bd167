/* The bytes at an address become others in all the ways there are, and ops on them are checked in all the ways there
 * are, in this process and in another: what is younger than the generation of a call is refused, what is not is not.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device/host/host.h"
#include "rendezvous_support.h"
#include "support.h"

#define LENGTH (64 * KIB) /* of a region */
#define CHUNK  (2 * MIB)
#define BEGIN  (CHUNK - LENGTH * 3 / 2) /* of the first one: the second lies over the border of two chunks */
#define PATH   108                      /* bytes of an address */
#define OPS    300
#define EACH   64 /* bytes of an op */
#define KEPT   3  /* lists */
#define EVERY  (LENGTH / EACH)

/* ---- The reader ---------------------------------------------------------------------------------------- */

struct places { /* of the owner's memory: LENGTH bytes each */
    uint64_t changed, below, apart;
};

struct reader {
    struct nvlx_engine *engine;
    struct nvlx_peer *peer;
    char *local[2]; /* on either GPU */
    struct nvlx_region *region[2];
    bool keeps;                       /* a list may be kept prepared: not of the engine's own memory */
    struct nvlx_prepared *kept[KEPT]; /* since `learned`, */
    uint64_t learned;                 /* the generation before the change */
    const struct places *at;
    int wanted; /* what ops on what was changed must give, at that generation */
};

static struct nvlx_op read_of(const struct reader *r, size_t index, uint64_t remote) {
    return make_op(NVLX_OP_READ, r->peer, r->local[0] + index % EVERY * EACH, remote, EACH);
}

static int start_at(const struct reader *r, const struct nvlx_op *ops, size_t count, uint64_t generation) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    nvlx_transfer_options_init(&options);
    options.generation = generation;
    const int code = nvlx_transfer(r->engine, ops, count, &options, &request);
    if (code == 0)
        finish(request);
    return code;
}

static int prepare_at(const struct reader *r, const struct nvlx_op *ops, size_t count, uint64_t generation) {
    struct nvlx_transfer_options options;
    struct nvlx_prepared *prepared;
    nvlx_transfer_options_init(&options);
    options.generation = generation;
    const int code = nvlx_prepare(r->engine, ops, count, &options, &prepared);
    if (code == 0)
        OK(nvlx_prepared_free(prepared));
    return code;
}

/* Also when all that a call finds out about the memory is known from one without a generation. */
static void expect(const struct reader *r, const struct nvlx_op *ops, size_t count) {
    GIVES(r->wanted, start_at(r, ops, count, r->learned));
    OK(start_at(r, ops, count, 0));
    GIVES(r->wanted, start_at(r, ops, count, r->learned));
    GIVES(r->wanted, prepare_at(r, ops, count, r->learned));
}

/* ---- The ways to check ops ----------------------------------------------------------------------------- */

static void alone(const struct reader *r) {
    struct nvlx_op op = read_of(r, 0, r->at->changed + LENGTH / 2);
    uint64_t now;
    expect(r, &op, 1);
    OK(nvlx_peer_generation(r->peer, &now));
    OK(start_at(r, &op, 1, now));
    op.opcode = NVLX_OP_WRITE;
    expect(r, &op, 1);
    op = make_op(NVLX_OP_READ, r->peer, r->local[0], r->at->changed, LENGTH);
    expect(r, &op, 1);
}

/* Ops that go `turns` ways: reads and writes, from one GPU and the other, of memory that stays what it is. */
static void fill_list(const struct reader *r, struct nvlx_op *ops, size_t count, size_t turns, uint64_t old) {
    for (size_t i = 0; i < count; i++) {
        ops[i] = read_of(r, i, old + i * EACH);
        ops[i].opcode = i % turns % 2 ? NVLX_OP_WRITE : NVLX_OP_READ;
        ops[i].local = r->local[i % turns / 2] + i * EACH;
    }
}

/* One op of a list, wherever it stands, or all of its second half. */
static void in_lists(const struct reader *r, size_t turns, uint64_t old) {
    static const size_t counts[] = {2, 67, 100, OPS};
    struct nvlx_op ops[OPS];
    for (size_t i = 0; i < COUNT(counts); i++) {
        const size_t count = counts[i], which[] = {0, count / 2, count - 1};
        for (size_t j = 0; j < COUNT(which); j++) {
            fill_list(r, ops, count, turns, old);
            ops[which[j]].remote = r->at->changed + which[j] * EACH;
            expect(r, ops, count);
        }
        for (size_t j = count / 2; j < count; j++)
            ops[j].remote = r->at->changed + j * EACH;
        expect(r, ops, count);
    }
}

/* Over the end of the region below, alone and in lists. */
static void over_ends(const struct reader *r) {
    struct nvlx_op ops[100];
    fill_list(r, ops, COUNT(ops), 1, r->at->below);
    ops[50].remote = r->at->changed - EACH / 2;
    expect(r, &ops[50], 1);
    expect(r, ops, COUNT(ops));
    fill_list(r, ops, COUNT(ops), 1, r->at->changed - COUNT(ops) / 2 * EACH);
    expect(r, ops, COUNT(ops));
}

static void with_rows(struct nvlx_op *op, const struct nvlx_rows *rows) {
    op->flags = NVLX_OP_ROWS;
    op->arg = (uint64_t)(uintptr_t)rows;
}

/* One op, of which some rows or all are of what was changed, and several that are one grid. */
static void in_rows(const struct reader *r) {
    static const struct nvlx_rows apart = {.count = 16, .local_pitch = EACH, .remote_pitch = 256},
                                  solid = {.count = 16, .local_pitch = EACH, .remote_pitch = EACH};
    const uint64_t before = r->at->below ? 8 : 0; /* rows */
    struct nvlx_op ops[8];
    ops[0] = read_of(r, 0, r->at->changed - before * apart.remote_pitch);
    with_rows(&ops[0], &apart);
    expect(r, ops, 1);
    ops[0] = read_of(r, 0, r->at->changed - before * solid.remote_pitch - before);
    with_rows(&ops[0], &solid);
    expect(r, ops, 1);
    for (size_t i = 0; i < COUNT(ops); i++) {
        ops[i] = read_of(r, i * apart.count, (i < 4 ? r->at->apart : r->at->changed) + i * 4096);
        with_rows(&ops[i], &apart);
    }
    expect(r, ops, COUNT(ops));
    expect(r, ops + 4, 4);
    OK(start_at(r, ops, 4, r->learned));
}

static void as_blocks(const struct reader *r) {
    const struct nvlx_block_region local = {
        .base = (uint64_t)(uintptr_t)r->local[0], .stride = EACH, .length = EACH, .blocks = EVERY};
    struct nvlx_block_region remote[2] = {local, local}, here[2] = {local, local};
    struct nvlx_blocks_options options;
    struct nvlx_blocks *blocks;
    remote[0].base = r->at->apart;
    remote[1].base = r->at->changed;
    here[1].base = (uint64_t)(uintptr_t)r->local[1];
    nvlx_blocks_options_init(&options);
    options.generation = r->learned;
    const int code = nvlx_blocks_create(r->engine, r->peer, here, remote, 2, &options, &blocks);
    GIVES(r->wanted, code);
    if (code == 0)
        OK(nvlx_blocks_free(blocks));
}

static void in_all_ways(const struct reader *r) {
    alone(r);
    for (size_t turns = 1; turns <= 4; turns *= 2) {
        in_lists(r, turns, r->at->apart);
        if (r->at->below)
            in_lists(r, turns, r->at->below);
    }
    if (r->at->below)
        over_ends(r);
    in_rows(r);
    as_blocks(r);
}

/* ---- What a reader is told ----------------------------------------------------------------------------- */

struct question {
    struct places at;
    uint64_t known; /* generation that it shall know. 0: a text comes, */
    int wanted;
    bool again; /* not the first one: something has changed */
};

/* Reads of all of what is changed; or of it and what is below, by ops, or rows, after others of what is below. */
static size_t fill_kept(const struct reader *r, size_t which, struct nvlx_op ops[4]) {
    static const struct nvlx_rows rows = {.count = 4, .local_pitch = EACH, .remote_pitch = EACH};
    ops[0] = make_op(NVLX_OP_READ, r->peer, r->local[0], r->at->changed, LENGTH);
    for (size_t i = 0; i < 4 && which; i++)
        ops[i] = read_of(r, 8 * i, r->at->changed - (i < 3 ? 8 : 0) * EACH - EACH / 2);
    for (size_t i = 0; i < 4 && which == 2; i++) {
        ops[i].flags = NVLX_OP_ROWS;
        ops[i].arg = (uint64_t)(uintptr_t)&rows;
    }
    return which ? 4 : 1;
}

static void learn(struct reader *r) {
    struct nvlx_op ops[4];
    OK(nvlx_peer_generation(r->peer, &r->learned));
    for (size_t i = 0; i < (r->at->below ? KEPT : 1) && r->keeps; i++)
        OK(nvlx_prepare(r->engine, ops, fill_kept(r, i, ops), NULL, &r->kept[i]));
}

static void post_kept(struct reader *r) {
    struct nvlx_request *request;
    for (size_t i = 0; i < KEPT && r->kept[i]; i++) {
        const int code = nvlx_post(r->kept[i], NULL, &request);
        GIVES(r->wanted, code);
        if (code == 0)
            finish(request);
        OK(nvlx_prepared_free(r->kept[i]));
    }
}

static void answer(struct reader *r, const struct question *question, const char *text) {
    r->at = &question->at;
    r->wanted = question->wanted;
    if (question->known)
        OK(nvlx_peer_sync(r->peer, question->known, PATIENCE));
    else if (question->again)
        OK(nvlx_peer_update(r->peer, text, strlen(text)));
    if (question->again)
        post_kept(r);
    else
        learn(r);
    in_all_ways(r);
}

static void begin_reader(struct reader *r, struct nvlx_engine *engine, const char *path, const char *text) {
    *r = (struct reader){.engine = engine, .peer = text ? open_peer(engine, text) : connect_to(engine, path)};
    for (int i = 0; i < 2; i++) {
        r->local[i] = allocate(engine, i ? second_gpu() : 0, LENGTH, 0);
        r->region[i] = register_range(engine, r->local[i], LENGTH, NULL, NVLX_ACCESS_NONE);
    }
}

static void reader_role(int socket) {
    struct nvlx_engine *engine = make_engine(0);
    struct question question;
    struct reader r;
    char path[PATH], *text;
    size_t length;
    bool begun = false;
    get(socket, path, sizeof path);
    while (get_or_end(socket, &question, sizeof question)) {
        text = get_text(socket, &length);
        if (!begun)
            begin_reader(&r, engine, path, question.known ? NULL : text);
        begun = r.keeps = true;
        answer(&r, &question, text);
        free(text);
        put(socket, &begun, sizeof begun);
    }
    OK(nvlx_engine_destroy(engine));
}

/* ---- The owner ----------------------------------------------------------------------------------------- */

static struct {
    struct nvlx_engine *engine;
    char *block, *apart, *lone, *spare;
    struct nvlx_region *below, *changed, *above, *alone, *other;
} own;

static struct nvlx_region *tell(char *address, const char *name) {
    return register_range(own.engine, address, LENGTH, name, NVLX_ACCESS_READ_WRITE);
}

static char *allocate_chunks(uint32_t kind, size_t length) {
    struct nvlx_alloc_options options;
    void *memory;
    nvlx_alloc_options_init(&options);
    options.flags = kind;
    options.chunk_length = kind == NVLX_ALLOC_VMM ? CHUNK : 0;
    OK(nvlx_alloc(own.engine, 0, length, &options, &memory));
    return memory;
}

/* Three regions side by side, two apart. */
static void begin_owner(uint32_t kind) {
    own.engine = make_engine(0);
    own.block = allocate_chunks(kind, 2 * CHUNK) + BEGIN;
    own.lone = allocate_chunks(NVLX_ALLOC_VMM, CHUNK);
    own.apart = allocate(own.engine, second_gpu(), LENGTH, 1);
    own.spare = allocate(own.engine, 0, LENGTH, 3);
    own.below = tell(own.block, "below");
    own.changed = tell(own.block + LENGTH, "changed");
    own.above = tell(own.block + 2 * LENGTH, "above");
    own.alone = tell(own.lone, "alone");
    tell(own.apart, "apart");
    OK(nvlx_serve(own.engine, own_path(), NULL));
}

/* ---- Changes ------------------------------------------------------------------------------------------- */

static void *place(void) {
    return own.block + LENGTH;
}

static void renew(void) {
    OK(nvlx_unregister(own.changed, PATIENCE));
    tell(place(), "changed");
}

static void renew_as_one(void) {
    OK(nvlx_hold(own.engine));
    const int code = nvlx_unregister(own.changed, 0);
    EXPECT(code == 0 || code == NVLX_ETIMEDOUT);
    tell(place(), "changed");
    OK(nvlx_publish(own.engine, NULL));
    if (code)
        OK(nvlx_unregister(own.changed, PATIENCE));
}

static void exchange(void) {
    struct nvlx_region *two[] = {own.changed, own.above};
    void *places[] = {own.block + 2 * LENGTH, place()};
    OK(nvlx_suspend(two, 2, PATIENCE));
    OK(nvlx_resume(two, 2, places));
}

static void wake_at(void *to) {
    OK(nvlx_suspend(&own.changed, 1, PATIENCE));
    OK(nvlx_resume(&own.changed, 1, &to));
}

static void another_takes_its_place(void) {
    wake_at(own.spare);
    tell(place(), "stranger");
}

static void there_and_back(void) {
    wake_at(own.spare);
    wake_at(place());
}

static void another_wakes_there(void) {
    void *to = place();
    struct nvlx_region *region = tell(own.spare, "wanders");
    OK(nvlx_suspend(&region, 1, PATIENCE));
    OK(nvlx_unregister(own.changed, PATIENCE));
    OK(nvlx_resume(&region, 1, &to));
}

static void one_over_it_stays(void) {
    tell(place(), "over");
    OK(nvlx_unregister(own.changed, PATIENCE));
}

/* Its memory goes unasked, and other memory comes to that address. */
static void freed(void) {
    struct nvlxi_host_block *gone = nvlxi_host_put_to_sleep(own.lone);
    OK(nvlx_check(own.engine));
    OK(nvlx_publish(own.engine, NULL));
    OK(nvlx_unregister(own.alone, PATIENCE));
    OK(nvlxi_host_wake(gone));
    tell(own.lone, "alone");
}

static void sleep_where_it_is(void) {
    wake_at(NULL);
}

static void wake_where_it_was(void) {
    wake_at(place());
}

static void another_over_it(void) {
    tell(place(), "over");
}

static const struct change {
    const char *name;
    void (*change)(void);
    int wanted;
    bool alone; /* of the region with memory of its own */
} changes[] = {
    {"renewed", renew, NVLX_ESTALE, false},
    {"renewed as one change", renew_as_one, NVLX_ESTALE, false},
    {"exchanged", exchange, NVLX_ESTALE, false},
    {"moved, another in its place", another_takes_its_place, NVLX_ESTALE, false},
    {"moved there and back", there_and_back, NVLX_ESTALE, false},
    {"gone, another moved to its place", another_wakes_there, NVLX_ESTALE, false},
    {"gone, one over it stays", one_over_it_stays, NVLX_ESTALE, false},
    {"freed, other memory there", freed, NVLX_ESTALE, true},
    {"slept", sleep_where_it_is, 0, false},
    {"slept, told where it was", wake_where_it_was, 0, false},
    {"another one over it", another_over_it, 0, false},
};

/* ---- Tests --------------------------------------------------------------------------------------------- */

struct kind { /* of reader */
    bool itself, child, by_text;
};

static struct reader here;
static struct child there;

static void ask(const struct kind *kind, const struct question *question) {
    char *text, path[PATH] = "";
    size_t length;
    bool begun;
    OK(nvlx_export(own.engine, &text, &length));
    if (kind->child && !question->again) {
        snprintf(path, sizeof path, "%s", own_path());
        child_start(&there, "reader");
        put(there.socket, path, sizeof path);
    } else if (!question->again) {
        begin_reader(&here, kind->itself ? own.engine : make_engine(0), own_path(), kind->by_text ? text : NULL);
        here.keeps = !kind->itself;
    }
    if (kind->child) {
        put(there.socket, question, sizeof *question);
        put_text(there.socket, text, length);
        get(there.socket, &begun, sizeof begun);
    } else {
        answer(&here, question, text);
    }
    nvlx_text_free(text);
}

static uint64_t published(void) {
    uint64_t generation;
    OK(nvlx_publish(own.engine, &generation));
    return generation;
}

static void change_for(const struct kind *kind, const struct change *change) {
    struct question question = {.at = {.changed = (uint64_t)(uintptr_t)(change->alone ? own.lone : place()),
                                       .below = change->alone ? 0 : (uint64_t)(uintptr_t)own.block,
                                       .apart = (uint64_t)(uintptr_t)own.apart}};
    question.known = kind->by_text ? 0 : published();
    ask(kind, &question);
    change->change();
    question.known = kind->by_text ? 0 : published();
    question.wanted = change->wanted;
    question.again = true;
    ask(kind, &question);
}

static void all_changes(struct kind kind) {
    static const uint32_t memory[] = {0, NVLX_ALLOC_VMM};
    for (size_t i = 0; i < COUNT(changes); i++) {
        printf("           %s\n", changes[i].name);
        fflush(stdout);
        for (size_t j = 0; j < COUNT(memory); j++) {
            begin_owner(memory[j]);
            change_for(&kind, &changes[i]);
            if (kind.child)
                child_end(&there);
            else if (!kind.itself)
                OK(nvlx_engine_destroy(here.engine));
            OK(nvlx_engine_destroy(own.engine));
        }
    }
}

static void of_itself(void) {
    all_changes((struct kind){.itself = true});
}

static void of_itself_by_text(void) {
    all_changes((struct kind){.itself = true, .by_text = true});
}

static void of_another_engine(void) {
    all_changes((struct kind){.child = false});
}

static void of_another_engine_by_text(void) {
    all_changes((struct kind){.by_text = true});
}

static void of_another_process(void) {
    all_changes((struct kind){.child = true});
}

static void of_another_process_by_text(void) {
    all_changes((struct kind){.child = true, .by_text = true});
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"of_itself", of_itself},
                                        {"of_itself_by_text", of_itself_by_text},
                                        {"of_another_engine", of_another_engine},
                                        {"of_another_engine_by_text", of_another_engine_by_text},
                                        {"of_another_process", of_another_process},
                                        {"of_another_process_by_text", of_another_process_by_text},
                                        {0}};
    static const struct role roles[] = {{"reader", reader_role}, {0}};
    return run_tests(argc, argv, tests, roles, 120);
}
