/* An engine's inside, and what the files of exported functions share.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_API_ENGINE_H
#define NVLXI_API_ENGINE_H

#include "base/error.h"
#include "lifetime/closer.h"
#include "lifetime/revocation.h"
#include "lifetime/suspension.h"
#include "lifetime/waits.h"
#include "local/digest.h"
#include "rendezvous/rendezvous.h"
#include "transfer/transfer.h"

#define NVLXI_REQUESTS_DEFAULT    4096u        /* where config.max_requests is 0 */
#define NVLXI_LIST_MEMORY_DEFAULT (256u << 20) /* bytes; where config.list_memory is 0 */

struct nvlx_engine {
    const volatile char *alive; /* 1; in a forked child 0: see fork.h */
    struct nvlxi_context context;
    struct nvlxi_tables tables;
    struct nvlxi_metrics metrics; /* its cells are given out and read under `mutex` */
    struct nvlxi_registration registration;
    struct nvlxi_remote remote;
    struct nvlxi_transfers transfers;
    struct nvlxi_revocations revocations;
    struct nvlxi_closer closer;
    struct nvlxi_events events;
    struct nvlxi_rendezvous rendezvous;
    atomic_uint signals;        /* that nobody asks for */
    atomic_bool exported, told; /* a text was given out; it was said that nobody waits for who has one */
    struct nvlxi_digester digester;
    struct nvlxi_waits waits;
    pthread_mutex_t mutex;          /* guards the three below */
    struct nvlx_peer *peers;        /* list */
    struct allocation *allocations; /* hash set by address */
};

/* On the given backend, whatever the configuration says of it. */
int nvlxi_engine_create(const struct nvlx_config *config, const struct nvlxi_device_ops *ops,
                        struct nvlx_engine **engine);

/* In memory.c: frees what nvlx_alloc gave. */
int nvlxi_engine_free_allocations(struct nvlx_engine *engine);

/* In signals.c: streams' waits, and those of lists. */
void nvlxi_signals_init(struct nvlx_engine *engine);

static inline struct nvlxi_own nvlxi_engine_own(struct nvlx_engine *engine) {
    return (struct nvlxi_own){&engine->transfers, &engine->digester, &engine->waits};
}

/* Once: that nobody waits for peers that were made from a text, if one was given out. */
void nvlxi_engine_tell_untracked(struct nvlx_engine *engine);

/* ---- Arguments: checked before any lock ----------------------------------------------------------------- */

/* Counts a call that refused to start or to prepare a transfer. Returns its code. */
int nvlxi_engine_refused(struct nvlx_engine *engine, int code);

static inline int nvlxi_engine_note(struct nvlx_engine *engine, int code) {
    return nvlxi_likely(!code) ? 0 : nvlxi_engine_refused(engine, code);
}

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
