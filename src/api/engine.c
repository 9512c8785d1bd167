/* The exported functions of engines, regions and peers: they check the arguments, take the engine apart, and call the
 * modules below. Those of memory are in memory.c, those of transfers in transfers.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include "api/engine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

#include "api/abi.h"
#include "api/backend.h"
#include "api/fork.h"
#include "api/graphs.h"
#include "api/stats.h"
#include "base/error.h"
#include "base/identity.h"
#include "base/log.h"
#include "base/thread.h"
#include "remote/link.h"

int nvlxi_engine_refuse(const struct nvlx_engine *engine) {
    if (!engine)
        return nvlxi_fail(NVLX_EINVAL, "the engine is NULL");
    return nvlxi_fail(NVLX_EFORK,
                      "process %ld is a forked child: make an engine of its own, on cuda only if CUDA was not used "
                      "before the fork",
                      (long)getpid());
}

/* ---- Engine ------------------------------------------------------------------------------------------ */

static int count_gpus(uint32_t backend, int *count) {
    const struct nvlxi_device_ops *ops;
    int gpus, code = nvlxi_pointer_check(count, "count");
    if (!code)
        code = nvlxi_backend_find(backend, &ops);
    if (!code)
        code = ops->count(&gpus);
    if (!code)
        *count = gpus;
    return code;
}

int nvlx_gpu_count(uint32_t backend, int *count) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, count_gpus(backend, count));
}

static int init_modules(struct nvlx_engine *engine, const struct nvlx_config *config) {
    struct nvlxi_registration *registration = &engine->registration;
    struct nvlxi_remote *remote = &engine->remote;
    struct nvlxi_transfers *transfers = &engine->transfers;
    engine->context.tables = &engine->tables;
    engine->context.metrics = &engine->metrics;
    registration->engine = transfers->engine = engine;
    transfers->registration = registration;
    transfers->desks = &engine->digester.desks;
    transfers->max_requests = config->max_requests ? config->max_requests : NVLXI_REQUESTS_DEFAULT;
    transfers->mechanism = config->mechanism ? config->mechanism : NVLX_MECHANISM_AUTO;
    transfers->max_sms = config->max_sms;
    int code = nvlxi_remote_init(remote, &engine->context);
    if (code)
        return code;
    code = nvlxi_registration_init(registration, &engine->context);
    if (code) {
        nvlxi_remote_free(remote);
        return code;
    }
    nvlxi_tables_init(&engine->tables);
    pthread_mutex_init(&engine->mutex, NULL);
    nvlxi_transfers_init(transfers, &engine->context,
                         config->list_memory ? config->list_memory : NVLXI_LIST_MEMORY_DEFAULT);
    nvlxi_revocations_init(&engine->revocations);
    nvlxi_closer_init(&engine->closer, transfers);
    nvlxi_events_init(&engine->events);
    nvlxi_rendezvous_init(&engine->rendezvous, registration, remote, &engine->revocations, &engine->closer,
                          &engine->events);
    engine->rendezvous.reporter = (struct nvlxi_reporter){.write = nvlxi_stats_text, .context = engine};
    nvlxi_digester_init(&engine->digester, registration);
    nvlxi_signals_init(engine);
    return 0;
}

int nvlxi_engine_create(const struct nvlx_config *config, const struct nvlxi_device_ops *ops,
                        struct nvlx_engine **engine) {
    struct nvlx_engine *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for an engine");
    made->context.ops = ops;
    nvlxi_backend_trace();
    int code = nvlxi_fork_page_make(&made->alive);
    if (code)
        goto free_engine;
    if ((code = nvlxi_identity_make(&made->context.identity)))
        goto unmake_alive;
    if ((code = ops->open(config->gpus, config->gpu_count, &made->context.device)))
        goto unmake_alive;
    if ((code = init_modules(made, config)))
        goto close_device;
    nvlxi_log(NVLX_LOG_INFO, "engine %s on backend %s with %d GPUs", made->context.identity.engine, ops->name,
              made->remote.gpus);
    *engine = made;
    return 0;
close_device:
    ops->close(made->context.device);
unmake_alive:
    nvlxi_fork_page_free(made->alive);
free_engine:
    free(made);
    return code;
}

static int create_engine(const struct nvlx_config *config, struct nvlx_engine **engine) {
    struct nvlx_config known;
    const struct nvlxi_device_ops *ops;
    nvlx_config_init(&known);
    int code = nvlxi_pointer_check(engine, "engine");
    if (!code)
        code = nvlxi_struct_take(&known, sizeof known, config, "nvlx_config");
    if (!code && known.gpu_count && !known.gpus)
        code = nvlxi_fail(NVLX_EINVAL, "config.gpus is NULL and config.gpu_count is %zu", known.gpu_count);
    if (!code && known.gpus && !known.gpu_count)
        code = nvlxi_fail(NVLX_EINVAL, "config.gpus is set and config.gpu_count is 0: name a GPU, or leave it NULL");
    if (!code)
        code = nvlxi_mechanism_check(known.mechanism);
    if (!code)
        code = nvlxi_backend_find(known.backend, &ops);
    return code ? code : nvlxi_engine_create(&known, ops, engine);
}

int nvlx_engine_create(const struct nvlx_config *config, struct nvlx_engine **engine) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, create_engine(config, engine));
}

static int destroy_engine(struct nvlx_engine *engine) {
    struct nvlx_peer *peer, *next;
    if (!engine)
        return 0;
    int failed, code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_graphs_refuse(engine, NULL)))
        return code;
    nvlxi_waits_finish(&engine->waits);         /* transfers may be behind them in streams */
    nvlxi_transfers_finish(&engine->transfers); /* first: owners wait for them as long as there are connections */
    code = nvlxi_clients_end_messages(&engine->rendezvous.clients);
    DL_FOREACH(engine->peers, peer) {
        failed = nvlxi_peer_let_go(peer);
        code = code ? code : failed;
    }
    nvlxi_closer_stop(&engine->closer);         /* it answers over the connections */
    nvlxi_rendezvous_free(&engine->rendezvous); /* its thread uses all the others */
    nvlxi_events_clear(&engine->events);
    nvlxi_transfers_free(&engine->transfers);
    nvlxi_digester_free(&engine->digester);
    nvlxi_waits_free(&engine->waits);
    DL_FOREACH_SAFE(engine->peers, peer, next) {
        failed = nvlxi_peer_close(peer);
        code = code ? code : failed;
    }
    nvlxi_closer_free(&engine->closer);
    nvlxi_revocations_free(&engine->revocations);
    nvlxi_registration_free(&engine->registration);
    nvlxi_remote_free(&engine->remote);
    nvlxi_events_free(&engine->events);
    failed = nvlxi_engine_free_allocations(engine);
    engine->context.ops->close(engine->context.device);
    nvlxi_tables_destroy(&engine->tables);
    pthread_mutex_destroy(&engine->mutex);
    nvlxi_fork_page_free(engine->alive);
    free(engine);
    return code ? code : failed;
}

int nvlx_engine_destroy(struct nvlx_engine *engine) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, destroy_engine(engine));
}

const char *nvlx_backend_name(const struct nvlx_engine *engine) {
    return engine ? engine->context.ops->name : "";
}

/* ---- Registration ------------------------------------------------------------------------------------ */

static int register_range(struct nvlx_engine *engine, const void *address, size_t length,
                          const struct nvlx_region_options *options, struct nvlx_region **region) {
    struct nvlx_region_options known;
    nvlx_region_options_init(&known);
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(region, "region")) ||
        (code = nvlxi_struct_take(&known, sizeof known, options, "nvlx_region_options")) ||
        (length && (code = nvlxi_pointer_check(address, "address"))))
        return code;
    return nvlxi_registration_add(&engine->registration, (uint64_t)(uintptr_t)address, length, &known, region);
}

int nvlx_register(struct nvlx_engine *engine, const void *address, size_t length,
                  const struct nvlx_region_options *options, struct nvlx_region **region) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, register_range(engine, address, length, options, region));
}

/* Peers that were made from a text cannot be asked what they hold. */
void nvlxi_engine_tell_untracked(struct nvlx_engine *engine) {
    if (atomic_load(&engine->exported) && !atomic_exchange(&engine->told, true))
        nvlxi_log(NVLX_LOG_INFO, "descriptors were given out as text: nobody waits for peers that were "
                                 "made from one by nvlx_peer_open");
}

static int unregister(struct nvlx_region *region, int64_t timeout_ns) {
    int code = nvlxi_pointer_check(region, "region");
    if (code || (code = nvlxi_engine_check(region->engine)))
        return code;
    struct nvlx_engine *engine = region->engine;
    const uint64_t deadline = nvlxi_deadline(timeout_ns);
    char what[80];
    snprintf(what, sizeof what, "the region at 0x%" PRIx64 " of %" PRIu64 " bytes", region->address, region->length);
    nvlxi_transfers_progress(&engine->transfers);
    code = nvlxi_registration_withdraw(&engine->registration, region, nvlxi_find_users, engine);
    if (code)
        return code == NVLX_EBUSY ? nvlxi_fail(code, "%s uses %s%s", nvlxi_users_name(NVLXI_A_PREPARED_LIST), what,
                                               nvlxi_users_advice(NVLXI_A_PREPARED_LIST))
                                  : code;
    const struct nvlxi_withdrawn withdrawn = {.what = what, .since = region->known, .without = region->unknown};
    const struct nvlxi_own own = nvlxi_engine_own(engine);
    if (region->length && !region->stale)
        code = nvlxi_own_wait(&own, region->address, region->length, NVLX_ESTALE, what, deadline);
    if (!code && region->access && !region->asleep) /* else that was waited for when it fell asleep */
        code = nvlxi_file_wait(&engine->registration, what, deadline);
    if (region->access)
        nvlxi_engine_tell_untracked(engine);
    const bool followed = region->access && region->length && !region->asleep;
    if (!code && followed && atomic_load(&engine->registration.held))
        return nvlxi_fail(NVLX_ETIMEDOUT, "%s is withdrawn, but peers are not told before nvlx_publish", what);
    if (!code && followed)
        code = nvlxi_revocations_wait(&engine->revocations, &withdrawn, deadline);
    if (code)
        return code;
    nvlxi_registration_free_region(&engine->registration, region);
    return 0;
}

int nvlx_unregister(struct nvlx_region *region, int64_t timeout_ns) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, unregister(region, timeout_ns));
}

static int export_text(struct nvlx_engine *engine, char **text, size_t *length) {
    uint64_t generation;
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(text, "text")) || (code = nvlxi_pointer_check(length, "length")))
        return code;
    atomic_store(&engine->exported, true);
    return nvlxi_publisher_text(&engine->rendezvous.publisher, text, length, &generation);
}

int nvlx_export(struct nvlx_engine *engine, char **text, size_t *length) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, export_text(engine, text, length));
}

void nvlx_text_free(char *text) {
    free(text);
}

/* ---- Peers ------------------------------------------------------------------------------------------- */

static int check_peer(const struct nvlx_peer *peer) {
    int code = nvlxi_pointer_check(peer, "peer");
    return code ? code : nvlxi_engine_check(peer->engine);
}

/* What is known of a peer of nvlx_connect may change meanwhile. */
static void keep_peer(struct nvlx_engine *engine, struct nvlx_peer *peer) {
    char address[NVLXI_ADDRESS_MAX + 1];
    nvlxi_tables_read(&engine->tables);
    const struct nvlxi_identity identity = peer->table->descriptor->identity;
    snprintf(address, sizeof address, "%s", peer->table->descriptor->address);
    nvlxi_tables_read_end(&engine->tables);
    peer->engine = engine;
    pthread_mutex_lock(&engine->mutex);
    DL_APPEND(engine->peers, peer);
    peer->cell = nvlxi_metrics_join(&engine->metrics, identity.engine, identity.pid, address);
    pthread_mutex_unlock(&engine->mutex);
}

int nvlx_peer_open(struct nvlx_engine *engine, const char *text, size_t length, struct nvlx_peer **peer) {
    struct nvlx_peer *made;
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(text, "text")) || (code = nvlxi_pointer_check(peer, "peer")))
        return code;
    code = nvlxi_peer_open(&engine->remote, text, length, &made);
    if (code)
        return code;
    keep_peer(engine, made);
    *peer = made;
    return 0;
}

static int serve(struct nvlx_engine *engine, const char *address, const struct nvlx_serve_options *options) {
    struct nvlx_serve_options known;
    nvlx_serve_options_init(&known);
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(address, "address")) ||
        (code = nvlxi_struct_take(&known, sizeof known, options, "nvlx_serve_options")))
        return code;
    return nvlxi_rendezvous_serve(&engine->rendezvous, address, &known);
}

int nvlx_serve(struct nvlx_engine *engine, const char *address, const struct nvlx_serve_options *options) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, serve(engine, address, options));
}

static int connect_peer(struct nvlx_engine *engine, const char *address, int64_t timeout_ns, struct nvlx_peer **peer) {
    struct nvlx_peer *made;
    int code = nvlxi_engine_check(engine);
    if (code || (code = nvlxi_pointer_check(address, "address")) || (code = nvlxi_pointer_check(peer, "peer")))
        return code;
    code = nvlxi_rendezvous_connect(&engine->rendezvous, address, timeout_ns, &made);
    if (code)
        return code;
    keep_peer(engine, made);
    *peer = made;
    return 0;
}

int nvlx_connect(struct nvlx_engine *engine, const char *address, int64_t timeout_ns, struct nvlx_peer **peer) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, connect_peer(engine, address, timeout_ns, peer));
}

int nvlx_peer_test(struct nvlx_peer *peer) {
    int code = check_peer(peer);
    return code ? code : nvlxi_peer_test(peer);
}

static int update_peer(struct nvlx_peer *peer, const char *text, size_t length) {
    int code = check_peer(peer);
    if (code || (code = nvlxi_pointer_check(text, "text")))
        return code;
    code = nvlxi_peer_update(peer, text, length);
    nvlxi_closer_add(&peer->engine->closer, peer);
    return code;
}

int nvlx_peer_update(struct nvlx_peer *peer, const char *text, size_t length) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, update_peer(peer, text, length));
}

int nvlx_peer_find(struct nvlx_peer *peer, const char *name, uint64_t *address, uint64_t *length) {
    int code = check_peer(peer);
    if (code || (code = nvlxi_pointer_check(name, "name")) || (code = nvlxi_pointer_check(address, "address")) ||
        (code = nvlxi_pointer_check(length, "length")))
        return code;
    return nvlxi_peer_find(peer, name, address, length);
}

static int map_peer(struct nvlx_peer *peer, int gpu, uint64_t address, uint64_t length) {
    int code = check_peer(peer);
    if (!code)
        code = nvlxi_mapping_open_range(peer, gpu, address, length);
    if (!code)
        peer->engine->context.ops->load(peer->engine->context.device, gpu);
    return code;
}

int nvlx_peer_map(struct nvlx_peer *peer, int gpu, uint64_t address, uint64_t length) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, map_peer(peer, gpu, address, length));
}

int nvlx_peer_wake(struct nvlx_peer *peer) {
    int code = check_peer(peer);
    if (!code && !(code = nvlxi_peer_check(peer)))
        nvlxi_peer_wake(peer, -1);
    return code;
}

static int close_peer(struct nvlx_peer *peer) {
    if (!peer)
        return 0;
    int code = check_peer(peer);
    if (code)
        return code;
    struct nvlx_engine *engine = peer->engine;
    if (nvlxi_prepared_names(&engine->transfers, peer))
        return nvlxi_fail(NVLX_EBUSY, "a prepared list or a table of blocks names the peer: free it first "
                                      "(nvlx_prepared_free, nvlx_blocks_free)");
    if ((code = nvlxi_graphs_refuse(engine, peer)))
        return code;
    nvlxi_waits_leave(&engine->waits, peer);
    for (uint64_t since = nvlxi_now_ns();; nvlxi_pause(since)) {
        nvlxi_transfers_progress(&engine->transfers);
        if (!atomic_load(&peer->pins))
            break;
    }
    code = nvlxi_peer_let_go(peer);
    const int untaken = nvlxi_rendezvous_leave(&engine->rendezvous, peer);
    nvlxi_closer_leave(&engine->closer, peer);
    nvlxi_events_drop(&engine->events, &peer->wait_failed);
    struct nvlxi_peer_cell *cell = peer->cell;
    pthread_mutex_lock(&engine->mutex);
    DL_DELETE(engine->peers, peer);
    pthread_mutex_unlock(&engine->mutex);
    const int failed = nvlxi_peer_close(peer);
    pthread_mutex_lock(&engine->mutex);
    nvlxi_metrics_leave(&engine->metrics, cell);
    pthread_mutex_unlock(&engine->mutex);
    return code ? code : failed ? failed : untaken;
}

int nvlx_peer_close(struct nvlx_peer *peer) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, close_peer(peer));
}
