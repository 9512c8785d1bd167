/* The messages of the rendezvous, encoded and decoded: no sockets, no locks.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A stream of messages, each a header and a body, in the byte order of the node. Who connects sends HELLO, who serves
 * answers WELCOME. Then a subscriber reads: TEXT, and CHANGES after every change,
 * or another TEXT; of a server or to a client of a minor version before 3 always TEXT. CHANGES have the form of a
 * descriptor (descriptor/decode.cc), and are from a generation that it was told of before. To a client of a minor
 * version before 4 they tell only which regions came and went. Since 4 they also tell of regions that it was told of
 * that they are others: that they sleep or woke, or have another digest. It may send ASK, and gets
 * for each, in order, GIVEN until it has all files of the request, or DENIED in the place of those that are left. From
 * its first ASK on neither comes, so that what it maps does not change meanwhile, until it says DONE, was denied, or
 * has not gone on for a second. What it is denied since it was withdrawn comes after what tells so. AWAIT asks what the
 * subscriber still holds of generations before the one that it was told last; it answers HOLDS, as soon as that is
 * nothing, and at most once before. The next AWAIT comes after that.
 *
 * A subscriber sends messages of users as MESSAGEs: number 0 tells its engine's id, then come 1, 2 and so on. Each is
 * cut into chunks, in order, all but the last of NVLXI_PROTOCOL_CHUNK bytes, so that an ASK or HOLDS may come between.
 * TAKEN tells how many messages the server has put into its queue for users, and how much of them users have read:
 * their bytes, and NVLXI_MESSAGE_COST more for each. What is sent and not read is at most NVLXI_MESSAGE_WINDOW: so the
 * server never has to stop reading.
 *
 * Since minor version 5 a subscriber that was told a descriptor may ask by STATS for the server's counts, and gets a
 * REPORT with the same number: the text, or a code and why it is not told. A newer STATS may take the place of one that
 * is not answered yet.
 *
 * Of a server of minor version 0 files come to a
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
#define NVLXI_PROTOCOL_MINOR                                                                                           \
    6u /* 1: ASK, GIVEN, DENIED, DONE; 2: AWAIT, HOLDS; 3: CHANGES, MESSAGE, TAKEN;                                    \
          4: CHANGES that alter a region; 5: STATS, REPORT; 6: HOLDS tells graphs */

#define NVLXI_PROTOCOL_HEADER       8u
#define NVLXI_PROTOCOL_GREETING_MAX 256u        /* bytes of a HELLO or WELCOME of whatever minor version */
#define NVLXI_PROTOCOL_REASON_MAX   255u        /* bytes of a refusal's text */
#define NVLXI_PROTOCOL_FILES_MAX    253u        /* file descriptors that one message may carry: the kernel's limit */
#define NVLXI_PROTOCOL_ENGINE       32u         /* digits of an engine's id */
#define NVLXI_PROTOCOL_CHANGES_MAX  (16u << 20) /* bytes of CHANGES: what is longer goes as a whole TEXT */
#define NVLXI_PROTOCOL_SHORT_MAX    512u        /* room for others than TEXT, CHANGES, FETCH, ASK, MESSAGE */
#define NVLXI_PROTOCOL_FETCH_MAX    (NVLXI_PROTOCOL_HEADER + NVLXI_PROTOCOL_FILES_MAX * sizeof(struct nvlxi_protocol_file))
#define NVLXI_PROTOCOL_ASK_MAX      (NVLXI_PROTOCOL_FETCH_MAX + 8)
#define NVLXI_PROTOCOL_CHUNK        16384u /* bytes of a message that one MESSAGE carries */
#define NVLXI_PROTOCOL_MESSAGE_MAX  (NVLXI_PROTOCOL_HEADER + 16u + NVLXI_PROTOCOL_CHUNK)

#define NVLXI_PROTOCOL_REPORT_MAX (1u << 20) /* bytes of the text of a REPORT */

#define NVLXI_MESSAGE_MAX    (64u << 10) /* bytes of a message; nvlxfer.h tells it, */
#define NVLXI_MESSAGE_COST   64u         /* as these two */
#define NVLXI_MESSAGE_WINDOW (1u << 20)

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
    NVLXI_PROTOCOL_CHANGES = 13, /* a descriptor's */
    NVLXI_PROTOCOL_MESSAGE = 14, /* part of a message of users */
    NVLXI_PROTOCOL_TAKEN = 15,
    NVLXI_PROTOCOL_STATS = 16, /* asks for counts */
    NVLXI_PROTOCOL_REPORT = 17
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
    uint32_t graphs, unused;      /* of the transfers: parts of graphs. Since minor version 6, before left out */
};

struct nvlxi_protocol_message { /* one chunk */
    uint64_t number;            /* of the message; 0: the sender's id */
    uint32_t length, offset;    /* of the whole message; of the chunk in it */
};

struct nvlxi_protocol_taken {
    uint64_t messages; /* that are in the queue, or were */
    uint64_t read;     /* bytes of those that users have read, with what each costs */
};

struct nvlxi_protocol_refusal {
    int code;                                 /* NVLX_E... */
    char text[NVLXI_PROTOCOL_REASON_MAX + 1]; /* UTF-8 without control characters */
};

struct nvlxi_protocol_report {
    uint32_t number;                       /* of the STATS that it answers */
    struct nvlxi_protocol_refusal refusal; /* code 0: there is none */
    const char *text;                      /* within the body */
    size_t length;
};

/* Each writes a whole message and returns its length. `out` has room for NVLXI_PROTOCOL_SHORT_MAX bytes, or for
 * NVLXI_PROTOCOL_FETCH_MAX, NVLXI_PROTOCOL_ASK_MAX or NVLXI_PROTOCOL_MESSAGE_MAX. */
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
size_t nvlxi_protocol_put_holds(uint8_t *out, const struct nvlxi_protocol_holds *holds, bool graphs);
/* The chunk at message->offset of these bytes, which are the whole message. */
size_t nvlxi_protocol_put_message(uint8_t *out, const struct nvlxi_protocol_message *message, const uint8_t *bytes);
size_t nvlxi_protocol_put_taken(uint8_t *out, const struct nvlxi_protocol_taken *taken);
size_t nvlxi_protocol_put_stats(uint8_t *out, uint32_t number);
size_t nvlxi_protocol_put_no_report(uint8_t *out, uint32_t number, int code, const char *reason);
/* What stands before the text, which follows. */
size_t nvlxi_protocol_put_report(uint8_t *out, uint32_t number, size_t length);
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
int nvlxi_protocol_get_holds(const uint8_t *body, size_t length, struct nvlxi_protocol_holds *holds);
/* *chunk: its bytes, `count` of them, within the body. */
int nvlxi_protocol_get_message(const uint8_t *body, size_t length, struct nvlxi_protocol_message *message,
                               const uint8_t **chunk, size_t *count);
void nvlxi_protocol_get_taken(const uint8_t *body, struct nvlxi_protocol_taken *taken);
int nvlxi_protocol_get_stats(const uint8_t *body, uint32_t *number);
int nvlxi_protocol_get_report(const uint8_t *body, size_t length, struct nvlxi_protocol_report *report);
int nvlxi_protocol_get_given(const uint8_t *body, uint32_t *request, size_t *count);
int nvlxi_protocol_get_denied(const uint8_t *body, size_t length, uint32_t *request,
                              struct nvlxi_protocol_refusal *refusal);

#endif
