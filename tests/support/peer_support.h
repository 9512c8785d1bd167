/* What the tests of peers share: an engine on the host backend with faults on demand, and an owner of one region.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PEER_SUPPORT_H
#define PEER_SUPPORT_H

#include "faulty_device.h"
#include "support.h"

#define SIZE (256 * KIB)

extern struct nvlx_engine *engine;
extern char *mine; /* SIZE bytes on GPU 0, registered */

void peers_begin(void);
void peers_end(void);

/* Its slot 0 is registered, whole, as "w". */
void start_owner(struct owner *owner, uint32_t seed);
struct nvlx_peer *open_owner(struct owner *owner);
void update(struct nvlx_peer *peer, struct owner *owner);

/* Reads, and compares with what the seed has from `offset` on. */
void expect_read(struct nvlx_peer *peer, uint64_t remote, size_t offset, size_t length, uint32_t seed);
void refuse_read(struct nvlx_peer *peer, uint64_t remote, size_t length, int code, const char *words);

#endif
