/* A subscriber that is none: it reads what a server sends. For programs that link the inside of the library.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef SUBSCRIBER_H
#define SUBSCRIBER_H

#include <string.h>

#include "rendezvous/protocol.h"
#include "rendezvous_support.h"

/* The next message, into `body`: its length, and its type. */
static inline uint32_t receive_message(int socket, uint8_t *body, size_t room, uint16_t *type) {
    uint8_t head[NVLXI_PROTOCOL_HEADER];
    struct nvlxi_protocol_header header;
    get(socket, head, sizeof head);
    OK(nvlxi_protocol_get_header(head, true, &header));
    EXPECT(header.length <= room);
    get(socket, body, header.length);
    *type = header.type;
    return header.length;
}

/* One of this minor version, that has been greeted. */
static inline int subscribe(const char *address, uint16_t minor, uint8_t *body, size_t room) {
    uint8_t bytes[NVLXI_PROTOCOL_SHORT_MAX];
    uint16_t type;
    int socket = raw_connect(address);
    const size_t length = nvlxi_protocol_put_hello(bytes, NVLXI_PROTOCOL_SUBSCRIBER);
    memcpy(bytes + NVLXI_PROTOCOL_HEADER + 10, &minor, sizeof minor);
    put(socket, bytes, length);
    receive_message(socket, body, room, &type);
    EQUAL(NVLXI_PROTOCOL_WELCOME, type);
    return socket;
}

#endif
