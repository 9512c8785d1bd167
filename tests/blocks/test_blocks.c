/* Blocks by id: what a transfer moves, and what it refuses. Every byte is compared with a naive model. On the host
 * backend, with faults on demand. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "faulty_device.h"
#include "host_stream.h"

#define SIZE    MIB
#define REGIONS 12
#define IDS     64

static struct bench bench;
static struct nvlx_region *whole[2];

static void begin(void) {
    bench_begin(&bench, make_faulty_engine(0), SIZE);
    bench_register(&bench, SIZE, whole);
}

static void end(void) {
    bench_end(&bench);
}

/* ---- Tables ------------------------------------------------------------------------------------------- */

struct tables {
    struct nvlx_block_region local[REGIONS], remote[REGIONS];
    int buffer[REGIONS]; /* of both sides */
    size_t count;
};

static uint32_t below(uint64_t *state, uint32_t bound) {
    if (bound == 0)
        FAIL("no number is below 0");
    return next_random(state) % bound;
}

/* One side as engines have it: regions one after the other, or side by side in each block. */
static void lay_out(const struct tables *t, struct nvlx_block_region *side, const uint64_t base[2], uint32_t each,
                    const uint32_t *groups, const uint32_t *blocks, uint64_t *state) {
    const bool block_outer = below(state, 2);
    const uint64_t odd = below(state, 100);
    for (size_t i = 0; i < t->count; i++)
        side[i] = (struct nvlx_block_region){.base = base[t->buffer[i]] + odd +
                                                     (block_outer ? i * each : i * (uint64_t)each * IDS),
                                             .stride = block_outer ? (uint64_t)each * t->count : each,
                                             .blocks = blocks[groups[i]],
                                             .group = groups[i]};
}

static void choose_slices(struct tables *t, uint64_t *state, uint32_t local_each, uint32_t remote_each) {
    const uint32_t least = local_each < remote_each ? local_each : remote_each;
    const bool all = below(state, 3) == 0;
    for (size_t i = 0; i < t->count; i++) {
        const uint32_t length = all ? least : 1 + below(state, least);
        t->local[i].length = t->remote[i].length = length;
        t->local[i].offset = all ? 0 : below(state, local_each - length + 1);
        t->remote[i].offset = all ? 0 : below(state, remote_each - length + 1);
        if (below(state, 2) && !all) /* aligned alike */
            t->local[i].offset &= ~(uint64_t)15, t->remote[i].offset &= ~(uint64_t)15;
    }
}

/* Up to three groups; blocks of their own number on each side. */
static void make_tables(struct tables *t, uint64_t *state, bool spread) {
    const uint64_t local[2] = {(uint64_t)(uintptr_t)bench.local[0], (uint64_t)(uintptr_t)bench.local[1]};
    const uint32_t local_each = 1 + below(state, 900),
                   remote_each = below(state, 2) ? local_each : 1 + below(state, 900);
    uint32_t here[3], there[3], groups[REGIONS];
    memset(t, 0, sizeof *t);
    t->count = 1 + below(state, REGIONS);
    for (size_t i = 0; i < 3; i++) {
        here[i] = 1 + below(state, IDS);
        there[i] = below(state, 2) ? here[i] : 1 + below(state, IDS);
    }
    for (size_t i = 0; i < t->count; i++) {
        groups[i] = below(state, 3);
        t->buffer[i] = spread ? (int)below(state, 2) : 0;
    }
    lay_out(t, t->local, local, local_each, groups, here, state);
    lay_out(t, t->remote, bench.remote, remote_each, groups, there, state);
    choose_slices(t, state, local_each, remote_each);
}

static struct nvlx_blocks *create(const struct tables *t, uint32_t access) {
    return bench_tables(&bench, t->local, t->remote, t->count, access);
}

/* ---- Ids, and the model --------------------------------------------------------------------------------- */

struct ids {
    uint64_t wide[2][IDS];
    uint32_t narrow[2][IDS];
    struct nvlx_block_ids all;
};

/* Those of the side that is written are all different. */
static void choose_ids(struct ids *ids, uint64_t *state, const uint64_t blocks[2], uint32_t opcode) {
    const int written = opcode == NVLX_OP_READ ? 0 : 1;
    uint64_t all[IDS] = {0};
    nvlx_block_ids_init(&ids->all);
    ids->all.opcode = opcode;
    ids->all.width = below(state, 2) ? 4 : 8;
    ids->all.count = below(state, (uint32_t)blocks[written] + 1);
    for (size_t i = 0; i < blocks[written]; i++)
        all[i] = i;
    const bool in_order = below(state, 3) == 0;
    for (size_t i = 0; i < ids->all.count; i++) {
        const size_t other = in_order ? i : i + below(state, (uint32_t)(blocks[written] - i));
        const uint64_t id = all[other];
        all[other] = all[i];
        ids->wide[written][i] = id;
        ids->wide[!written][i] = in_order && id < blocks[!written] ? id : below(state, (uint32_t)blocks[!written]);
        for (int side = 0; side < 2; side++)
            ids->narrow[side][i] = (uint32_t)ids->wide[side][i];
    }
    ids->all.local = ids->all.width == 4 ? (void *)ids->narrow[0] : (void *)ids->wide[0];
    ids->all.remote = ids->all.width == 4 ? (void *)ids->narrow[1] : (void *)ids->wide[1];
}

static size_t apply(const struct tables *t, const struct ids *ids) {
    size_t number = 0, moved = 0;
    for (size_t i = 0; i < t->count; i++) {
        if (t->local[i].group != ids->all.group)
            continue;
        const size_t at = number++;
        if (at < ids->all.first_region || (ids->all.regions && at - ids->all.first_region >= ids->all.regions))
            continue;
        for (size_t j = 0; j < ids->all.count; j++) {
            const struct nvlx_block_region *l = &t->local[i], *r = &t->remote[i];
            const struct nvlx_op op = make_op(ids->all.opcode, bench.peer,
                                              (void *)(uintptr_t)(l->base + ids->wide[0][j] * l->stride + l->offset),
                                              r->base + ids->wide[1][j] * r->stride + r->offset, l->length);
            bench_apply(&bench, &op, 1);
            moved += l->length;
        }
    }
    return moved;
}

static struct nvlx_request *transfer(struct nvlx_blocks *blocks, const struct ids *ids,
                                     const struct nvlx_transfer_options *options) {
    struct nvlx_request *request;
    OK(nvlx_blocks_transfer(blocks, &ids->all, options, &request));
    return request;
}

static size_t regions_of(const struct tables *t, uint32_t group) {
    size_t count = 0;
    for (size_t i = 0; i < t->count; i++)
        count += t->local[i].group == group;
    return count;
}

static char *ids_on_gpu; /* two arrays of IDS ids, in memory that is not registered */

static void put_on_gpu(struct ids *ids) {
    const size_t each = sizeof ids->wide[0];
    OK(nvlx_memcpy(bench.engine, ids_on_gpu, ids->all.local, ids->all.count * ids->all.width));
    OK(nvlx_memcpy(bench.engine, ids_on_gpu + each, ids->all.remote, ids->all.count * ids->all.width));
    ids->all.flags = NVLX_IDS_ON_GPU;
    ids->all.local = ids_on_gpu;
    ids->all.remote = ids_on_gpu + each;
}

static void one_transfer(const struct tables *t, struct nvlx_blocks *blocks, uint64_t *state, uint32_t mechanism) {
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options;
    struct ids ids;
    const size_t region = below(state, (uint32_t)t->count), count = regions_of(t, t->local[region].group);
    const uint64_t both[2] = {t->local[region].blocks, t->remote[region].blocks};
    choose_ids(&ids, state, both, below(state, 2) ? NVLX_OP_READ : NVLX_OP_WRITE);
    ids.all.group = t->local[region].group;
    ids.all.first_region = below(state, 2) ? 0 : below(state, (uint32_t)count);
    ids.all.regions = below(state, 2) ? 0 : 1 + below(state, (uint32_t)count - ids.all.first_region);
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    if (ids_on_gpu && mechanism != NVLX_MECHANISM_COPY_ENGINE && ids.all.count && below(state, 2))
        put_on_gpu(&ids);
    struct nvlx_request *request = transfer(blocks, &ids, &options);
    memset(ids.narrow, 0xff, sizeof ids.narrow); /* read during the call */
    OK(nvlx_wait(request, PATIENCE));
    OK(nvlx_request_get_info(request, &info));
    OK(nvlx_request_free(request));
    EQUAL(apply(t, &ids), info.bytes);
}

/* ---- What a transfer moves ----------------------------------------------------------------------------- */

static void random_tables(bool spread, uint64_t state) {
    char when[64];
    begin();
    ids_on_gpu = spread ? NULL : allocate(bench.engine, 0, 2 * sizeof(uint64_t) * IDS, 0);
    for (int round = 0; round < (sanitized() ? 15 : 60); round++) {
        struct tables t;
        make_tables(&t, &state, spread);
        struct nvlx_blocks *blocks = create(&t, NVLX_ACCESS_READ_WRITE);
        for (uint32_t i = 0; i < 6; i++)
            one_transfer(&t, blocks, &state, i % 4);
        snprintf(when, sizeof when, "tables %d", round);
        bench_compare(&bench, when);
        OK(nvlx_blocks_free(blocks));
    }
    end();
}

static void random_tables_on_one_gpu(void) {
    random_tables(false, 1);
}

static void random_tables_on_two_gpus(void) {
    random_tables(true, 2);
}

/* A layout of LAYERS layers with COUNT blocks of EACH bytes, of which `length` are moved. */
enum { LAYERS = 8, PAGES = 32, EACH = 1024 };

static void make_layers(struct tables *t, uint64_t offset, uint64_t length) {
    memset(t, 0, sizeof *t);
    t->count = LAYERS;
    for (size_t i = 0; i < LAYERS; i++) {
        t->local[i] = (struct nvlx_block_region){.base = (uint64_t)(uintptr_t)bench.local[0] + i * PAGES * EACH,
                                                 .stride = EACH,
                                                 .length = length,
                                                 .blocks = PAGES};
        t->remote[i] = t->local[i];
        t->remote[i].base = bench.remote[0] + i * PAGES * EACH;
        t->remote[i].offset = offset;
    }
}

static void fill_ids(struct ids *ids, uint32_t count, uint32_t first) {
    nvlx_block_ids_init(&ids->all);
    ids->all.count = count;
    for (uint32_t i = 0; i < count; i++) {
        ids->narrow[0][i] = (first + i * 5) % PAGES;
        ids->narrow[1][i] = (first + i * 7 + 3) % PAGES;
        for (int side = 0; side < 2; side++)
            ids->wide[side][i] = ids->narrow[side][i];
    }
    ids->all.local = ids->narrow[0];
    ids->all.remote = ids->narrow[1];
}

static void one_launch_for_all_layers(void) {
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_transfer_options options;
    struct tables t;
    struct ids ids;
    begin();
    make_layers(&t, 512, 512);
    struct nvlx_blocks *blocks = create(&t, NVLX_ACCESS_READ);
    fill_ids(&ids, 20, 1);
    atomic_store(&faults.kernels, 0);
    atomic_store(&faults.launched, 0);
    nvlx_transfer_options_init(&options);
    options.max_sms = 3;
    struct nvlx_request *request = transfer(blocks, &ids, &options);
    OK(nvlx_wait(request, PATIENCE));
    OK(nvlx_request_get_info(request, &info));
    EQUAL(20 * LAYERS * 512, info.bytes);
    EQUAL(20 * LAYERS * 512, info.kernel_bytes);
    EQUAL(20 * LAYERS, info.kernel_fragments);
    EQUAL(20 * LAYERS, info.ops);
    EQUAL(3, info.sms);
    OK(nvlx_request_free(request));
    EQUAL(1, atomic_load(&faults.kernels));
    EQUAL(3, faults.launches[0].sms);
    apply(&t, &ids);
    bench_compare(&bench, "one launch");
    OK(nvlx_blocks_free(blocks));
    end();
}

static void nothing_to_move(void) {
    struct tables t;
    struct ids ids;
    begin();
    make_layers(&t, 0, EACH);
    struct nvlx_blocks *blocks = create(&t, NVLX_ACCESS_READ);
    fill_ids(&ids, 0, 0);
    struct nvlx_request *request = transfer(blocks, &ids, NULL);
    OK(nvlx_test(request));
    OK(nvlx_request_free(request));
    bench_compare(&bench, "nothing");
    OK(nvlx_blocks_free(blocks));
    OK(nvlx_blocks_free(NULL));
    end();
}

/* More ids than a chunk of list memory has room for, and more regions than a kernel takes. */
/* ---- What is refused -------------------------------------------------------------------------------------- */

static void refuse(struct nvlx_blocks *blocks, const struct nvlx_block_ids *ids,
                   const struct nvlx_transfer_options *options, int code, const char *words) {
    struct nvlx_request *none = NULL;
    REFUSED(nvlx_blocks_transfer(blocks, ids, options, &none), code, words);
    EXPECT(!none);
    EQUAL(0, engine_info(bench.engine).requests);
}

static void ids_out_of_range(void) {
    struct tables t;
    struct ids ids;
    begin();
    make_layers(&t, 0, EACH);
    struct nvlx_blocks *blocks = create(&t, NVLX_ACCESS_READ_WRITE);
    for (uint32_t mechanism = 0; mechanism < 4; mechanism++)
        for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++) {
            struct nvlx_transfer_options options;
            nvlx_transfer_options_init(&options);
            options.mechanism = mechanism;
            fill_ids(&ids, 20, 0);
            ids.all.opcode = opcode;
            ids.narrow[0][17] = PAGES;
            refuse(blocks, &ids.all, &options, NVLX_ERANGE, "local id 17 of group 0 is 32, and there are 32 blocks");
            ids.narrow[0][17] = 0, ids.narrow[1][19] = UINT32_MAX;
            refuse(blocks, &ids.all, &options, NVLX_ERANGE,
                   "remote id 19 of group 0 is 4294967295 (-1), and there are 32");
            ids.all.width = 8, ids.all.local = ids.wide[0], ids.all.remote = ids.wide[1];
            ids.wide[1][3] = UINT64_C(1) << 32; /* its lower half is good */
            refuse(blocks, &ids.all, &options, NVLX_ERANGE, "remote id 3 of group 0 is 4294967296");
        }
    bench_compare(&bench, "ids out of range");
    OK(nvlx_blocks_free(blocks));
    end();
}

static void expect_out_of_range(struct nvlx_blocks *blocks, const struct ids *ids, const char *words) {
    struct nvlx_request_info info = {.size = sizeof info};
    struct nvlx_request *request = transfer(blocks, ids, NULL);
    REFUSED(nvlx_wait(request, PATIENCE), NVLX_ERANGE, words);
    OK(nvlx_request_get_info(request, &info));
    EQUAL((uint32_t)NVLX_ERANGE, (uint32_t)info.status);
    EXPECT(strstr(info.error, words) != NULL);
    GIVES(NVLX_ERANGE, nvlx_request_free(request));
}

/* Found by the kernel: the pairs with such ids are left out. */
static void ids_on_the_gpu_out_of_range(void) {
    struct tables t;
    struct ids ids;
    begin();
    ids_on_gpu = allocate(bench.engine, 0, 2 * sizeof(uint64_t) * IDS, 0);
    make_layers(&t, 0, EACH);
    t.count = 2;
    struct nvlx_blocks *blocks = create(&t, NVLX_ACCESS_READ_WRITE);
    for (uint32_t opcode = NVLX_OP_READ; opcode <= NVLX_OP_WRITE; opcode++)
        for (uint32_t side = 0; side < 2; side++)
            for (uint32_t width = 4; width <= 8; width += 4) {
                const uint64_t bad = width == 4 ? UINT32_MAX : UINT64_C(1) << 32;
                char words[128];
                fill_ids(&ids, 20, opcode);
                ids.all.opcode = opcode;
                ids.all.width = width;
                ids.all.local = width == 4 ? (void *)ids.narrow[0] : (void *)ids.wide[0];
                ids.all.remote = width == 4 ? (void *)ids.narrow[1] : (void *)ids.wide[1];
                struct ids good = ids;
                ids.narrow[side][19] = UINT32_MAX;
                ids.wide[side][19] = bad;
                good.all.count = 19;
                put_on_gpu(&ids);
                snprintf(words, sizeof words,
                         "%s id 19, which was on the GPU, is %" PRIu64 "%s, and there are 32 blocks",
                         side ? "remote" : "local", bad, width == 4 ? " (-1)" : "");
                expect_out_of_range(blocks, &ids, words);
                apply(&t, &good);
                bench_compare(&bench, words);
            }
    fill_ids(&ids, 20, 0);
    ids.narrow[0][0] = PAGES; /* the first that is none */
    put_on_gpu(&ids);
    expect_out_of_range(blocks, &ids, "local id 0");
    OK(nvlx_blocks_free(blocks));
    end();
}

/* What is in the stream writes them. */
static void ids_from_the_stream(void) {
    struct nvlx_transfer_options options;
    struct stream stream;
    struct tables t;
    struct ids ids;
    begin();
    open_stream(&stream);
    ids_on_gpu = allocate(bench.engine, 0, 2 * sizeof(uint64_t) * IDS, 0xff);
    make_layers(&t, 0, EACH);
    struct nvlx_blocks *blocks = create(&t, NVLX_ACCESS_READ);
    nvlx_transfer_options_init(&options);
    options.stream = stream.lane;
    for (uint32_t round = 0; round < 5; round++) {
        fill_ids(&ids, 20, round);
        stream_stands_still(&stream);
        stream_copy(&stream, ids_on_gpu, ids.narrow[0], sizeof ids.narrow[0]);
        stream_copy(&stream, ids_on_gpu + sizeof ids.wide[0], ids.narrow[1], sizeof ids.narrow[1]);
        ids.all.flags = NVLX_IDS_ON_GPU;
        ids.all.local = ids_on_gpu, ids.all.remote = ids_on_gpu + sizeof ids.wide[0];
        struct nvlx_request *request = transfer(blocks, &ids, &options);
        GIVES(NVLX_EAGAIN, nvlx_test(request));
        stream_goes_on(&stream);
        stream_end(&stream);
        finish(request);
        apply(&t, &ids);
        bench_compare(&bench, "ids from the stream");
    }
    OK(nvlx_blocks_free(blocks));
    close_stream(&stream);
    end();
}

static void ids_on_the_gpu_that_are_refused(void) {
    struct nvlx_transfer_options options;
    struct tables t;
    struct ids ids;
    begin();
    ids_on_gpu = allocate(bench.engine, 0, 2 * sizeof(uint64_t) * IDS, 0);
    make_layers(&t, 0, EACH);
    struct nvlx_blocks *blocks = create(&t, NVLX_ACCESS_READ);
    fill_ids(&ids, 4, 0);
    struct nvlx_block_ids one = ids.all;
    one.flags = NVLX_IDS_ON_GPU;
    refuse(blocks, &one, NULL, NVLX_EINVAL, "not all of them are on GPU 0");
    put_on_gpu(&ids);
    nvlx_transfer_options_init(&options);
    options.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    refuse(blocks, &ids.all, &options, NVLX_ENOTSUP, "read by kernels alone");
    one = ids.all, one.local = (char *)one.local + 1;
    refuse(blocks, &one, NULL, NVLX_EINVAL, "not aligned to their 4 bytes");
    if (second_gpu()) {
        one = ids.all, one.remote = bench.local[1];
        refuse(blocks, &one, NULL, NVLX_EINVAL, "not all of them are on GPU 0");
    }
    OK(nvlx_blocks_free(blocks));
    t.local[1].base = (uint64_t)(uintptr_t)bench.local[1], t.remote[1].base = bench.remote[1];
    blocks = create(&t, NVLX_ACCESS_READ);
    refuse(blocks, &ids.all, NULL, NVLX_ENOTSUP, "no kernel can copy these regions");
    bench_compare(&bench, "refused");
    OK(nvlx_blocks_free(blocks));
    end();
}

static void transfers_that_are_refused(void) {
    struct nvlx_transfer_options options;
    struct nvlx_request *request;
    struct tables t;
    struct ids ids;
    begin();
    make_layers(&t, 0, EACH);
    t.local[0].group = t.remote[0].group = 7;
    struct nvlx_blocks *blocks = create(&t, NVLX_ACCESS_READ);
    fill_ids(&ids, 4, 0);
    struct nvlx_block_ids one = ids.all;
    one.group = 3;
    refuse(blocks, &one, NULL, NVLX_EINVAL, "no region of the tables is of group 3");
    one.group = 7, one.first_region = 1;
    refuse(blocks, &one, NULL, NVLX_EINVAL, "regions 1 + 0 of group 7, which has 1");
    one.first_region = 0, one.regions = 2;
    refuse(blocks, &one, NULL, NVLX_EINVAL, "regions 0 + 2 of group 7, which has 1");
    one = ids.all, one.opcode = NVLX_OP_WRITE;
    refuse(blocks, &one, NULL, NVLX_EACCES, "made for reading alone");
    one.opcode = 3;
    refuse(blocks, &one, NULL, NVLX_EINVAL, "opcode 3");
    one = ids.all, one.width = 2;
    refuse(blocks, &one, NULL, NVLX_EINVAL, "ids of 2 bytes");
    one = ids.all, one.flags = 2;
    refuse(blocks, &one, NULL, NVLX_EINVAL, "flags 0x2");
    one = ids.all, one.remote = NULL;
    refuse(blocks, &one, NULL, NVLX_EINVAL, "ids.remote is NULL");
    refuse(blocks, NULL, NULL, NVLX_EINVAL, "ids is NULL");
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    refuse(blocks, &ids.all, &options, NVLX_ENOTSUP, "digests of whole regions");
    options.flags = NVLX_NO_MAP;
    refuse(blocks, &ids.all, &options, NVLX_EINVAL, "only NVLX_DONE_EVENT");
    options.flags = 0, options.generation = 1;
    refuse(blocks, &ids.all, &options, NVLX_EINVAL, "option of nvlx_blocks_create");
    options.generation = 0, options.stream = (void *)(uintptr_t)0x1234;
    refuse(blocks, &ids.all, &options, NVLX_ENOTSUP, "0x1234");
    REFUSED(nvlx_blocks_transfer(NULL, &ids.all, NULL, &request), NVLX_EINVAL, "blocks is NULL");
    REFUSED(nvlx_blocks_transfer(blocks, &ids.all, NULL, NULL), NVLX_EINVAL, "request is NULL");
    atomic_store(&faults.copies, true);
    request = transfer(blocks, &ids, NULL);
    REFUSED(nvlx_wait(request, PATIENCE), NVLX_EDEVICE, "broke on purpose");
    GIVES(NVLX_EDEVICE, nvlx_request_free(request));
    atomic_store(&faults.copies, false);
    bench_compare(&bench, "refused");
    OK(nvlx_blocks_free(blocks));
    end();
}

static void refuse_tables(const struct tables *t, int code, const char *words) {
    struct nvlx_blocks *none = NULL;
    struct nvlx_blocks_options options;
    nvlx_blocks_options_init(&options);
    options.access = NVLX_ACCESS_READ_WRITE;
    REFUSED(nvlx_blocks_create(bench.engine, bench.peer, t->local, t->remote, t->count, &options, &none), code, words);
    EXPECT(!none);
}

static void tables_that_are_refused(void) {
    struct tables good, t;
    begin();
    make_layers(&good, 0, EACH / 2);
    t = good, t.local[3].base = (uint64_t)(uintptr_t)bench.local[0] + SIZE - 31 * EACH - EACH / 2;
    OK(nvlx_blocks_free(create(&t, NVLX_ACCESS_READ_WRITE))); /* it ends with the buffer, in the last block's stride */
    t.local[3].base++;
    refuse_tables(&t, NVLX_ERANGE, "region 3, local block 31 and remote block 31 or later: local range");
    t = good, t.remote[5].base = 4096;
    refuse_tables(&t, NVLX_ERANGE, "region 5, local block 0 and remote block 0 or later: the peer's range");
    t = good, t.remote[2].offset = EACH / 2 + 1;
    refuse_tables(&t, NVLX_EINVAL, "remote region 2: 512 bytes from offset 513 on leave the block, which is 1024");
    t = good, t.local[1].length = 10;
    refuse_tables(&t, NVLX_EINVAL, "region 1: the local side has 10 bytes of a block, the remote side 512");
    t = good, t.local[1].group = 4;
    refuse_tables(&t, NVLX_EINVAL, "region 1: the local side is of group 4, the remote side of group 0");
    t = good, t.local[1].blocks = 31;
    refuse_tables(&t, NVLX_EINVAL, "region 1 has 31 blocks here and 32 there, region 0 of the same group 32 and 32");
    t = good, t.local[1].blocks = 0;
    refuse_tables(&t, NVLX_EINVAL, "local region 1 has 0 blocks");
    t = good, t.remote[1].blocks = UINT64_C(1) << 32;
    refuse_tables(&t, NVLX_EINVAL, "remote region 1 has 4294967296 blocks");
    t = good, t.remote[7].stride = UINT64_MAX / 2;
    refuse_tables(&t, NVLX_EINVAL, "remote region 7: 32 blocks from");
    t = good, t.remote[7].flags = 1;
    refuse_tables(&t, NVLX_EINVAL, "remote region 7: flags must be 0");
    t = good, t.count = 0;
    refuse_tables(&t, NVLX_EINVAL, "0 regions");
    EQUAL(0, engine_info(bench.engine).requests);
    for (int i = 0; i < 2; i++)
        OK(nvlx_unregister(whole[i], 0)); /* what is refused keeps nothing */
    OK(nvlx_peer_close(bench.peer));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"random_tables_on_one_gpu", random_tables_on_one_gpu},
                                        {"random_tables_on_two_gpus", random_tables_on_two_gpus},
                                        {"one_launch_for_all_layers", one_launch_for_all_layers},

                                        {"nothing_to_move", nothing_to_move},

                                        {"ids_out_of_range", ids_out_of_range},
                                        {"ids_on_the_gpu_out_of_range", ids_on_the_gpu_out_of_range},
                                        {"ids_from_the_stream", ids_from_the_stream},
                                        {"ids_on_the_gpu_that_are_refused", ids_on_the_gpu_that_are_refused},
                                        {"transfers_that_are_refused", transfers_that_are_refused},
                                        {"tables_that_are_refused", tables_that_are_refused},
                                        {0}};
    static const struct role roles[] = {OWNER_ROLE, {0}};
    return run_tests(argc, argv, tests, roles, 20);
}
