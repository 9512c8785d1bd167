/* Memory that its owner frees without telling the library: the next call that could know it withdraws it, so that
 * peers get new bytes or an error. SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "api/engine.h"
#include "rendezvous_support.h"
#include "support.h"

#define SIZE   (64 * KIB)
#define PATH   108 /* bytes of an address */
#define ROUNDS 1000

/* ---- The reader: another process ----------------------------------------------------------------------- */

struct question { /* reads the region of this name, when the generation is known */
    uint64_t generation;
    uint32_t seed;
    char name[16];
};

struct answer {
    int found, moved;
    uint64_t wrong;
};

static struct answer read_named(struct nvlx_engine *engine, struct nvlx_peer *peer, char *local,
                                const struct question *question) {
    struct answer answer = {0};
    struct nvlx_request *request;
    uint64_t there = 0, length;
    OK(nvlx_peer_sync(peer, question->generation, PATIENCE));
    answer.found = nvlx_peer_find(peer, question->name, &there, &length);
    if (answer.found)
        return answer;
    const struct nvlx_op op = make_op(NVLX_OP_READ, peer, local, there, SIZE);
    answer.moved = nvlx_transfer(engine, &op, 1, NULL, &request);
    if (answer.moved)
        return answer;
    finish(request);
    answer.wrong = wrong(engine, local, SIZE, question->seed);
    return answer;
}

static void reader_role(int socket) {
    struct nvlx_engine *engine = make_engine(0);
    char *local = allocate(engine, second_gpu(), SIZE, 0), path[PATH];
    struct question question;
    register_range(engine, local, SIZE, NULL, NVLX_ACCESS_NONE);
    get(socket, path, sizeof path);
    struct nvlx_peer *peer = connect_to(engine, path);
    while (get_or_end(socket, &question, sizeof question)) {
        const struct answer answer = read_named(engine, peer, local, &question);
        put(socket, &answer, sizeof answer);
    }
    OK(nvlx_engine_destroy(engine));
}

static void start_reader(struct child *reader) {
    char path[PATH] = "";
    snprintf(path, sizeof path, "%s", own_path());
    child_start(reader, "reader");
    put(reader->socket, path, sizeof path);
}

static struct answer ask(struct child *reader, uint64_t generation, const char *name, uint32_t seed) {
    struct question question = {.generation = generation, .seed = seed};
    struct answer answer;
    snprintf(question.name, sizeof question.name, "%s", name);
    put(reader->socket, &question, sizeof question);
    get(reader->socket, &answer, sizeof answer);
    return answer;
}

static void expect_bytes(struct child *reader, uint64_t generation, const char *name, uint32_t seed) {
    const struct answer answer = ask(reader, generation, name, seed);
    OK(answer.found);
    OK(answer.moved);
    EQUAL(0, answer.wrong);
}

static void expect_none(struct child *reader, uint64_t generation, const char *name) {
    EQUAL((uint64_t)(int64_t)NVLX_ENOENT, (uint64_t)(int64_t)ask(reader, generation, name, 0).found);
}

/* ---- The owner, and memory that the library does not know of ------------------------------------------- */

static struct nvlx_engine *owner;

static char *plain_alloc(uint32_t kind, uint32_t seed) {
    const struct nvlxi_alloc alloc = {.length = SIZE, .kind = kind};
    void *address;
    OK(owner->context.ops->alloc(owner->context.device, &alloc, &address));
    fill(owner, address, SIZE, seed);
    return address;
}

static void plain_free(char *address) {
    OK(owner->context.ops->free(owner->context.device, address));
}

static void begin(void) {
    owner = make_engine(0);
    OK(nvlx_serve(owner, own_path(), NULL));
}

static uint64_t publish(void) {
    uint64_t generation;
    OK(nvlx_publish(owner, &generation));
    return generation;
}

static atomic_int lines;

static void count_lines(void *context, int level, const char *message) {
    (void)context;
    (void)level;
    atomic_fetch_add(&lines, strstr(message, "no longer used") != NULL);
}

/* ---- Tests --------------------------------------------------------------------------------------------- */

/* Every other round the region is unregistered before its memory is freed. */
static void rounds_of(uint32_t kind) {
    struct nvlx_region *region = NULL, *old;
    struct child reader;
    char names[2][16] = {"even", "odd"}, *memory = NULL, *before;
    uint64_t generation;
    size_t same = 0;
    begin();
    start_reader(&reader);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const char *name = names[round % 2], *older = names[(round + 1) % 2];
        const bool told = round % 4 < 2;
        before = memory;
        old = region;
        if (old && told)
            OK(nvlx_unregister(old, PATIENCE));
        if (before)
            plain_free(before);
        memory = plain_alloc(kind, round);
        same += memory == before;
        region = register_range(owner, memory, SIZE, name, NVLX_ACCESS_READ);
        generation = publish();
        expect_bytes(&reader, generation, name, round);
        expect_none(&reader, generation, older);
        if (old && !told)
            OK(nvlx_unregister(old, PATIENCE));
    }
    EXPECT(same > ROUNDS / 2);
    child_end(&reader);
    OK(nvlx_engine_destroy(owner));
}

static void rounds_of_cuda_malloc(void) {
    rounds_of(NVLXI_KIND_CUDA_MALLOC);
}

static void rounds_of_chunks(void) {
    rounds_of(NVLXI_KIND_VMM);
}

/* nvlx_check sees what was freed, and nvlx_publish too: one line, and peers have it no more. */
static void a_look_withdraws(void) {
    struct nvlx_region *regions[4];
    char *memory[4], name[16];
    struct child reader;
    uint64_t generation;
    OK(nvlx_set_log(NVLX_LOG_WARNING, count_lines, NULL));
    begin();
    for (uint32_t i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "r%u", (unsigned)i);
        memory[i] = plain_alloc(NVLXI_KIND_CUDA_MALLOC, i);
        regions[i] = register_range(owner, memory[i], SIZE, name, NVLX_ACCESS_READ);
    }
    start_reader(&reader);
    expect_bytes(&reader, generation = publish(), "r3", 3);
    OK(nvlx_check(owner));
    EQUAL(0, atomic_load(&lines));
    EQUAL(generation, publish());
    plain_free(memory[0]);
    plain_free(memory[1]);
    OK(nvlx_check(owner));
    EQUAL(1, atomic_load(&lines));
    OK(nvlx_check(owner));
    EQUAL(1, atomic_load(&lines));
    expect_none(&reader, publish(), "r0");
    plain_free(memory[2]);
    expect_none(&reader, publish(), "r2");
    EQUAL(2, atomic_load(&lines));
    expect_bytes(&reader, publish(), "r3", 3);
    for (uint32_t i = 0; i < 4; i++)
        OK(nvlx_unregister(regions[i], PATIENCE));
    plain_free(memory[3]);
    child_end(&reader);
    OK(nvlx_engine_destroy(owner));
}

/* Who connects is never told of it. */
static void who_comes_later_is_not_told(void) {
    struct child first, second;
    struct nvlx_engine *late;
    uint64_t address, length;
    begin();
    char *memory = plain_alloc(NVLXI_KIND_CUDA_MALLOC, 1);
    register_range(owner, memory, SIZE, "r", NVLX_ACCESS_READ);
    start_reader(&first);
    expect_bytes(&first, publish(), "r", 1);
    plain_free(memory);
    late = make_engine(0);
    struct nvlx_peer *peer = connect_to(late, own_path());
    REFUSED(nvlx_peer_find(peer, "r", &address, &length), NVLX_ENOENT, "r");
    start_reader(&second);
    expect_none(&second, 0, "r");
    OK(nvlx_engine_destroy(late));
    child_end(&first);
    child_end(&second);
    OK(nvlx_engine_destroy(owner));
}

/* A register that fails has seen it all the same. */
static void a_failed_register_tells(void) {
    struct nvlx_region_options options;
    struct nvlx_engine *client = make_engine(0);
    struct nvlx_region *none;
    begin();
    char *memory = plain_alloc(NVLXI_KIND_CUDA_MALLOC, 1), *other = plain_alloc(NVLXI_KIND_CUDA_MALLOC, 2);
    register_range(owner, memory, SIZE, "r", NVLX_ACCESS_READ);
    struct nvlx_peer *peer = connect_to(client, own_path());
    await_name(peer, "r");
    plain_free(memory);
    char *again = plain_alloc(NVLXI_KIND_CUDA_MALLOC, 3);
    EXPECT(again == memory);
    nvlx_region_options_init(&options);
    options.name = "r";
    REFUSED(nvlx_register(owner, again, SIZE, &options, &none), NVLX_EEXIST, "taken");
    await_no_name(peer, "r");
    plain_free(again);
    plain_free(other);
    OK(nvlx_engine_destroy(client));
    OK(nvlx_engine_destroy(owner));
}

/* While changes are held back, what was freed is told with them. */
static void held_back_with_the_rest(void) {
    struct child reader;
    begin();
    char *memory = plain_alloc(NVLXI_KIND_CUDA_MALLOC, 1);
    register_range(owner, memory, SIZE, "r", NVLX_ACCESS_READ);
    start_reader(&reader);
    expect_bytes(&reader, publish(), "r", 1);
    OK(nvlx_hold(owner));
    plain_free(memory);
    OK(nvlx_check(owner));
    expect_none(&reader, publish(), "r");
    child_end(&reader);
    OK(nvlx_engine_destroy(owner));
}

static void wrong_arguments(void) {
    REFUSED(nvlx_check(NULL), NVLX_EINVAL, "engine");
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"rounds_of_cuda_malloc", rounds_of_cuda_malloc},
                                        {"rounds_of_chunks", rounds_of_chunks},
                                        {"a_look_withdraws", a_look_withdraws},
                                        {"who_comes_later_is_not_told", who_comes_later_is_not_told},
                                        {"a_failed_register_tells", a_failed_register_tells},
                                        {"held_back_with_the_rest", held_back_with_the_rest},
                                        {"wrong_arguments", wrong_arguments},
                                        {NULL, NULL}};
    static const struct role roles[] = {OWNER_ROLE, {"reader", reader_role}, {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 60);
}
