/* Something that happened and waits to be told: a part of the peer or request that it happened to, so that noting it
 * takes no memory and cannot fail. The queue is rendezvous/messages/events.h's.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_REMOTE_EVENT_H
#define NVLXI_REMOTE_EVENT_H

#include <stdbool.h>
#include <stdint.h>

struct nvlxi_event_node { /* starts zeroed */
    uint32_t kind;        /* NVLX_EVENT_... */
    bool queued;
    uint64_t number; /* PEER_CHANGED: the generation; PEER_LOST: messages that may be lost; WAIT_FAILED: the wait */
    struct nvlxi_event_node *prev, *next;
};

#endif
