/* The digest of registered memory, which nvlxfer.h defines.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A leaf that lies in memory of two GPUs is fetched, and digested by the host; all others as leaves.h has it. */
#ifndef NVLXI_LOCAL_DIGEST_H
#define NVLXI_LOCAL_DIGEST_H

#include "local/leaves.h"
#include "local/registration.h"

struct nvlxi_digester {
    struct nvlxi_registration *registration;
    struct nvlxi_desks desks;
    struct nvlxi_digest_work *works; /* list: those that read memory now; under the mutex of the desks */
};

void nvlxi_digester_init(struct nvlxi_digester *digester, struct nvlxi_registration *registration);
void nvlxi_digester_free(struct nvlxi_digester *digester);

/* Waits for the kernels: no lock is held. */
int nvlxi_digest(struct nvlxi_digester *digester, uint64_t address, uint64_t length, uint64_t *value);

/* Whether a digest in flight reads any of these bytes. */
bool nvlxi_digester_uses(struct nvlxi_digester *digester, uint64_t address, uint64_t length);

#endif
