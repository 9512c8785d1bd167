/* The digest of registered memory, which nvlxfer.h defines.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * The GPU that has the memory digests the leaves, some thousand a round; the host digests their digests while the next
 * round goes on. A leaf that lies in memory of two GPUs is fetched, and digested by the host. */
#ifndef NVLXI_LOCAL_DIGEST_H
#define NVLXI_LOCAL_DIGEST_H

#include <pthread.h>

#include "local/registration.h"

struct nvlxi_digester {
    struct nvlxi_registration *registration;
    pthread_mutex_t mutex;
    struct nvlxi_desk *desks; /* list: where nobody is working */
};

void nvlxi_digester_init(struct nvlxi_digester *digester, struct nvlxi_registration *registration);
void nvlxi_digester_free(struct nvlxi_digester *digester);

/* Waits for the kernels: no lock is held. The memory stays until it returns: the caller sees to it. */
int nvlxi_digest(struct nvlxi_digester *digester, uint64_t address, uint64_t length, uint64_t *value);

#endif
