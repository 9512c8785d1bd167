/* What the source of a relay and its readers say to each other, by messages of the library.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 *     reader -> source: HELLO    here are my address and GPU; answer: WELCOME or REFUSED, over a connection to it
 *                       BEGIN    my memory waits for a generation newer than `generation`; answer: PARENT
 *                       ALIVE    I am at the generation, or have it
 *                       LOST     I cannot read from the reader at this address; answer: PARENT, if there is another
 *                       DONE     all is in place and right, or `number` is the code of how it failed
 *                       LEAVE    nobody shall read from me any more
 *     source -> reader: WELCOME  the length of a piece, how many parts there are, of how many bytes, and the patience
 *                       REFUSED  there are too many readers; or, to a HELLO of another version, see mine
 *                       PARENT   read the generation from the reader at this address; "": from me
 *                       CHECKED  the digests of the generation can be read
 *
 * All are of one length, so that a later version can tell what it does not know by `version`. */
#ifndef NVLXI_RELAY_WORDS_H
#define NVLXI_RELAY_WORDS_H

#include <stddef.h>
#include <stdint.h>

#include "base/records.h"
#include "nvlxfer.h"

#define NVLXI_RELAY_MAGIC     0x59414c52u /* "RLAY" */
#define NVLXI_RELAY_VERSION   2u          /* also of how the content is cut (content.h) */
#define NVLXI_RELAY_ADDRESS   112         /* bytes, with the final NUL */
#define NVLXI_RELAY_PIECE_MIN (64u << 10) /* bytes of a piece; nvlxfer.h tells it */

/* In parts of the patience: how often who is at a generation says ALIVE, how often others do, and after how long nobody
 * reads from who is at one and has not said it. After the whole patience it is not waited for. */
#define NVLXI_RELAY_ALIVE_PART 64
#define NVLXI_RELAY_IDLE_PART  4
#define NVLXI_RELAY_QUIET_PART 16

enum nvlxi_relay_kind {
    NVLXI_RELAY_HELLO = 1,
    NVLXI_RELAY_BEGIN = 2,
    NVLXI_RELAY_ALIVE = 3,
    NVLXI_RELAY_LOST = 4,
    NVLXI_RELAY_DONE = 5,
    NVLXI_RELAY_LEAVE = 6,
    NVLXI_RELAY_WELCOME = 16,
    NVLXI_RELAY_REFUSED = 17,
    NVLXI_RELAY_PARENT = 18,
    NVLXI_RELAY_CHECKED = 19
};

struct nvlxi_relay_word {
    uint32_t magic;
    uint16_t version, kind;
    uint64_t generation, number;
    uint64_t piece_bytes, parts, bytes, patience_ns; /* of WELCOME */
    char address[NVLXI_RELAY_ADDRESS];
    uint8_t gpu[NVLXI_UUID_BYTES]; /* of HELLO: that the reader's memory is on */
};

/* NVLX_ESTALE: the peer is gone. */
int nvlxi_relay_say(struct nvlx_peer *peer, struct nvlxi_relay_word word);
/* NVLX_EFORMAT: it is none. NVLX_EVERSION: one of another version, of which kind and address are good. */
int nvlxi_relay_hear(const struct nvlx_event *event, struct nvlxi_relay_word *word);

#endif
