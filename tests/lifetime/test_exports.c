/* The file of a chunk is exported for a client while its owner takes the memory back: nobody frees memory that is being
 * exported. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faulty_device.h"
#include "rendezvous_support.h"
#include "support.h"

#define CHUNK    (2 * MIB)
#define DELAY_US 200000

/* ---- A client that came by text: nobody waits for it ------------------------------------------------------- */

struct told {
    uint64_t address;
    size_t length; /* of the text, which follows */
};

static void client_role(int socket) {
    struct told told;
    struct nvlx_peer *peer;
    void *local;
    get(socket, &told, sizeof told);
    char *text = malloc(told.length);
    EXPECT(text != NULL);
    get(socket, text, told.length);
    struct nvlx_engine *engine = make_engine(0);
    OK(nvlx_alloc(engine, 0, CHUNK, NULL, &local));
    register_range(engine, local, CHUNK, NULL, NVLX_ACCESS_NONE);
    OK(nvlx_peer_open(engine, text, told.length, &peer));
    const int code = nvlx_peer_map(peer, 0, told.address, CHUNK);
    put(socket, &code, sizeof code);
    OK(nvlx_engine_destroy(engine));
    free(text);
}

/* ---- The owner --------------------------------------------------------------------------------------------- */

static struct nvlx_engine *owner;
static void *chunk;
static struct nvlx_region *region;
static struct child client;
static char *other;
static struct nvlx_region *sleeper; /* `other` */

/* The export for the client is under way when this returns. */
static void begin(void) {
    struct nvlx_alloc_options options;
    struct told told;
    char *text;
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    owner = make_faulty_engine(0);
    OK(nvlx_alloc(owner, 0, CHUNK, &options, &chunk));
    region = register_range(owner, chunk, CHUNK, "chunk", NVLX_ACCESS_READ);
    OK(nvlx_alloc(owner, 0, CHUNK, &options, (void **)&other));
    sleeper = register_range(owner, other, CHUNK, "sleeper", NVLX_ACCESS_READ);
    OK(nvlx_suspend(&sleeper, 1, PATIENCE));
    OK(nvlx_serve(owner, own_name(), NULL));
    OK(nvlx_export(owner, &text, &told.length));
    told.address = (uint64_t)(uintptr_t)chunk;
    atomic_store(&faults.files, 0);
    atomic_store(&faults.files_done, 0);
    atomic_store(&faults.file_delay_us, DELAY_US);
    child_start(&client, "client");
    put(client.socket, &told, sizeof told);
    put(client.socket, text, told.length);
    nvlx_text_free(text);
    while (!atomic_load(&faults.files))
        usleep(1000);
    EQUAL(0, (uint64_t)atomic_load(&faults.files_done));
}

static void end(void) {
    int code;
    get(client.socket, &code, sizeof code);
    child_end(&client);
    atomic_store(&faults.file_delay_us, 0);
    OK(nvlx_engine_destroy(owner));
}

static void unregister_waits(void) {
    begin();
    REFUSED(nvlx_unregister(region, 0), NVLX_ETIMEDOUT, "being exported to a client");
    OK(nvlx_unregister(region, PATIENCE));
    EQUAL(1, (uint64_t)atomic_load(&faults.files_done));
    OK(nvlx_free(owner, chunk));
    end();
}

static void suspend_waits(void) {
    begin();
    REFUSED(nvlx_suspend(&region, 1, 0), NVLX_ETIMEDOUT, "being exported to a client");
    OK(nvlx_suspend(&region, 1, PATIENCE));
    EQUAL(1, (uint64_t)atomic_load(&faults.files_done));
    end();
}

static void free_waits(void) {
    begin();
    OK(nvlx_free(owner, chunk));
    EQUAL(1, (uint64_t)atomic_load(&faults.files_done));
    end();
}

/* No file of it is exported: it has ended before nvlx_suspend gave 0. */
static void what_sleeps_waits_for_none(void) {
    begin();
    OK(nvlx_suspend(&sleeper, 1, 0));
    OK(nvlx_unregister(sleeper, 0));
    EQUAL(0, (uint64_t)atomic_load(&faults.files_done));
    end();
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"unregister_waits", unregister_waits},
        {"suspend_waits", suspend_waits},
        {"free_waits", free_waits},
        {"what_sleeps_waits_for_none", what_sleeps_waits_for_none},
        {NULL, NULL},
    };
    static const struct role roles[] = {{"client", client_role}, {NULL, NULL}};
    return run_tests(argc, argv, tests, roles, 60);
}
