/* A second process that works a backend on command, for tests of what happens between processes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Test and peer can do the same things: `work` does them here, `peer_work` there. Each case that uses the peer ends
 * with peer_kill in its teardown, whatever happened. */
#ifndef DEVICE_PEER_H
#define DEVICE_PEER_H

#include "cmocka_main.h"
#include "device/device.h"

struct party { /* a process's use of a backend */
    const struct nvlxi_device_ops *ops;
    struct nvlxi_device *device;
    int gpus;
};

enum errand {
    ERRAND_ALLOC,  /* gpu, length, kind (0: cudaMalloc), chunk -> address */
    ERRAND_FREE,   /* address */
    ERRAND_EXPORT, /* address -> record */
    ERRAND_FILE,   /* address -> fd: a file descriptor for the allocation there, the caller's to close */
    ERRAND_MAP,    /* gpu, record -> address */
    ERRAND_UNMAP,  /* gpu, address */
    ERRAND_FILL,   /* address, length, seed: writes the seed's bytes by memcpy */
    ERRAND_CHECK,  /* address, length, seed -> wrong: bytes that are not the seed's */
    ERRAND_COPY,   /* gpu, address <- source, length: by a lane of its own, until it is complete */
    ERRAND_SIGNAL, /* gpu, address, value, add: by a lane of its own, until it is complete */
    ERRAND_REPLACE /* fd: closes what a handle leads to, and puts a pipe in its place */
};

struct message {
    enum errand errand;
    int code; /* of the errand */
    int gpu, fd;
    uint8_t seed;
    uint32_t kind;
    uint64_t chunk;
    uint64_t address, source, length, wrong, value;
    bool add;
    struct nvlxi_segment_record record;
};

extern struct party me;   /* this process: open on all GPUs */
extern struct child peer; /* pid 0: it is not started */

/* Opens a backend on all its GPUs. */
int party_open(const struct nvlxi_device_ops *ops, struct party *party);
const struct nvlxi_device_ops *party_ops(const char *name);

/* The party's alloc of cudaMalloc memory, and its map of one segment of another process, without files. */
int alloc_plain(const struct party *party, int gpu, size_t length, void **address);
int map_plain(const struct party *party, int gpu, const struct nvlxi_segment_record *record, uint64_t *address);

/* Does the errand, fills in what it yields, and returns its code. */
int work(struct party *party, struct message *message);
/* The same in the peer, which the first errand of a case starts. Fails the case if the peer does not answer in time. */
int peer_work(struct message *message);
struct message there(struct message message); /* that must succeed */

/* Polls an event until it is complete: 0, how it failed, or NVLX_ETIMEDOUT. */
int await(const struct nvlxi_device_ops *ops, struct nvlxi_event *event);

/* Byte `i` of what a seed stands for. */
uint8_t seed_byte(uint8_t seed, uint64_t i);

void peer_kill(void); /* SIGKILL, and waits until it is gone; allowed if it was never started */

/* What the peer does: its role is for the program's list of roles. */
#define PEER_ROLE                                                                                                      \
    { "peer", peer_role }
#define PEER_SECONDS 120
void peer_role(int socket);

#endif
