/* What calls say to arguments that are wrong, and to structs of older and newer callers.
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#define SIZE (64 * KIB)

static struct nvlx_engine *engine;
static char *memory; /* SIZE bytes on GPU 0 */

static void begin(void) {
    engine = make_engine(0);
    memory = allocate(engine, 0, SIZE, 1);
}

static void end(void) {
    OK(nvlx_engine_destroy(engine));
}

static void refuse_range(const void *address, size_t length, int code, const char *words) {
    struct nvlx_region *none = (struct nvlx_region *)&engine;
    REFUSED(nvlx_register(engine, address, length, NULL, &none), code, words);
    EXPECT(none == (struct nvlx_region *)&engine);
    EQUAL(0, engine_info(engine).segments);
}

/* Both ends are in the message: the range's and the allocation's. */
static void ranges_beyond_the_segment(void) {
    char from[32], to[32];
    begin();
    snprintf(to, sizeof to, "0x%" PRIx64, (uint64_t)(uintptr_t)memory + SIZE);
    for (size_t beyond = 1; beyond < 100000000; beyond *= 7) {
        snprintf(from, sizeof from, "0x%" PRIx64, (uint64_t)(uintptr_t)memory + SIZE + beyond);
        refuse_range(memory + SIZE - 10, 10 + beyond, NVLX_ERANGE, from);
        refuse_range(memory + SIZE - 10, 10 + beyond, NVLX_ERANGE, to);
        refuse_range(memory, SIZE + beyond, NVLX_ERANGE, to);
    }
    refuse_range(memory, SIZE_MAX, NVLX_EINVAL, "wraps");
    refuse_range(memory + 1, SIZE_MAX - (uintptr_t)memory, NVLX_EINVAL, "wraps");
    refuse_range((void *)UINTPTR_MAX, 1, NVLX_EINVAL, "wraps");
    register_range(engine, memory, SIZE, NULL, NVLX_ACCESS_READ);
    register_range(engine, memory + SIZE - 1, 1, NULL, NVLX_ACCESS_READ);
    EQUAL(2, engine_info(engine).regions);
    end();
}

static void host_memory_is_refused(void) {
    static char constant[100];
    char local[100];
    begin();
    char *heap = malloc(100);
    const char *all[] = {constant, local, heap, (char *)(uintptr_t)4096};
    for (size_t i = 0; i < COUNT(all); i++) {
        refuse_range(all[i], 50, NVLX_ENOTSUP, "host memory");
        refuse_range(all[i], 50, NVLX_ENOTSUP, "use memory of nvlx_alloc");
    }
    free(heap);
    refuse_range(NULL, 50, NVLX_EINVAL, "address is NULL");
    register_range(engine, NULL, 0, NULL, NVLX_ACCESS_READ);
    end();
}

/* ---- Structs that callers fill ------------------------------------------------------------------------- */

static int create_with(const void *config) {
    struct nvlx_engine *made;
    int code = nvlx_engine_create(config, &made);
    return code ? code : nvlx_engine_destroy(made);
}

static int alloc_with(const void *options) {
    void *address;
    int code = nvlx_alloc(engine, 0, 100, options, &address);
    return code ? code : nvlx_free(engine, address);
}

static int register_with(const void *options) {
    struct nvlx_region *region;
    int code = nvlx_register(engine, memory, 100, options, &region);
    return code ? code : nvlx_unregister(region, 0);
}

static int transfer_with(const void *options) {
    struct nvlx_request *request;
    int code = nvlx_transfer(engine, NULL, 0, options, &request);
    return code ? code : nvlx_request_free(request);
}

static int prepare_with(const void *options) {
    struct nvlx_prepared *prepared;
    int code = nvlx_prepare(engine, NULL, 0, options, &prepared);
    return code ? code : nvlx_prepared_free(prepared);
}

static int post_with(const void *options) {
    struct nvlx_prepared *prepared;
    struct nvlx_request *request;
    OK(nvlx_prepare(engine, NULL, 0, NULL, &prepared));
    int code = nvlx_post(prepared, options, &request);
    if (!code)
        OK(nvlx_request_free(request));
    OK(nvlx_prepared_free(prepared));
    return code;
}

struct given {
    int (*call)(const void *options);
    size_t size;
    const char *name;
};

/* As this version has it, then with a tail that it does not know; and shorter, as an older caller has it. */
static void structs_of_all_ages(void) {
    static const struct given all[] = {{create_with, sizeof(struct nvlx_config), "nvlx_config"},
                                       {alloc_with, sizeof(struct nvlx_alloc_options), "nvlx_alloc_options"},
                                       {register_with, sizeof(struct nvlx_region_options), "nvlx_region_options"},
                                       {transfer_with, sizeof(struct nvlx_transfer_options), "nvlx_transfer_options"},
                                       {prepare_with, sizeof(struct nvlx_transfer_options), "nvlx_transfer_options"},
                                       {post_with, sizeof(struct nvlx_transfer_options), "nvlx_transfer_options"}};
    union {
        size_t size;
        char bytes[200];
    } given;
    char words[64];
    begin();
    for (const struct given *one = all; one < all + COUNT(all); one++) {
        memset(&given, 0, sizeof given);
        OK(one->call(NULL));
        for (given.size = sizeof given.size; given.size <= sizeof given; given.size++) {
            if (given.size % sizeof given.size == 0)
                OK(one->call(&given));
            else /* inside a pointer, say */
                REFUSED(one->call(&given), NVLX_EINVAL, one->name);
        }
        snprintf(words, sizeof words, "struct %s sets byte %zu", one->name, one->size + 40);
        given.bytes[one->size + 40] = 1;
        given.size = sizeof given;
        REFUSED(one->call(&given), NVLX_ENOTSUP, words);
        given.size = one->size + 40; /* what is behind the struct is not looked at */
        OK(one->call(&given));
        for (given.size = 0; given.size < sizeof given.size; given.size++)
            REFUSED(one->call(&given), NVLX_EINVAL, one->name);
        given.size = SIZE_MAX;
        REFUSED(one->call(&given), NVLX_EINVAL, "init function");
    }
    end();
}

/* An older caller's struct ends before `access`: what lies there is not the caller's word on it. */
static void missing_tails_take_the_defaults(void) {
    struct nvlx_region_options options = {.access = NVLX_ACCESS_NONE, .name = "old"};
    struct nvlx_region *region;
    begin();
    options.size = offsetof(struct nvlx_region_options, access);
    OK(nvlx_register(engine, memory, 100, &options, &region));
    struct nvlx_peer *self = peer_of(engine, engine);
    struct nvlx_op op = make_op(NVLX_OP_READ, self, memory, find(self, "old"), 0);
    finish(start(engine, &op, 1));
    move(engine, NVLX_OP_WRITE, self, memory + 50, find(self, "old"), 50);
    EQUAL(seed_byte(1, 50), (uint8_t)memory[0]);
    end();
}

/* A text that was cut would have no end. */
static void texts_are_filled_whole(void) {
    struct nvlx_request_info info;
    struct nvlx_request *request;
    begin();
    OK(nvlx_transfer(engine, NULL, 0, NULL, &request));
    memset(&info, 77, sizeof info);
    for (info.size = sizeof info - 8; info.size > offsetof(struct nvlx_request_info, error); info.size -= 8)
        REFUSED(nvlx_request_get_info(request, &info), NVLX_EINVAL, "inside an array");
    EQUAL(77, info.error[0]);
    OK(nvlx_request_get_info(request, &info)); /* an older caller's, which ends before */
    EQUAL(77, info.error[0]);
    info.size = sizeof info;
    OK(nvlx_request_get_info(request, &info));
    EQUAL(0, info.error[0]);
    OK(nvlx_request_free(request));
    end();
}

static void structs_that_are_filled(void) {
    struct { /* an older caller's, and what follows it */
        struct nvlx_engine_info info;
        char guard[100];
    } given;
    begin();
    register_range(engine, memory, 10, NULL, NVLX_ACCESS_READ);
    memset(&given, 77, sizeof given);
    given.info.size = offsetof(struct nvlx_engine_info, handles_exported);
    OK(nvlx_engine_get_info(engine, &given.info));
    EQUAL(offsetof(struct nvlx_engine_info, handles_exported), given.info.size);
    EXPECT(given.info.segments == 1 && given.info.regions == 1 && (char)given.info.handles_exported == 77);
    given.info.size = sizeof given;
    OK(nvlx_engine_get_info(engine, &given.info));
    EQUAL(1, given.info.handles_exported);
    EXPECT(given.guard[0] == 0 && given.guard[99] == 0); /* a newer caller's fields are 0 */
    given.info.size = offsetof(struct nvlx_engine_info, handles_exported) + 1;
    REFUSED(nvlx_engine_get_info(engine, &given.info), NVLX_EINVAL, "as in no version");
    given.info.size = 0;
    REFUSED(nvlx_engine_get_info(engine, &given.info), NVLX_EINVAL, "size 0");
    REFUSED(nvlx_engine_get_info(engine, NULL), NVLX_EINVAL, "nvlx_engine_info is NULL");
    REFUSED(nvlx_engine_get_info(NULL, &given.info), NVLX_EINVAL, "engine is NULL");
    end();
}

/* ---- Arguments ----------------------------------------------------------------------------------------- */

static void memcpy_sides(void) {
    char bytes[16] = "0123456789";
    begin();
    REFUSED(nvlx_memcpy(engine, bytes, bytes + 1, 4), NVLX_EINVAL, "overlap");
    REFUSED(nvlx_memcpy(engine, bytes + 3, bytes, 4), NVLX_EINVAL, "overlap");
    REFUSED(nvlx_memcpy(engine, memory + 1, memory, 2), NVLX_EINVAL, "overlap");
    OK(nvlx_memcpy(engine, memory, memory, 4));
    OK(nvlx_memcpy(engine, bytes, bytes + 4, 4));
    EXPECT(!memcmp(bytes, "4567456789", 10));
    REFUSED(nvlx_memcpy(engine, bytes, memory + SIZE - 4, 5), NVLX_ERANGE, "leave their allocation");
    REFUSED(nvlx_memcpy(engine, memory + SIZE - 4, bytes, 5), NVLX_ERANGE, "leave their allocation");
    OK(nvlx_memcpy(engine, memory + SIZE - 4, bytes, 4));
    end();
}

static void pointers(void) {
    void *address;
    char *text;
    size_t length;
    struct nvlx_region *region;
    struct nvlx_peer *peer;
    begin();
    REFUSED(nvlx_engine_create(NULL, NULL), NVLX_EINVAL, "engine is NULL");
    REFUSED(nvlx_gpu_count(NVLX_BACKEND_HOST, NULL), NVLX_EINVAL, "count is NULL");
    REFUSED(nvlx_alloc(NULL, 0, 1, NULL, &address), NVLX_EINVAL, "engine is NULL");
    REFUSED(nvlx_alloc(engine, 0, 1, NULL, NULL), NVLX_EINVAL, "address is NULL");
    REFUSED(nvlx_free(NULL, memory), NVLX_EINVAL, "engine is NULL");
    REFUSED(nvlx_memcpy(engine, NULL, memory, 1), NVLX_EINVAL, "destination is NULL");
    REFUSED(nvlx_memcpy(engine, memory, NULL, 1), NVLX_EINVAL, "source is NULL");
    REFUSED(nvlx_register(NULL, memory, 1, NULL, &region), NVLX_EINVAL, "engine is NULL");
    REFUSED(nvlx_register(engine, memory, 1, NULL, NULL), NVLX_EINVAL, "region is NULL");
    REFUSED(nvlx_unregister(NULL, 0), NVLX_EINVAL, "region is NULL");
    REFUSED(nvlx_export(NULL, &text, &length), NVLX_EINVAL, "engine is NULL");
    REFUSED(nvlx_export(engine, NULL, &length), NVLX_EINVAL, "text is NULL");
    REFUSED(nvlx_export(engine, &text, NULL), NVLX_EINVAL, "length is NULL");
    REFUSED(nvlx_peer_open(NULL, "{}", 2, &peer), NVLX_EINVAL, "engine is NULL");
    REFUSED(nvlx_peer_open(engine, NULL, 2, &peer), NVLX_EINVAL, "text is NULL");
    REFUSED(nvlx_peer_open(engine, "{}", 2, NULL), NVLX_EINVAL, "peer is NULL");
    REFUSED(nvlx_peer_update(NULL, "{}", 2), NVLX_EINVAL, "peer is NULL");
    REFUSED(nvlx_peer_map(NULL, 0, 0, 1), NVLX_EINVAL, "peer is NULL");
    REFUSED(nvlx_peer_wake(NULL), NVLX_EINVAL, "peer is NULL");
    REFUSED(nvlx_test(NULL), NVLX_EINVAL, "request is NULL");
    REFUSED(nvlx_wait(NULL, 0), NVLX_EINVAL, "request is NULL");
    OK(nvlx_memcpy(engine, NULL, NULL, 0));
    OK(nvlx_free(engine, NULL));
    OK(nvlx_peer_close(NULL));
    OK(nvlx_request_free(NULL));
    OK(nvlx_prepared_free(NULL));
    OK(nvlx_engine_destroy(NULL));
    nvlx_text_free(NULL);
    EXPECT(!strcmp(nvlx_backend_name(NULL), ""));
    end();
}

static int warnings;

static void count_warnings(void *context, int level, const char *message) {
    (void)context, (void)message;
    warnings += level <= NVLX_LOG_WARNING;
}

/* What is asked in order to know, again and again, does not fill a log; what is wrong is told once. */
static void asking_is_not_logged(void) {
    struct nvlx_peer *peer;
    uint64_t address, length;
    begin();
    peer = peer_of(engine, engine);
    OK(nvlx_set_log(NVLX_LOG_DEBUG, count_warnings, NULL));
    REFUSED(nvlx_peer_find(peer, "nothing", &address, &length), NVLX_ENOENT, "nothing");
    EQUAL(0, warnings);
    REFUSED(nvlx_peer_find(peer, NULL, &address, &length), NVLX_EINVAL, "name");
    EQUAL(1, warnings);
    end();
}

static void values(void) {
    void *address = &engine;
    struct nvlx_region *region;
    struct nvlx_config config;
    struct nvlx_alloc_options alloc_options;
    struct nvlx_region_options region_options;
    begin();
    REFUSED(nvlx_alloc(engine, 0, 0, NULL, &address), NVLX_EINVAL, "length 0");
    REFUSED(nvlx_alloc(engine, -1, 1, NULL, &address), NVLX_EINVAL, "GPU -1");
    REFUSED(nvlx_alloc(engine, 1000, 1, NULL, &address), NVLX_EINVAL, "GPU 1000");
    nvlx_alloc_options_init(&alloc_options);
    alloc_options.flags = NVLX_ALLOC_VMM | NVLX_ALLOC_POOL;
    REFUSED(nvlx_alloc(engine, 0, 1, &alloc_options, &address), NVLX_EINVAL, "flags 0x3");
    alloc_options.flags = NVLX_ALLOC_POOL;
    alloc_options.chunk_length = 4096;
    REFUSED(nvlx_alloc(engine, 0, 1, &alloc_options, &address), NVLX_EINVAL, "chunk_length 4096");
    EXPECT(address == &engine);
    REFUSED(nvlx_free(engine, memory + 1), NVLX_EINVAL, "not from nvlx_alloc");
    REFUSED(nvlx_free(engine, &config), NVLX_EINVAL, "not from nvlx_alloc");
    nvlx_region_options_init(&region_options);
    region_options.access = 4;
    REFUSED(nvlx_register(engine, memory, 1, &region_options, &region), NVLX_EINVAL, "access 4");
    nvlx_config_init(&config);
    config.backend = 9;
    REFUSED(create_with(&config), NVLX_EINVAL, "backend 9");
    nvlx_config_init(&config);
    config.mechanism = 4;
    REFUSED(create_with(&config), NVLX_EINVAL, "mechanism 4");
    nvlx_config_init(&config);
    config.gpu_count = 2;
    REFUSED(create_with(&config), NVLX_EINVAL, "config.gpus is NULL");
    config.gpus = (const int *)&config;
    config.gpu_count = 0;
    REFUSED(create_with(&config), NVLX_EINVAL, "config.gpu_count is 0");
    EQUAL(0, setenv("NVLX_BACKEND", "abacus", 1));
    nvlx_config_init(&config);
    REFUSED(create_with(&config), NVLX_EBACKEND, "\"abacus\"");
    EQUAL(0, setenv("NVLX_BACKEND", "auto", 1));
    OK(create_with(&config));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {{"ranges_beyond_the_segment", ranges_beyond_the_segment},
                                        {"host_memory_is_refused", host_memory_is_refused},
                                        {"structs_of_all_ages", structs_of_all_ages},
                                        {"missing_tails_take_the_defaults", missing_tails_take_the_defaults},
                                        {"texts_are_filled_whole", texts_are_filled_whole},
                                        {"structs_that_are_filled", structs_that_are_filled},
                                        {"memcpy_sides", memcpy_sides},
                                        {"pointers", pointers},
                                        {"asking_is_not_logged", asking_is_not_logged},
                                        {"values", values},
                                        {0}};
    static const struct role roles[] = {{0}};
    return run_tests(argc, argv, tests, roles, 20);
}
