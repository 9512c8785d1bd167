/* Random lists of rows, and of ops that lie as rows do, against a model that looks at each byte of each row.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_rows_random               a few hundred lists
 *        test_rows_random COUNT SEED    COUNT lists, from this seed on
 *
 * On a GPU, 10,000 lists by eight processes take about a minute:
 *     for i in 0 1 2 3 4 5 6 7; do NVLX_BACKEND=cuda test_rows_random 1250 $((1 + 100 * i)) & done; wait
 *
 * Memory is in allocations of odd sizes, many of them side by side, here and in another process. Half of them are read
 * from, half written to. Not all bytes are registered, and regions have many borders. A list is good if the model finds
 * each byte of each row in them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#define PLACES           8 /* allocations of one side for one use */
#define ALL              (4 * PLACES)
#define OPS_MAX          400
#define LISTS_OF_WORLD   50
#define LISTS_BY_DEFAULT 400

static uint64_t state;

static size_t below(size_t limit) {
    return limit ? next_random(&state) % limit : 0;
}

/* ---- A world: places 0 to PLACES - 1 are here and read from, then here and written to, there and read, there and
 * written --- */

struct place {
    uint64_t address;
    size_t size;
    uint8_t *bytes;      /* as they should be */
    uint8_t *registered; /* [size]: whether each is */
    uint8_t *written;    /* [size]: whether this list writes it */
};

static struct place places[ALL];
static struct nvlx_engine *engine;
static struct nvlx_peer *peer;
static struct owner owner;
static uint32_t region_count; /* there */

static bool is_there(size_t number) {
    return number >= 2 * PLACES;
}

static bool is_target(size_t number) {
    return number / PLACES % 2;
}

static uint32_t slot_of(size_t number) {
    return (uint32_t)(number - 2 * PLACES);
}

static void register_part(size_t number, size_t from, size_t length) {
    const struct place *place = &places[number];
    if (!length)
        return;
    if (is_there(number))
        owner_register(&owner, region_count++, slot_of(number), from, length,
                       is_target(number) ? NVLX_ACCESS_WRITE : NVLX_ACCESS_READ, NULL);
    else
        register_range(engine, (void *)(uintptr_t)(place->address + from), length, NULL, NVLX_ACCESS_NONE);
    memset(place->registered + from, 1, length);
}

/* Whole, in two parts that adjoin, or with a hole. */
static void register_place(size_t number) {
    const size_t size = places[number].size, middle = below(size), hole = below(2) ? below(size - middle) : 0;
    if (below(3)) {
        register_part(number, 0, size);
    } else {
        register_part(number, 0, middle);
        register_part(number, middle + hole, size - middle - hole);
    }
}

static void make_place(size_t number, size_t largest) {
    struct place *place = &places[number];
    const uint32_t seed = (uint32_t)(number + 1);
    place->size = 512 * (1 + below(largest / 512)) + (below(3) ? 0 : below(512));
    place->address = is_there(number) ? owner_alloc(&owner, slot_of(number), 0, place->size, seed)
                                      : (uint64_t)(uintptr_t)allocate(engine, 0, place->size, seed);
    place->bytes = malloc(place->size);
    place->registered = calloc(1, place->size);
    place->written = calloc(1, place->size);
    EXPECT(place->bytes && place->registered && place->written);
    for (size_t i = 0; i < place->size; i++)
        place->bytes[i] = seed_byte(seed, i);
}

static void begin(uint64_t seed) {
    state = seed;
    region_count = 0;
    engine = make_engine(0);
    owner_start(&owner);
    const size_t largest = below(8) ? 16 * KIB : 2 * MIB;
    for (size_t i = 0; i < ALL; i++)
        make_place(i, largest);
    for (size_t i = 0; i < ALL; i++)
        register_place(i);
    char *text = owner_export(&owner);
    peer = open_peer(engine, text);
    free(text);
}

/* Compares the memory that lists write to, or at the end all of it. */
static void compare(bool all, const char *when) {
    for (size_t i = 0; i < ALL; i++) {
        const struct place *place = &places[i];
        uint8_t *got = malloc(place->size);
        EXPECT(got != NULL);
        if (all || is_target(i)) {
            if (is_there(i))
                owner_read(&owner, slot_of(i), 0, got, place->size);
            else
                OK(nvlx_memcpy(engine, got, (void *)(uintptr_t)place->address, place->size));
            for (size_t at = 0; at < place->size; at++)
                if (got[at] != place->bytes[at])
                    FAIL("%s: byte %zu of place %zu is wrong", when, at, i);
        }
        free(got);
    }
}

static void end(const char *when) {
    compare(true, when);
    OK(nvlx_engine_destroy(engine));
    owner_end(&owner);
    for (size_t i = 0; i < ALL; i++) {
        free(places[i].bytes);
        free(places[i].registered);
        free(places[i].written);
    }
}

/* ---- The model ------------------------------------------------------------------------------------------ */

/* The place that has a byte of memory of this side, or NULL. */
static struct place *find_place(uint64_t address, bool there) {
    static struct place *last;
    if (last && is_there((size_t)(last - places)) == there && address - last->address < last->size)
        return last;
    for (size_t i = there ? 2 * PLACES : 0; i < (there ? ALL : 2 * PLACES); i++)
        if (address - places[i].address < places[i].size)
            return last = &places[i];
    return NULL;
}

static struct nvlx_rows rows_of(const struct nvlx_op *op) {
    return op->flags ? *(const struct nvlx_rows *)(uintptr_t)op->arg : (struct nvlx_rows){1, 0, 0};
}

static uint64_t local_at(const struct nvlx_op *op, uint64_t row) {
    return (uint64_t)(uintptr_t)op->local + row * rows_of(op).local_pitch;
}

static uint64_t remote_at(const struct nvlx_op *op, uint64_t row) {
    return op->remote + row * rows_of(op).remote_pitch;
}

/* NVLX_ERANGE, NVLX_EACCES: some byte is not there for this. */
static int judge_bytes(uint64_t address, uint64_t length, bool there, bool write) {
    for (uint64_t i = 0; i < length; i++) {
        const struct place *place = find_place(address + i, there);
        if (!place || !place->registered[address + i - place->address])
            return NVLX_ERANGE;
        if (there && is_target((size_t)(place - places)) != write)
            return NVLX_EACCES;
    }
    return 0;
}

static int judge(const struct nvlx_op *op) {
    const struct nvlx_rows rows = rows_of(op);
    const bool write = op->opcode == NVLX_OP_WRITE;
    int code = 0;
    if (!op->length)
        return 0;
    if (rows.count > 1 && (write ? rows.remote_pitch : rows.local_pitch) < op->length)
        return NVLX_EINVAL;
    for (uint64_t row = 0; row < rows.count && !code; row++)
        code = judge_bytes(local_at(op, row), op->length, false, !write);
    for (uint64_t row = 0; row < rows.count && !code; row++)
        code = judge_bytes(remote_at(op, row), op->length, true, write);
    return code;
}

/* One byte of an op: where it comes from, and where it goes. */
struct byte {
    struct place *source, *target;
    uint64_t from, to; /* offsets there */
};

/* Calls `visit` for each byte, until it says no. */
static bool each_byte(const struct nvlx_op *op, bool (*visit)(const struct byte *byte)) {
    const bool read = op->opcode == NVLX_OP_READ;
    for (uint64_t row = 0; row < rows_of(op).count; row++) {
        for (uint64_t i = 0; i < op->length; i++) {
            const uint64_t here = local_at(op, row) + i, there = remote_at(op, row) + i;
            struct byte byte = {find_place(read ? there : here, read), find_place(read ? here : there, !read), 0, 0};
            byte.from = byte.source ? (read ? there : here) - byte.source->address : 0;
            byte.to = byte.target ? (read ? here : there) - byte.target->address : 0;
            if (!visit(&byte))
                return false;
        }
    }
    return true;
}

/* Whether a byte is good for a list: what is written is memory for that, and not written by another op. */
static bool claim_byte(const struct byte *byte) {
    if (!byte->target || !is_target((size_t)(byte->target - places)) || byte->target->written[byte->to] ||
        (byte->source && is_target((size_t)(byte->source - places))))
        return false;
    byte->target->written[byte->to] = true;
    return true;
}

static bool claim(const struct nvlx_op *op) {
    return each_byte(op, claim_byte);
}

static bool apply_byte(const struct byte *byte) {
    if (!byte->source || !byte->target)
        return false;
    byte->target->bytes[byte->to] = byte->source->bytes[byte->from];
    return true;
}

static void apply(const struct nvlx_op *op) {
    EXPECT(each_byte(op, apply_byte));
}

/* ---- Lists ---------------------------------------------------------------------------------------------- */

static struct nvlx_op ops[OPS_MAX];
static struct nvlx_rows all_rows[OPS_MAX];
static size_t op_count;

static uint64_t random_place(bool there, bool target, uint64_t unit) {
    const struct place *place = &places[(there ? 2 * PLACES : 0) + (target ? PLACES : 0) + below(PLACES)];
    return place->address + below(place->size) / unit * unit;
}

static uint64_t random_pitch(uint64_t length, uint64_t unit, bool written) {
    if (!below(written ? 30 : 5))
        return below(length + 1);
    return (below(5) ? length + below(4 * length) : length) / unit * unit + (below(3) ? 0 : unit);
}

static struct nvlx_op random_rows(struct nvlx_rows *rows) {
    const bool read = below(2);
    const uint64_t unit = (const uint64_t[]){1, 4, 16, 64}[below(4)];
    const uint64_t length = below(50) ? (1 + below(below(4) ? 16 : 60)) * unit : 0;
    rows->count = below(40) ? 1 + below(below(3) ? 12 : 120) : 0;
    rows->local_pitch = random_pitch(length, unit, read);
    rows->remote_pitch = below(3) ? random_pitch(length, unit, !read) : rows->local_pitch;
    struct nvlx_op op =
        make_op(read ? NVLX_OP_READ : NVLX_OP_WRITE, peer, (void *)(uintptr_t)random_place(false, read, unit),
                random_place(true, !read, unit), length);
    op.flags = NVLX_OP_ROWS;
    op.arg = (uint64_t)(uintptr_t)rows;
    return op;
}

/* The same rows as ops of their own; now and then one of them is not where it should be. */
static void add_flat(const struct nvlx_op *op) {
    const struct nvlx_rows rows = rows_of(op);
    const uint64_t broken = below(2) ? below(rows.count + 1) : UINT64_MAX;
    for (uint64_t row = 0; row < rows.count && op_count < OPS_MAX; row++) {
        struct nvlx_op one = make_op(op->opcode, peer, (void *)(uintptr_t)local_at(op, row), remote_at(op, row),
                                     op->length - (row == broken && op->length > 1));
        if (judge(&one))
            return;
        if (claim(&one))
            ops[op_count++] = one;
    }
}

/* The same several times, as layers of blocks lie. */
static void add_grid(const struct nvlx_op *op) {
    const uint64_t local_pitch = random_pitch(op->length, 16, true), remote_pitch = random_pitch(op->length, 16, true);
    const size_t times = 1 + below(12);
    struct nvlx_op one = *op;
    for (size_t i = 0; i < times; i++) {
        add_flat(&one);
        one.local = (char *)one.local + local_pitch;
        one.remote += remote_pitch;
    }
}

/* Rows several times, at distances that are often whole numbers of pitches. */
static void add_times(const struct nvlx_op *op) {
    const struct nvlx_rows rows = rows_of(op);
    const uint64_t local_step = rows.local_pitch * below(20) + below(4) / 3,
                   remote_step = rows.remote_pitch * below(20);
    const size_t times = 1 + below(8);
    struct nvlx_op one = *op;
    for (size_t i = 0; i < times && op_count < OPS_MAX; i++) {
        if (!judge(&one) && claim(&one)) {
            all_rows[op_count] = rows;
            one.arg = (uint64_t)(uintptr_t)&all_rows[op_count];
            ops[op_count++] = one;
        }
        one.local = (char *)one.local + local_step;
        one.remote += remote_step + (below(6) ? 0 : rows.remote_pitch);
    }
}

/* Most ops of most lists are good. */
static void make_list(bool good) {
    const size_t wanted = below(2) ? 1 + below(4) : 1 + below(60);
    const bool flat = below(2);
    op_count = 0;
    for (size_t i = 0; i < PLACES * 4; i++)
        memset(places[i].written, 0, places[i].size);
    for (size_t tries = 0; op_count < wanted && tries < 20 * wanted; tries++) {
        struct nvlx_op op = random_rows(&all_rows[op_count]);
        if (good && judge(&op))
            continue;
        if (flat && below(3) && !judge(&op))
            below(3) ? add_flat(&op) : add_grid(&op);
        else if (!below(4) && !judge(&op))
            add_times(&op);
        else if (judge(&op) || claim(&op))
            ops[op_count++] = op;
        else
            continue;
    }
}

/* A place of the list that was claimed in part by an op that was dropped may stay unwritten: that is no harm. */
static int judge_list(void) {
    for (size_t i = 0; i < op_count; i++) {
        int code = judge(&ops[i]);
        if (code)
            return code;
    }
    return 0;
}

static int run_prepared(const struct nvlx_transfer_options *options) {
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    int code = nvlx_prepare(engine, ops, op_count, options, &prepared);
    if (code)
        return code;
    memset(all_rows, 0xff, sizeof all_rows); /* have been read */
    for (int post = 0; post < 2; post++) {
        OK(nvlx_post(prepared, NULL, &request));
        finish(request);
    }
    return nvlx_prepared_free(prepared);
}

static int run_once(const struct nvlx_transfer_options *options) {
    struct nvlx_request *request;
    int code = nvlx_transfer(engine, ops, op_count, options, &request);
    if (code)
        return code;
    memset(all_rows, 0xff, sizeof all_rows);
    struct nvlx_request_info info = {.size = sizeof info};
    OK(nvlx_request_get_info(request, &info));
    EQUAL(info.bytes, info.engine_bytes + info.kernel_bytes);
    finish(request);
    return 0;
}

static void run_list(const char *when) {
    make_list(below(4) != 0);
    const int expected = judge_list();
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.mechanism = (uint32_t)below(4);
    for (size_t i = 0; i < op_count && !expected; i++)
        apply(&ops[i]);
    const int code = below(2) ? run_prepared(&options) : run_once(&options);
    if (code != expected)
        FAIL("%s: %d (%s), and not %d", when, code, nvlx_last_error(), expected);
    compare(false, when);
}

static void run_lists(size_t count, uint64_t seed) {
    char when[64];
    for (size_t list = 0; list < count; list++) {
        if (list % LISTS_OF_WORLD == 0)
            begin(seed + list / LISTS_OF_WORLD);
        snprintf(when, sizeof when, "seed %" PRIu64 ", list %zu", seed + list / LISTS_OF_WORLD, list % LISTS_OF_WORLD);
        run_list(when);
        if (list % LISTS_OF_WORLD == LISTS_OF_WORLD - 1 || list == count - 1)
            end(when);
    }
    printf("%zu lists, every byte as it should be\n", count);
}

/* ---- The program ---------------------------------------------------------------------------------------- */

static void random_lists(void) {
    run_lists(sanitized() ? LISTS_BY_DEFAULT / 8 : LISTS_BY_DEFAULT, 1);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"random_lists", random_lists}, {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    const size_t lists = argc == 3 ? strtoul(argv[1], NULL, 10) : 0;
    if (!lists)
        return run_tests(argc, argv, tests, roles, 60);
    begin_process(argc, argv, roles, 600);
    run_lists(lists, strtoul(argv[2], NULL, 10));
    return 0;
}
