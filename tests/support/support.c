/* What the tests of the whole library share: see support.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint32_t next_random(uint64_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)((*state * UINT64_C(0x2545f4914f6cdd1d)) >> 32);
}

/* ---- What a process holds ------------------------------------------------------------------------------ */

static size_t count_entries(const char *folder) {
    size_t count = 0;
    DIR *opened = opendir(folder);
    if (!opened)
        FAIL("%s: %s", folder, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(opened));)
        count += entry->d_name[0] != '.';
    closedir(opened);
    return count - !strcmp(folder, "/proc/self/fd"); /* the folder's own */
}

/* Heaps come and go with threads, and neighbouring ones join: only what is mapped from memory of a GPU counts, and the
 * pages of their own that engines take. */
static size_t count_maps(void) {
    char line[512];
    size_t count = 0;
    FILE *file = fopen("/proc/self/maps", "re");
    if (!file)
        FAIL("/proc/self/maps: %s", strerror(errno));
    while (fgets(line, sizeof line, file))
        count += strstr(line, "nvlxfer-host-gpu") != NULL;
    fclose(file);
    return count;
}

static struct holdings look(void) {
    struct holdings held = {count_entries("/proc/self/fd"), count_entries("/proc/self/task"), count_maps()};
    return held;
}

/* The library's threads that end by themselves, soon: they make room in the table of files. */
static bool passing_threads(void) {
    char path[300], name[32];
    bool found = false;
    DIR *tasks = opendir("/proc/self/task");
    if (!tasks)
        FAIL("/proc/self/task: %s", strerror(errno));
    for (const struct dirent *task; !found && (task = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        FILE *file = fopen(path, "re");
        found = file && fgets(name, sizeof name, file) && !strcmp(name, "nvlx-files\n");
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return found;
}

struct holdings holdings(void) {
    struct holdings last = look();
    for (int i = 0; i < 200; i++) {
        const bool passing = passing_threads();
        usleep(1000);
        const struct holdings now = look();
        if (!passing && !memcmp(&last, &now, sizeof now))
            return now;
        last = now;
    }
    return last;
}

/* Fewer threads are right: one that has just begun has no name yet, and is counted before. */
static bool holds_no_more(const struct holdings *now, const struct holdings *before) {
    return now->fds == before->fds && now->threads <= before->threads && now->maps == before->maps;
}

void expect_holdings(const struct holdings *before, const char *when) {
    struct holdings now = look();
    for (int i = 0; i < 100 && now.threads > before->threads; i++) { /* a joined one may still be seen for a moment */
        usleep(10000);
        now = look();
    }
    if (!holds_no_more(&now, before))
        now = holdings();
    if (!holds_no_more(&now, before))
        FAIL("%s: %zu descriptors, %zu threads, %zu mappings; before: %zu, %zu, %zu", when, now.fds, now.threads,
             now.maps, before->fds, before->threads, before->maps);
}

/* ---- The library --------------------------------------------------------------------------------------- */

int second_gpu(void) {
    int count;
    OK(nvlx_gpu_count(NVLX_BACKEND_AUTO, &count));
    return count > 1 ? 1 : 0;
}

void fill_config(struct nvlx_config *config) {
    static _Thread_local int gpus[2];
    nvlx_config_init(config);
    gpus[1] = second_gpu();
    config->gpus = gpus;
    config->gpu_count = 2;
}

struct nvlx_engine *make_engine(uint32_t max_requests) {
    struct nvlx_engine *engine;
    struct nvlx_config config;
    fill_config(&config);
    config.max_requests = max_requests;
    OK(nvlx_engine_create(&config, &engine));
    return engine;
}

/* Differs from its neighbours, between seeds, and between places 256 bytes, a page or a MiB apart. */
uint8_t seed_byte(uint32_t seed, uint64_t i) {
    return (uint8_t)(seed * 151 + i * 7 + (i >> 8) * 13 + (i >> 12) * 101 + (i >> 20) * 29);
}

static void *host_memory(size_t length) {
    void *bytes = malloc(length ? length : 1);
    if (!bytes)
        FAIL("no memory for %zu bytes", length);
    return bytes;
}

void fill(struct nvlx_engine *engine, void *address, size_t length, uint32_t seed) {
    uint8_t *bytes = host_memory(length);
    for (size_t i = 0; i < length; i++)
        bytes[i] = seed_byte(seed, i);
    OK(nvlx_memcpy(engine, address, bytes, length));
    free(bytes);
}

uint64_t wrong(struct nvlx_engine *engine, const void *address, size_t length, uint32_t seed) {
    uint64_t count = 0;
    uint8_t *bytes = host_memory(length);
    OK(nvlx_memcpy(engine, bytes, address, length));
    for (size_t i = 0; i < length; i++)
        count += bytes[i] != seed_byte(seed, i);
    free(bytes);
    return count;
}

void *allocate(struct nvlx_engine *engine, int gpu, size_t length, uint32_t seed) {
    return allocate_with(engine, 0, gpu, length, seed);
}

void *allocate_with(struct nvlx_engine *engine, uint32_t flags, int gpu, size_t length, uint32_t seed) {
    struct nvlx_alloc_options options;
    void *address;
    nvlx_alloc_options_init(&options);
    options.flags = flags;
    OK(nvlx_alloc(engine, gpu, length, &options, &address));
    fill(engine, address, length, seed);
    return address;
}

struct nvlx_region *register_range(struct nvlx_engine *engine, const void *address, size_t length, const char *name,
                                   uint32_t access) {
    struct nvlx_region *region;
    struct nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.name = name;
    options.access = access;
    OK(nvlx_register(engine, address, length, &options, &region));
    return region;
}

struct nvlx_engine_info engine_info(struct nvlx_engine *engine) {
    struct nvlx_engine_info info = {.size = sizeof info};
    OK(nvlx_engine_get_info(engine, &info));
    return info;
}

struct nvlx_counts engine_counts(struct nvlx_engine *engine) {
    struct nvlx_counts counts = {.size = sizeof counts};
    OK(nvlx_stats(engine, NULL, &counts));
    return counts;
}

void expect_mappings(struct nvlx_engine *engine, uint64_t count) {
    for (double since = now_ms(); engine_info(engine).mappings > count && now_ms() - since < 10000; usleep(200)) {
    }
    EQUAL(count, engine_info(engine).mappings);
}

struct nvlx_peer *open_peer(struct nvlx_engine *engine, const char *text) {
    struct nvlx_peer *peer;
    OK(nvlx_peer_open(engine, text, strlen(text), &peer));
    return peer;
}

struct nvlx_peer *peer_of(struct nvlx_engine *in, struct nvlx_engine *of) {
    struct nvlx_peer *peer;
    char *text;
    size_t length;
    OK(nvlx_export(of, &text, &length));
    OK(nvlx_peer_open(in, text, length, &peer));
    nvlx_text_free(text);
    return peer;
}

uint64_t find(struct nvlx_peer *peer, const char *name) {
    uint64_t address, length;
    OK(nvlx_peer_find(peer, name, &address, &length));
    return address;
}

struct nvlx_op make_op(uint32_t opcode, struct nvlx_peer *peer, void *local, uint64_t remote, size_t length) {
    return (struct nvlx_op){.opcode = opcode, .peer = peer, .local = local, .remote = remote, .length = length};
}

struct nvlx_request *start(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count) {
    struct nvlx_request *request;
    OK(nvlx_transfer(engine, ops, count, NULL, &request));
    return request;
}

void finish(struct nvlx_request *request) {
    OK(nvlx_wait(request, PATIENCE));
    OK(nvlx_request_free(request));
}

void move(struct nvlx_engine *engine, uint32_t opcode, struct nvlx_peer *peer, void *local, uint64_t remote,
          size_t length) {
    struct nvlx_op op = make_op(opcode, peer, local, remote, length);
    finish(start(engine, &op, 1));
}

char *with_field(const char *text, const char *key, const char *value) {
    char pattern[64], *made;
    snprintf(pattern, sizeof pattern, "\"%s\":\"", key);
    const char *at = strstr(text, pattern);
    if (!at)
        FAIL("the descriptor has no %s: %s", key, text);
    at += strlen(pattern);
    if (asprintf(&made, "%.*s%s%s", (int)(at - text), text, value, strchr(at, '"')) < 0)
        FAIL("no memory for a text");
    return made;
}

/* ---- The owner ----------------------------------------------------------------------------------------- */

enum task {
    TASK_ALLOC,
    TASK_FREE,
    TASK_REGISTER,
    TASK_UNREGISTER,
    TASK_EXPORT,
    TASK_SERVE,
    TASK_WRONG,
    TASK_FILL,
    TASK_READ,
    TASK_DIGEST
};

struct order {
    enum task task;
    uint32_t slot, region, access, flags, seed;
    int gpu;
    size_t offset, length;
    char name[256]; /* "" for none; or an address */
};

struct answer {
    int code;
    uint64_t value;
};

struct estate { /* what the owner has */
    struct nvlx_engine *engine;
    char *memory[OWNER_SLOTS];
    struct nvlx_region *regions[OWNER_SLOTS];
};

static void send_bytes(struct estate *estate, const struct order *order, int socket) {
    void *bytes = host_memory(order->length);
    OK(nvlx_memcpy(estate->engine, bytes, estate->memory[order->slot] + order->offset, order->length));
    put(socket, bytes, order->length);
    free(bytes);
}

static void send_export(struct estate *estate, int socket) {
    char *text;
    size_t length;
    OK(nvlx_export(estate->engine, &text, &length));
    put_text(socket, text, length);
    nvlx_text_free(text);
}

static int serve(struct estate *estate, const struct order *order) {
    struct nvlx_serve_options options;
    nvlx_serve_options_init(&options);
    options.max_connections = (uint32_t)order->length;
    return nvlx_serve(estate->engine, order->name, &options);
}

static struct answer obey(struct estate *estate, const struct order *order) {
    struct answer answer = {0};
    char **memory = &estate->memory[order->slot];
    switch (order->task) {
    case TASK_ALLOC:
        *memory = allocate_with(estate->engine, order->flags, order->gpu, order->length, order->seed);
        answer.value = (uint64_t)(uintptr_t)*memory;
        break;
    case TASK_FREE:
        answer.code = nvlx_free(estate->engine, *memory);
        break;
    case TASK_REGISTER:
        estate->regions[order->region] = register_range(estate->engine, *memory + order->offset, order->length,
                                                        order->name[0] ? order->name : NULL, order->access);
        break;
    case TASK_UNREGISTER:
        answer.code = nvlx_unregister(estate->regions[order->region], PATIENCE);
        break;
    case TASK_SERVE:
        answer.code = serve(estate, order);
        break;
    case TASK_WRONG:
        answer.value = wrong(estate->engine, *memory + order->offset, order->length, order->seed);
        break;
    case TASK_FILL:
        fill(estate->engine, *memory + order->offset, order->length, order->seed);
        break;
    case TASK_DIGEST:
        answer.code = nvlx_region_set_digest(estate->regions[order->region], &answer.value);
        break;
    case TASK_EXPORT:
    case TASK_READ:
        break;
    }
    return answer;
}

void owner_role(int socket) {
    struct estate estate = {.engine = make_engine(0)};
    struct order order;
    while (get_or_end(socket, &order, sizeof order)) {
        struct answer answer = obey(&estate, &order);
        put(socket, &answer, sizeof answer);
        if (order.task == TASK_EXPORT)
            send_export(&estate, socket);
        if (order.task == TASK_READ)
            send_bytes(&estate, &order, socket);
    }
    OK(nvlx_engine_destroy(estate.engine));
}

static struct answer ask(struct owner *owner, const struct order *order) {
    struct answer answer;
    put(owner->child.socket, order, sizeof *order);
    get(owner->child.socket, &answer, sizeof answer);
    return answer;
}

void owner_start(struct owner *owner) {
    *owner = (struct owner){0};
    child_start(&owner->child, "owner");
}

void owner_end(struct owner *owner) {
    child_end(&owner->child);
}

void owner_kill(struct owner *owner) {
    child_kill(&owner->child);
}

uint64_t owner_alloc(struct owner *owner, uint32_t slot, int gpu, size_t length, uint32_t seed) {
    struct order order = {
        .task = TASK_ALLOC, .flags = owner->alloc_flags, .slot = slot, .gpu = gpu, .length = length, .seed = seed};
    return ask(owner, &order).value;
}

int owner_free(struct owner *owner, uint32_t slot) {
    struct order order = {.task = TASK_FREE, .slot = slot};
    return ask(owner, &order).code;
}

void owner_register(struct owner *owner, uint32_t region, uint32_t slot, size_t offset, size_t length, uint32_t access,
                    const char *name) {
    struct order order = {
        .task = TASK_REGISTER, .slot = slot, .region = region, .access = access, .offset = offset, .length = length};
    snprintf(order.name, sizeof order.name, "%s", name ? name : "");
    OK(ask(owner, &order).code);
}

int owner_unregister(struct owner *owner, uint32_t region) {
    struct order order = {.task = TASK_UNREGISTER, .region = region};
    return ask(owner, &order).code;
}

uint64_t owner_set_digest(struct owner *owner, uint32_t region) {
    struct order order = {.task = TASK_DIGEST, .region = region};
    struct answer answer = ask(owner, &order);
    OK(answer.code);
    return answer.value;
}

char *owner_export(struct owner *owner) {
    struct order order = {.task = TASK_EXPORT};
    size_t length;
    OK(ask(owner, &order).code);
    return get_text(owner->child.socket, &length);
}

int owner_serve(struct owner *owner, const char *address, uint32_t max_connections) {
    struct order order = {.task = TASK_SERVE, .length = max_connections};
    snprintf(order.name, sizeof order.name, "%s", address);
    return ask(owner, &order).code;
}

uint64_t owner_wrong(struct owner *owner, uint32_t slot, size_t offset, size_t length, uint32_t seed) {
    struct order order = {.task = TASK_WRONG, .slot = slot, .offset = offset, .length = length, .seed = seed};
    return ask(owner, &order).value;
}

void owner_fill(struct owner *owner, uint32_t slot, size_t offset, size_t length, uint32_t seed) {
    struct order order = {.task = TASK_FILL, .slot = slot, .offset = offset, .length = length, .seed = seed};
    OK(ask(owner, &order).code);
}

void owner_read(struct owner *owner, uint32_t slot, size_t offset, void *bytes, size_t length) {
    struct order order = {.task = TASK_READ, .slot = slot, .offset = offset, .length = length};
    OK(ask(owner, &order).code);
    get(owner->child.socket, bytes, length);
}
