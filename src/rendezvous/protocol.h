/* The messages of the rendezvous, encoded and decoded: no sockets, no locks.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A stream of messages, each a header and a body, in the byte order of the node. Who connects sends HELLO, who serves
 * answers WELCOME. Then a subscriber reads: TEXT, and CHANGES after every change,
 * or another TEXT; of a server or to a client of a minor version before 3 always TEXT. CHANGES have the form of a
 * descriptor (descriptor/decode.cc), and are from a generation that it was told of before. It may send ASK, and gets
 * for each, in order, GIVEN until it has all files of the request, or DENIED in the place of those that are left. From
 * its first ASK on neither comes, so that what it maps does not change meanwhile, until it says DONE, was denied, or
 * has not gone on for a second. What it is denied since it was withdrawn comes after what tells so. AWAIT asks what the
 * subscriber still holds of generations before the one that it was told last; it answers HOLDS, as soon as that is
 * nothing, and at most once before. The next AWAIT comes after that. Of a server of minor version 0 files come to a
 * fetcher only: it sends FETCH and reads FILES until it has all files of the request, in order, then may send the next
 * FETCH. REFUSAL may stand in the place of any answer, and ends the connection.
 *
 * HELLO, WELCOME and REFUSAL begin alike in every version, so that a version can be refused by name; a newer minor
 * version may make HELLO and WELCOME longer. */
#ifndef NVLXI_RENDEZVOUS_PROTOCOL_H
#define NVLXI_RENDEZVOUS_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/records.h"

#define NVLXI_PROTOCOL_MAGIC UINT64_C(0x315a56444e52584e)
#define NVLXI_PROTOCOL_MAJOR 1u
#define NVLXI_PROTOCOL_MINOR 3u /* 1: ASK, GIVEN, DENIED, DONE; 2: AWAIT, HOLDS; 3: CHANGES */

#define NVLXI_PROTOCOL_HEADER       8u
#define NVLXI_PROTOCOL_GREETING_MAX 256u        /* bytes of a HELLO or WELCOME of whatever minor version */
#define NVLXI_PROTOCOL_REASON_MAX   255u        /* bytes of a refusal's text */
#define NVLXI_PROTOCOL_FILES_MAX    253u        /* file descriptors that one message may carry: the kernel's limit */
#define NVLXI_PROTOCOL_ENGINE       32u         /* digits of an engine's id */
#define NVLXI_PROTOCOL_CHANGES_MAX  (16u << 20) /* bytes of CHANGES: what is longer goes as a whole TEXT */
#define NVLXI_PROTOCOL_SHORT_MAX    512u        /* room for any encoded message except TEXT, CHANGES, FETCH and ASK */
#define NVLXI_PROTOCOL_FETCH_MAX    (NVLXI_PROTOCOL_HEADER + NVLXI_PROTOCOL_FILES_MAX * sizeof(struct nvlxi_protocol_file))
#define NVLXI_PROTOCOL_ASK_MAX      (NVLXI_PROTOCOL_FETCH_MAX + 8)

enum nvlxi_protocol_type {
    NVLXI_PROTOCOL_HELLO = 1,
    NVLXI_PROTOCOL_FETCH = 2,
    NVLXI_PROTOCOL_WELCOME = 3,
    NVLXI_PROTOCOL_REFUSAL = 4,
    NVLXI_PROTOCOL_TEXT = 5,  /* a descriptor */
    NVLXI_PROTOCOL_FILES = 6, /* comes with file descriptors */
    NVLXI_PROTOCOL_ASK = 7,
    NVLXI_PROTOCOL_DONE = 8,  /* nothing is asked for any more */
    NVLXI_PROTOCOL_GIVEN = 9, /* as FILES */
    NVLXI_PROTOCOL_DENIED = 10,
    NVLXI_PROTOCOL_AWAIT = 11,
    NVLXI_PROTOCOL_HOLDS = 12,
    NVLXI_PROTOCOL_CHANGES = 13 /* a descriptor's */
};

enum nvlxi_protocol_role { NVLXI_PROTOCOL_SUBSCRIBER = 1, NVLXI_PROTOCOL_FETCHER = 2 };

struct nvlxi_protocol_header {
    uint32_t length; /* of the body */
    uint16_t type;
};

struct nvlxi_protocol_file { /* the segment whose file descriptor is wanted */
    uint64_t base, serial;
};

struct nvlxi_protocol_holds { /* of generations before this one */
    uint64_t generation;
    uint32_t transfers, mappings; /* in flight, and open or being opened */
};

struct nvlxi_protocol_refusal {
    int code;                                 /* NVLX_E... */
    char text[NVLXI_PROTOCOL_REASON_MAX + 1]; /* UTF-8 without control characters */
};

/* Each writes a whole message and returns its length. `out` has room for NVLXI_PROTOCOL_SHORT_MAX bytes, or for
 * NVLXI_PROTOCOL_FETCH_MAX or NVLXI_PROTOCOL_ASK_MAX. */
size_t nvlxi_protocol_put_hello(uint8_t *out, enum nvlxi_protocol_role role);
size_t nvlxi_protocol_put_welcome(uint8_t *out, const char engine[NVLXI_PROTOCOL_ENGINE + 1]);
size_t nvlxi_protocol_put_refusal(uint8_t *out, int code, const char *text); /* shortened to fit, and to plain ASCII */
size_t nvlxi_protocol_put_fetch(uint8_t *out, const struct nvlxi_protocol_file *files, size_t count);
size_t nvlxi_protocol_put_files(uint8_t *out, size_t count);
size_t nvlxi_protocol_put_ask(uint8_t *out, uint32_t request, const struct nvlxi_protocol_file *files, size_t count);
size_t nvlxi_protocol_put_done(uint8_t *out);
size_t nvlxi_protocol_put_given(uint8_t *out, uint32_t request, size_t count);
size_t nvlxi_protocol_put_denied(uint8_t *out, uint32_t request, int code, const char *text);
size_t nvlxi_protocol_put_await(uint8_t *out, uint64_t generation);
size_t nvlxi_protocol_put_holds(uint8_t *out, const struct nvlxi_protocol_holds *holds);
/* Only the header: the text follows. */
size_t nvlxi_protocol_put_text(uint8_t *out, size_t length);
size_t nvlxi_protocol_put_changes(uint8_t *out, size_t length);

/* The readers trust nothing. NVLX_EFORMAT, and NVLX_EVERSION for a greeting of another major version. */

/* `from_server`: which side sent it. After 0 the body has a length that its type may have. */
int nvlxi_protocol_get_header(const uint8_t bytes[NVLXI_PROTOCOL_HEADER], bool from_server,
                              struct nvlxi_protocol_header *header);
/* The body of the message that `header` announced. */
int nvlxi_protocol_get_hello(const uint8_t *body, enum nvlxi_protocol_role *role, unsigned *minor);
int nvlxi_protocol_get_welcome(const uint8_t *body, char engine[NVLXI_PROTOCOL_ENGINE + 1], unsigned *minor);
int nvlxi_protocol_get_refusal(const uint8_t *body, size_t length, struct nvlxi_protocol_refusal *refusal);
int nvlxi_protocol_get_fetch(const uint8_t *body, size_t length, struct nvlxi_protocol_file *files, size_t *count);
int nvlxi_protocol_get_files(const uint8_t *body, size_t *count);
int nvlxi_protocol_get_ask(const uint8_t *body, size_t length, uint32_t *request, struct nvlxi_protocol_file *files,
                           size_t *count);
void nvlxi_protocol_get_await(const uint8_t *body, uint64_t *generation);
void nvlxi_protocol_get_holds(const uint8_t *body, struct nvlxi_protocol_holds *holds);
int nvlxi_protocol_get_given(const uint8_t *body, uint32_t *request, size_t *count);
int nvlxi_protocol_get_denied(const uint8_t *body, size_t length, uint32_t *request,
                              struct nvlxi_protocol_refusal *refusal);

#endif
