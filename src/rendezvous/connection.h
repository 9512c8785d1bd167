/* Sockets of the rendezvous: addresses, messages that arrive piece by piece, and the blocking side of a client.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_RENDEZVOUS_CONNECTION_H
#define NVLXI_RENDEZVOUS_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "rendezvous/protocol.h"

/* An address is an absolute path, or "@name" of the abstract namespace, of at most NVLXI_ADDRESS_MAX bytes.
 * NVLX_EINVAL.
 */
int nvlxi_address_check(const char *address);
/* Of one that was checked. */
void nvlxi_address_parse(const char *address, struct sockaddr_un *parsed, socklen_t *length);

/* The code for an errno of a socket's call. */
int nvlxi_socket_code(int reason);

/* File descriptors that came with a message. */
struct nvlxi_connection_files {
    int fds[NVLXI_PROTOCOL_FILES_MAX];
    size_t count;
    bool lost; /* some could not be taken: this process has too many open */
};

/* Closes them. */
void nvlxi_connection_files_close(struct nvlxi_connection_files *files);

/* A message on its way in. Starts zeroed, except for from_server. */
struct nvlxi_inbox {
    bool from_server;
    uint8_t head[NVLXI_PROTOCOL_HEADER];
    size_t have; /* bytes of head and body */
    struct nvlxi_protocol_header header;
    uint8_t *body; /* NULL before the header is whole */
};

/* Receives once, what is there. 0: a whole message; use it, then clear it. Not logged: NVLX_EAGAIN: not whole yet;
 * NVLX_ESTALE: the other end has closed. NVLX_EFORMAT, NVLX_ENOMEM. File descriptors go to `files`, or with NULL are
 * dropped. */
int nvlxi_inbox_fill(struct nvlxi_inbox *inbox, int socket, struct nvlxi_connection_files *files);
void nvlxi_inbox_clear(struct nvlxi_inbox *inbox);

#define NVLXI_PAUSE_NS UINT64_C(1000000) /* between the first two tries to connect */

/* A client's connection, after the greetings. */
struct nvlxi_connection {
    int socket; /* non-blocking */
    char address[NVLXI_ADDRESS_MAX + 1];
    char engine[NVLXI_PROTOCOL_ENGINE + 1]; /* who serves there */
    unsigned minor;                         /* version of the protocol that is spoken there */
    struct nvlxi_inbox in;
};

/* Connects and exchanges greetings. `wait`: tries again while nobody serves there, else that is NVLX_ESTALE. The
 * deadline (nvlxi_now_ns) is for finding a server: NVLX_ETIMEDOUT; one that is there has a second to answer in any
 * case. NVLX_EINVAL: with `wait`, what is at the address is no socket. Else as the server refuses, or NVLX_EACCES: no
 * permission for the socket file. */
int nvlxi_connection_open(struct nvlxi_connection *connection, const char *address, enum nvlxi_protocol_role role,
                          bool wait, uint64_t deadline);
void nvlxi_connection_close(struct nvlxi_connection *connection);

int nvlxi_connection_send(struct nvlxi_connection *connection, const uint8_t *bytes, size_t length, uint64_t deadline);
/* The next message, into connection->in, which must be of this type. A refusal is returned as what the server says.
 * Waits until the deadline, or `patience_ns` since something came last, if that is later: NVLX_ETIMEDOUT. NVLX_ESTALE:
 * the server has closed; not logged if `closed`, which is then set. */
int nvlxi_connection_receive(struct nvlxi_connection *connection, enum nvlxi_protocol_type type,
                             struct nvlxi_connection_files *files, uint64_t deadline, int64_t patience_ns,
                             bool *closed);

/* What a refusal says that has come: its code. */
int nvlxi_connection_refused(const struct nvlxi_connection *connection);

/* Sleeps before the next try to connect; false when the deadline is over. *pause: NVLXI_PAUSE_NS at first, then longer
 * each time. */
bool nvlxi_connection_pause(uint64_t *pause, uint64_t deadline);

#endif
