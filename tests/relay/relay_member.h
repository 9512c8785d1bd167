/* A source or a reader of a relay, as a child that a test gives orders to. SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_MEMBER_H
#define RELAY_MEMBER_H

#include "support.h"

/* Its role is for every test's list of roles. */
#define MEMBER_ROLE                                                                                                    \
    { "member", member_role }
void member_role(int socket);

enum shape {        /* of the parts */
             ONE,   /* of member_bytes */
             MANY,  /* 300 parts of odd lengths, some of 0 bytes; 8 MiB or so in all */
             SHORT, /* as ONE, but one byte is missing */
             OTHER, /* as ONE, with another name */
             MORE,  /* as ONE, and a part that nobody has */
};

size_t member_bytes(void); /* 16 MiB or so; less with a sanitizer */
#define MEMBER_PIECE (128 * KIB)

struct member {
    struct child child;
};

struct outcome {
    int code;
    char error[512];
    uint64_t wrong; /* bytes that are not the seed's */
    long lanes;     /* that its process has made */
    long kernels;   /* that have copied there */
    struct nvlx_relay_info info;
};

void member_start(struct member *member, int gpu, enum shape shape);
void member_end(struct member *member);

/* Each is the call of that name, in the child. The options of a source are those of the last argument. */
struct outcome member_offer(struct member *member, const char *address, uint32_t seed,
                            const struct nvlx_relay_options *options);
struct outcome member_join(struct member *member, const char *address, int64_t timeout_ns);
struct outcome member_wait(struct member *member, int64_t timeout_ns);
/* In two steps, so that several wait at a time; the second one is that of both. */
void member_join_begin(struct member *member, const char *address, int64_t timeout_ns);
void member_wait_begin(struct member *member, int64_t timeout_ns);
struct outcome member_wait_end(struct member *member);
struct outcome member_hold(struct member *member);
struct outcome member_next(struct member *member);
struct outcome member_free(struct member *member, int64_t timeout_ns);

struct nvlx_relay_info member_info(struct member *member);
long member_lanes(struct member *member);
long member_kernels(struct member *member);
/* From now on a reader takes 3 s for all bytes, however fast it is: so a test can do something in their middle. */
void member_slow(struct member *member, bool slow);
void member_fill(struct member *member, uint32_t seed);
/* Changes one byte of its parts behind the library's back. */
void member_damage(struct member *member);
/* How many bytes of its parts are not the seed's. */
uint64_t member_wrong(struct member *member, uint32_t seed);

#endif
