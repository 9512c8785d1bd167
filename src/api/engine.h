/* An engine's inside, and what the files of exported functions share.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_API_ENGINE_H
#define NVLXI_API_ENGINE_H

#include "base/error.h"
#include "lifetime/closer.h"
#include "lifetime/revocation.h"
#include "local/digest.h"
#include "rendezvous/rendezvous.h"
#include "transfer/transfer.h"

struct nvlx_engine {
    const volatile char *alive; /* 1; in a forked child 0: see fork.h */
    struct nvlxi_context context;
    struct nvlxi_tables tables;
    struct nvlxi_registration registration;
    struct nvlxi_remote remote;
    struct nvlxi_transfers transfers;
    struct nvlxi_revocations revocations;
    struct nvlxi_closer closer;
    struct nvlxi_events events;
    struct nvlxi_rendezvous rendezvous;
    atomic_bool exported, told; /* a text was given out; it was said that nobody waits for who has one */
    struct nvlxi_digester digester;
    pthread_mutex_t mutex;          /* guards the two below */
    struct nvlx_peer *peers;        /* list */
    struct allocation *allocations; /* hash set by address */
};

/* On the given backend, whatever the configuration says of it. */
int nvlxi_engine_create(const struct nvlx_config *config, const struct nvlxi_device_ops *ops,
                        struct nvlx_engine **engine);

/* Once: that nobody waits for peers that were made from a text, if one was given out. */
void nvlxi_engine_tell_untracked(struct nvlx_engine *engine);

/* ---- Arguments: checked before any lock ----------------------------------------------------------------- */

/* Why the engine cannot be used: it is NULL, or of this process's parent. */
int nvlxi_engine_refuse(const struct nvlx_engine *engine);

static inline int nvlxi_engine_check(const struct nvlx_engine *engine) {
    return nvlxi_likely(engine && *engine->alive) ? 0 : nvlxi_engine_refuse(engine);
}

static inline int nvlxi_pointer_check(const void *pointer, const char *name) {
    return nvlxi_likely(pointer != NULL) ? 0 : nvlxi_fail(NVLX_EINVAL, "%s is NULL", name);
}

static inline int nvlxi_mechanism_check(uint32_t mechanism) {
    if (mechanism <= NVLX_MECHANISM_KERNEL)
        return 0;
    return nvlxi_fail(NVLX_EINVAL, "mechanism %u is not one of NVLX_MECHANISM_...", (unsigned)mechanism);
}

#endif
