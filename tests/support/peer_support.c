/* What the tests of peers share: see peer_support.h. SPDX-License-Identifier: Apache-2.0 */
#include "peer_support.h"

#include <stdlib.h>
#include <string.h>

struct nvlx_engine *engine;
char *mine;

void peers_begin(void) {
    engine = make_faulty_engine(0);
    mine = allocate(engine, 0, SIZE, 99);
    register_range(engine, mine, SIZE, NULL, NVLX_ACCESS_NONE);
}

void peers_end(void) {
    OK(nvlx_engine_destroy(engine));
}

void start_owner(struct owner *owner, uint32_t seed) {
    owner_start(owner);
    owner_alloc(owner, 0, 0, SIZE, seed);
    owner_register(owner, 0, 0, 0, SIZE, NVLX_ACCESS_READ_WRITE, "w");
}

void expect_read(struct nvlx_peer *peer, uint64_t remote, size_t offset, size_t length, uint32_t seed) {
    uint8_t *bytes = malloc(length);
    EXPECT(bytes != NULL);
    move(engine, NVLX_OP_READ, peer, mine, remote, length);
    OK(nvlx_memcpy(engine, bytes, mine, length));
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != seed_byte(seed, offset + i))
            FAIL("byte %zu of %zu is 0x%02x, not 0x%02x", i, length, bytes[i], seed_byte(seed, offset + i));
    free(bytes);
}

void refuse_read(struct nvlx_peer *peer, uint64_t remote, size_t length, int code, const char *words) {
    struct nvlx_request *request;
    struct nvlx_op op = make_op(NVLX_OP_READ, peer, mine, remote, length);
    REFUSED(nvlx_transfer(engine, &op, 1, NULL, &request), code, words);
}

void update(struct nvlx_peer *peer, struct owner *owner) {
    char *text = owner_export(owner);
    OK(nvlx_peer_update(peer, text, strlen(text)));
    free(text);
}

struct nvlx_peer *open_owner(struct owner *owner) {
    char *text = owner_export(owner);
    struct nvlx_peer *peer = open_peer(engine, text);
    free(text);
    return peer;
}
