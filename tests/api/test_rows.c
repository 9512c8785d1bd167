/* Random lists of rows, and of ops that lie as rows do, against a model that looks at each byte of each row.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_rows               a few hundred lists, and what single ops are told
 *        test_rows COUNT SEED    COUNT lists, from this seed on: on GPUs with NVLX_BACKEND=cuda
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

/* Whether it is good for a list: what it writes is memory for that, and not written by another op. */
static bool claim(const struct nvlx_op *op, bool release) {
    const struct nvlx_rows rows = rows_of(op);
    const bool read = op->opcode == NVLX_OP_READ;
    for (uint64_t row = 0; row < rows.count; row++) {
        for (uint64_t i = 0; i < op->length; i++) {
            const uint64_t to = (read ? local_at(op, row) : remote_at(op, row)) + i,
                           from = (read ? remote_at(op, row) : local_at(op, row)) + i;
            struct place *target = find_place(to, !read);
            if (release || (target && is_target((size_t)(target - places)) && !target->written[to - target->address])) {
                if (target)
                    target->written[to - target->address] = !release;
            } else {
                return false;
            }
            const struct place *source = find_place(from, read);
            if (!release && source && is_target((size_t)(source - places)))
                return false;
        }
    }
    return true;
}

static void apply(const struct nvlx_op *op) {
    const struct nvlx_rows rows = rows_of(op);
    const bool read = op->opcode == NVLX_OP_READ;
    for (uint64_t row = 0; row < rows.count; row++) {
        for (uint64_t i = 0; i < op->length; i++) {
            const uint64_t to = (read ? local_at(op, row) : remote_at(op, row)) + i,
                           from = (read ? remote_at(op, row) : local_at(op, row)) + i;
            struct place *target = find_place(to, !read);
            const uint64_t offset = to - target->address;
            const struct place *source = find_place(from, read);
            target->bytes[offset] = source->bytes[from - source->address];
        }
    }
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
        if (claim(&one, false))
            ops[op_count++] = one;
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
            add_flat(&op);
        else if (judge(&op) || claim(&op, false))
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

/* ---- Single ops ----------------------------------------------------------------------------------------- */

#define BYTES (128 * KIB)

static char *memory;
static uint64_t remote;

/* BYTES here, registered from the second byte on in two regions, and BYTES there. */
static void begin_simply(void) {
    engine = make_engine(0);
    memory = allocate(engine, 0, BYTES, 1);
    register_range(engine, memory + 1, KIB, NULL, NVLX_ACCESS_NONE);
    register_range(engine, memory + 1 + KIB, BYTES - KIB - 1, NULL, NVLX_ACCESS_NONE);
    owner_start(&owner);
    remote = owner_alloc(&owner, 0, 0, BYTES, 2);
    owner_register(&owner, 0, 0, 0, BYTES, NVLX_ACCESS_READ_WRITE, "w");
    char *text = owner_export(&owner);
    peer = open_peer(engine, text);
    free(text);
}

static void end_simply(void) {
    OK(nvlx_engine_destroy(engine));
    owner_end(&owner);
}

static struct nvlx_op rows_op(uint32_t opcode, uint64_t length, const struct nvlx_rows *rows) {
    struct nvlx_op op = make_op(opcode, peer, memory + 1, remote, length);
    op.flags = NVLX_OP_ROWS;
    op.arg = (uint64_t)(uintptr_t)rows;
    return op;
}

static void refuse(uint32_t opcode, uint64_t length, struct nvlx_rows rows, uint32_t mechanism, int code,
                   const char *words) {
    const struct nvlx_op op = rows_op(opcode, length, &rows);
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct nvlx_prepared *prepared;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    REFUSED(nvlx_transfer(engine, &op, 1, &options, &request), code, words);
    REFUSED(nvlx_prepare(engine, &op, 1, &options, &prepared), code, words);
}

static void refused_rows_are_named(void) {
    const uint64_t big = UINT64_C(1) << 40;
    begin_simply();
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){2, 511, 512}, 0, NVLX_EINVAL,
           "op 0: rows of 512 bytes that are written to local memory overlap: the pitch is 511");
    refuse(NVLX_OP_WRITE, 512, (struct nvlx_rows){3, 511, 0}, 0, NVLX_EINVAL,
           "op 0: rows of 512 bytes that are written to the peer's memory overlap: the pitch is 0");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){big, big, big}, 0, NVLX_EINVAL,
           "with pitch 1099511627776, ends beyond");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){2, UINT64_MAX, 512}, 0, NVLX_EINVAL, "the last of 2 rows of 512");
    refuse(NVLX_OP_READ, UINT64_MAX, (struct nvlx_rows){1, 0, 0}, 0, NVLX_EINVAL, "ends beyond 2^64");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){300, 512, 512}, 0, NVLX_ERANGE, "op 0, row 255: local range");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){300, 512, 1024}, 0, NVLX_ERANGE, "op 0, row 255: local range");
    refuse(NVLX_OP_WRITE, 512, (struct nvlx_rows){300, 256, 512}, 0, NVLX_ERANGE, "op 0, row 256: the peer's range");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){129, 600, 1024}, 0, NVLX_ERANGE, "op 0, row 128: the peer's range");
    refuse(NVLX_OP_READ, 512, (struct nvlx_rows){129, 1024, 600}, 0, NVLX_ERANGE, "op 0, row 128: local range");
    refuse(NVLX_OP_READ, 1, (struct nvlx_rows){70000, 1, 0}, NVLX_MECHANISM_COPY_ENGINE, NVLX_ENOTSUP,
           "take 70000 copies by engines");
    end_simply();
}

static void wrong_fields_are_named(void) {
    struct nvlx_request *request;
    struct nvlx_rows rows = {2, 1024, 1024};
    begin_simply();
    struct nvlx_op op = rows_op(NVLX_OP_READ, 512, &rows);
    op.flags = 3;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_EINVAL, "op 0: flags 0x3 are not known");
    op.flags = 0;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_EINVAL, "must be 0 without NVLX_OP_ROWS");
    op.flags = NVLX_OP_ROWS;
    op.arg = 0;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_EINVAL, "arg, the address of its nvlx_rows, is 0");
    struct nvlx_transfer_options options;
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    op.arg = (uint64_t)(uintptr_t)&rows;
    REFUSED(nvlx_transfer(engine, &op, 1, &options, &request), NVLX_EINVAL, "op 0 has rows");
    end_simply();
}

static void no_rows_move_nothing(void) {
    struct nvlx_rows none = {0, UINT64_MAX, 1}, one = {1, UINT64_MAX, 0};
    begin_simply();
    struct nvlx_op list[5] = {rows_op(NVLX_OP_READ, 512, &none), rows_op(NVLX_OP_READ, 0, &one),
                              make_op(NVLX_OP_READ, peer, memory + 1, remote, 0), rows_op(NVLX_OP_READ, 512, &none),
                              rows_op(NVLX_OP_READ, 512, &one)};
    list[0].local = list[1].local = NULL;
    list[3].remote = 1;
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_request *request = start(engine, list, 4);
    OK(nvlx_request_get_info(request, &info));
    EQUAL(0, info.bytes);
    finish(request);
    finish(start(engine, list, 5));
    uint8_t got[514];
    OK(nvlx_memcpy(engine, got, memory, sizeof got));
    EXPECT(got[0] == seed_byte(1, 0) && got[513] == seed_byte(1, 513));
    for (uint64_t i = 0; i < 512; i++)
        EQUAL(seed_byte(2, i), got[i + 1]);
    end_simply();
}

/* Of many rectangles none is in the way of the other, whoever carries them. */
static void many_rectangles_are_copied(void) {
    enum { MANY = 60 };
    struct nvlx_op list[MANY];
    struct nvlx_rows rows[MANY];
    begin_simply();
    for (uint32_t mechanism = 0; mechanism < 4; mechanism++) {
        fill(engine, memory, BYTES, 1);
        for (size_t i = 0; i < MANY; i++) {
            rows[i] = (struct nvlx_rows){2, 64, 128};
            list[i] = rows_op(NVLX_OP_READ, 50, &rows[i]);
            list[i].local = memory + 16 + i * 128;
            list[i].remote = remote + i * 200;
        }
        struct nvlx_transfer_options options;
        nvlx_transfer_options_init(&options);
        options.mechanism = mechanism;
        struct nvlx_request *request;
        OK(nvlx_transfer(engine, list, MANY, &options, &request));
        finish(request);
        uint8_t got[16 + MANY * 128];
        OK(nvlx_memcpy(engine, got, memory, sizeof got));
        for (size_t i = 16; i < sizeof got; i++) {
            const size_t at = (i - 16) % 64;
            EQUAL(at < 50 ? seed_byte(2, (i - 16) / 128 * 200 + (i - 16) / 64 % 2 * 128 + at) : seed_byte(1, i),
                  got[i]);
        }
    }
    end_simply();
}

/* A list uses the bytes of its rows, not those between them. */
static void only_rows_are_used(void) {
    struct nvlx_rows rows = {20, 4096, 512};
    struct nvlx_prepared *prepared;
    begin_simply();
    struct nvlx_op op = rows_op(NVLX_OP_READ, 512, &rows);
    struct nvlx_region *between = register_range(engine, memory + 1 + 512 + 4096, 4096 - 512, NULL, NVLX_ACCESS_NONE),
                       *over = register_range(engine, memory + 1 + 512 + 4096, 4096 - 511, NULL, NVLX_ACCESS_NONE);
    for (uint32_t mechanism = 1; mechanism < 4; mechanism++) {
        struct nvlx_transfer_options options;
        nvlx_transfer_options_init(&options);
        options.mechanism = mechanism;
        OK(nvlx_prepare(engine, &op, 1, &options, &prepared));
        GIVES(NVLX_EBUSY, nvlx_unregister(over, 0));
        OK(nvlx_unregister(between, 0));
        between = register_range(engine, memory + 1 + 512 + 4096, 4096 - 512, NULL, NVLX_ACCESS_NONE);
        OK(nvlx_prepared_free(prepared));
    }
    OK(nvlx_unregister(over, 0));
    end_simply();
}

/* Within one process the sides must not meet. */
static void rows_within_a_process(void) {
    struct nvlx_rows rows = {100, 1024, 1024};
    struct nvlx_request *request;
    char *text;
    size_t length;
    engine = make_engine(0);
    memory = allocate(engine, 0, BYTES, 1);
    register_range(engine, memory, BYTES, NULL, NVLX_ACCESS_READ_WRITE);
    OK(nvlx_export(engine, &text, &length));
    OK(nvlx_peer_open(engine, text, length, &peer));
    nvlx_text_free(text);
    remote = (uint64_t)(uintptr_t)memory + 512;
    struct nvlx_op op = rows_op(NVLX_OP_READ, 512, &rows);
    op.local = memory;
    finish(start(engine, &op, 1)); /* the right half of each row to its left half */
    uint8_t got[100 * 1024];
    OK(nvlx_memcpy(engine, got, memory, sizeof got));
    for (uint64_t i = 0; i < sizeof got; i++)
        EQUAL(seed_byte(1, i % 1024 < 512 ? i + 512 : i), got[i]);
    op.length = 513;
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), NVLX_EINVAL, "100 rows of 513 bytes at");
    op.remote = (uint64_t)(uintptr_t)memory;
    finish(start(engine, &op, 1)); /* stays where it is */
    OK(nvlx_engine_destroy(engine));
}

/* Ops that lie as rows do are one copy, unless one of them is refused; the message is the op's. */
static void flat_lists_are_rows(void) {
    enum { MANY = 4096, WIDTH = 512 };
    static struct nvlx_op list[MANY];
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    begin_simply();
    const size_t size = 2 * MANY * WIDTH;
    char *large = allocate(engine, 0, size, 1);
    register_range(engine, large, size, NULL, NVLX_ACCESS_NONE);
    owner_alloc(&owner, 1, 0, size + BYTES, 3); /* what is behind is not registered, whatever adjoins */
    owner_register(&owner, 1, 1, 0, size, NVLX_ACCESS_READ, "large");
    char *text = owner_export(&owner);
    OK(nvlx_peer_update(peer, text, strlen(text)));
    free(text);
    const uint64_t there = find(peer, "large");
    for (size_t i = 0; i < MANY; i++)
        list[i] = make_op(NVLX_OP_READ, peer, large + i * 2 * WIDTH, there + i * 2 * WIDTH, WIDTH);
    for (int way = 0; way < 2; way++) {
        fill(engine, large, size, 1);
        if (way == 0)
            OK(nvlx_transfer(engine, list, MANY, NULL, &request));
        else
            OK(nvlx_prepare(engine, list, MANY, NULL, &prepared));
        if (way == 1)
            OK(nvlx_post(prepared, NULL, &request));
        OK(nvlx_request_get_info(request, &info));
        EQUAL(MANY, info.ops);
        EQUAL(1, info.engine_fragments);
        EQUAL(0, info.sms);
        finish(request);
        EQUAL(0, wrong(engine, large, WIDTH, 3));
    }
    uint8_t *got = malloc(size);
    EXPECT(got != NULL);
    OK(nvlx_memcpy(engine, got, large, size));
    for (size_t i = 0; i < size; i++)
        EQUAL(seed_byte(i % (2 * WIDTH) < WIDTH ? 3 : 1, i), got[i]);
    free(got);
    for (size_t i = 0; i < MANY; i++)
        list[i].remote += size - (MANY / 2 + 1) * 2 * WIDTH;
    REFUSED(nvlx_transfer(engine, list, MANY, NULL, &request), NVLX_ERANGE, "op 2049: the peer's range");
    end_simply();
}

/* ---- The program ---------------------------------------------------------------------------------------- */

static size_t lists = LISTS_BY_DEFAULT;
static uint64_t first_seed = 1;

static void random_lists(void) {
    run_lists(sanitized() ? lists / 8 : lists, first_seed);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"refused_rows_are_named", refused_rows_are_named},
                                        {"wrong_fields_are_named", wrong_fields_are_named},
                                        {"no_rows_move_nothing", no_rows_move_nothing},
                                        {"many_rectangles_are_copied", many_rectangles_are_copied},
                                        {"only_rows_are_used", only_rows_are_used},
                                        {"rows_within_a_process", rows_within_a_process},
                                        {"flat_lists_are_rows", flat_lists_are_rows},
                                        {"random_lists", random_lists},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    if (argc == 3 && (lists = strtoul(argv[1], NULL, 10))) {
        begin_process(argc, argv, roles, 600);
        run_lists(lists, strtoul(argv[2], NULL, 10));
        return 0;
    }
    return run_tests(argc, argv, tests, roles, 60);
}
