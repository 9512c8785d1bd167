/* The check's own memory: what it keeps from list to list, and what it forgets. What it accepts and refuses is tested
 * by whole transfers. SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/identity.h"
#include "support.h"
#include "transfer/validate/validate.h"

#define SIZE      (128 * KIB)
#define PEERS     20
#define IDLE_MOST 8 /* routes that a list does not use and that are kept even so */

static struct nvlxi_context context;
static struct nvlxi_registration registration;
static struct nvlxi_remote remote;
static struct nvlxi_validation *validation;
static struct nvlxi_needs needs;
static char *memory, *text;
static size_t text_length;

static void begin(void) {
    static struct nvlxi_tables tables;
    static struct nvlxi_metrics metrics;
    const struct nvlxi_alloc alloc = {.length = SIZE, .kind = NVLXI_KIND_CUDA_MALLOC};
    struct nvlx_region_options options;
    struct nvlx_region *region;
    nvlxi_tables_init(&tables);
    OK(nvlxi_identity_make(&context.identity));
    OK(nvlxi_device_host.open(NULL, 0, &context.device));
    context.ops = &nvlxi_device_host;
    context.tables = &tables;
    context.metrics = &metrics;
    OK(nvlxi_registration_init(&registration, &context));
    OK(nvlxi_remote_init(&remote, &context));
    OK(nvlxi_device_host.alloc(context.device, &alloc, (void **)&memory));
    nvlx_region_options_init(&options);
    OK(nvlxi_registration_add(&registration, (uint64_t)(uintptr_t)memory, SIZE, &options, &region));
    struct nvlxi_descriptor descriptor = {.backend = "host", .identity = context.identity};
    OK(nvlxi_registration_records(&registration, &descriptor));
    OK(nvlxi_descriptor_encode(&descriptor, &text, &text_length));
    nvlxi_registration_records_free(&descriptor);
    validation = calloc(1, sizeof *validation);
    EXPECT(validation != NULL);
}

static struct nvlx_peer *open_own(void) {
    struct nvlx_peer *peer;
    OK(nvlxi_peer_open(&remote, text, text_length, &peer));
    OK(nvlxi_mapping_open_range(peer, 0, (uint64_t)(uintptr_t)memory, SIZE));
    return peer;
}

/* Two ops with each peer. */
static void check_list(struct nvlx_peer *const *peers, size_t count) {
    struct nvlx_op ops[2 * PEERS];
    for (size_t i = 0; i < 2 * count; i++)
        ops[i] = make_op(NVLX_OP_READ, peers[i / 2], memory + 100 * i, (uint64_t)(uintptr_t)memory + 100 * i, 10);
    OK(nvlxi_validate(validation, &registration, ops, 2 * count, NVLX_MECHANISM_AUTO, &needs));
    EQUAL(2 * count, validation->validated.count);
    EQUAL(1, validation->validated.stretch_count);
    EQUAL(count, validation->route_count);
    EQUAL(count, needs.peer_count);
}

/* Of many peers, and of tables that come and go, the last few are remembered. */
static void routes_are_forgotten(void) {
    struct nvlx_peer *peers[PEERS];
    begin();
    for (size_t i = 0; i < PEERS; i++)
        peers[i] = open_own();
    check_list(peers, PEERS);
    EQUAL(PEERS, validation->route_total);
    for (size_t i = 0; i < PEERS; i++) {
        check_list(&peers[i], 1);
        EQUAL(PEERS, validation->route_total); /* one of them served for this peer */
    }
    for (size_t i = 0; i < PEERS; i++)
        OK(nvlxi_peer_close(peers[i]));
    for (int round = 0; round < 50; round++) {
        struct nvlx_peer *peer = open_own();
        check_list(&peer, 1);
        EXPECT(validation->route_total <= 1 + IDLE_MOST);
        OK(nvlxi_peer_close(peer));
    }
    nvlxi_validation_free(validation);
    nvlxi_needs_free(&needs);
    free(text);
}

/* Wherever in a list the longest op is, its length is known. */
static void the_longest_is_found(void) {
    enum { OPS = 300, LONGEST = 40000 };
    static struct nvlx_op ops[OPS];
    begin();
    struct nvlx_peer *peer = open_own();
    for (size_t longest = 0; longest < OPS; longest++) {
        for (size_t i = 0; i < OPS; i++)
            ops[i] = make_op(NVLX_OP_READ, peer, memory + i, (uint64_t)(uintptr_t)memory + SIZE / 2 + 2 * i,
                             i == longest ? LONGEST : 5);
        OK(nvlxi_validate(validation, &registration, ops, OPS, NVLX_MECHANISM_AUTO, &needs));
        EXPECT(validation->validated.longest >= LONGEST - 1 && validation->validated.longest < 2 * LONGEST);
    }
    OK(nvlxi_peer_close(peer));
    nvlxi_validation_free(validation);
    nvlxi_needs_free(&needs);
    free(text);
}

int main(int argc, char **argv) {
    static const struct test tests[] = {
        {"routes_are_forgotten", routes_are_forgotten}, {"the_longest_is_found", the_longest_is_found}, {0}};
    static const struct role roles[] = {{0}};
    return run_tests(argc, argv, tests, roles, 20);
}
