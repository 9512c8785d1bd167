/* A library before libnvlxfer: ends the process if an object is used after it was freed, or freed while another thread
 * is inside a call on it, and hangs on demand, as behind a GPU that does not go on.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <nvlxfer.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 65536u

int nvlx_watch_hang;    /* set by the test: nothing completes, nothing is freed */
long nvlx_watch_checks; /* how often the table was asked */

static struct slot {
    const void *object;
    struct slot *engine; /* that it came from; an engine's own */
    int inside;          /* calls */
    int inside_all;      /* of an engine: those on what came from it */
    int freed;
} slots[SLOTS];
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static void give_up(const char *what, const char *function, const void *object) {
    fprintf(stderr, "watch: %s: %s: %p\n", function, what, object);
    abort();
}

/* Under the mutex. */
static struct slot *find(const void *object) {
    unsigned at = (unsigned)((uintptr_t)object >> 4) * 2654435761u % SLOTS;
    while (slots[at].object && slots[at].object != object)
        at = (at + 1) % SLOTS;
    if (!slots[at].object)
        slots[at] = (struct slot){.object = object, .engine = &slots[at]};
    return &slots[at];
}

static void enter(const char *function, const void *object) {
    pthread_mutex_lock(&mutex);
    nvlx_watch_checks++;
    if (find(object)->freed)
        give_up("was freed", function, object);
    find(object)->inside++;
    find(object)->engine->inside_all++;
    pthread_mutex_unlock(&mutex);
}

static void leave(const void *object) {
    pthread_mutex_lock(&mutex);
    find(object)->inside--;
    find(object)->engine->inside_all--;
    pthread_mutex_unlock(&mutex);
}

static void made(const void *object, const void *from) {
    pthread_mutex_lock(&mutex);
    find(object)->freed = 0;
    if (from)
        find(object)->engine = from == object ? find(object) : find(from)->engine;
    pthread_mutex_unlock(&mutex);
}

static void freeing(const char *function, const void *object) {
    pthread_mutex_lock(&mutex);
    nvlx_watch_checks++;
    if (find(object)->freed)
        give_up("is freed twice", function, object);
    if (find(object)->inside || (find(object)->engine->object == object && find(object)->inside_all))
        give_up("is freed under a call", function, object);
    find(object)->freed = 1;
    pthread_mutex_unlock(&mutex);
}

static int hanging(void) {
    return __atomic_load_n(&nvlx_watch_hang, __ATOMIC_SEQ_CST);
}

/* Whether it still hangs after the time; < 0: waits for ever. */
static int hang(int64_t nanoseconds) {
    for (int64_t left = nanoseconds; hanging() && (nanoseconds < 0 || left > 0); left -= 1000000)
        usleep(1000);
    return hanging();
}

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

/* A call on an object. */
#define USES(name, object, parameters, arguments)                                                                      \
    int name parameters {                                                                                              \
        enter(#name, object);                                                                                          \
        int code = REAL(name) arguments;                                                                               \
        leave(object);                                                                                                 \
        return code;                                                                                                   \
    }

/* One that makes an object. */
#define MAKES(name, object, parameters, arguments, result)                                                             \
    int name parameters {                                                                                              \
        enter(#name, object);                                                                                          \
        int code = REAL(name) arguments;                                                                               \
        leave(object);                                                                                                 \
        if (!code)                                                                                                     \
            made(*(result), object);                                                                                   \
        return code;                                                                                                   \
    }

/* One that frees the object, unless it fails. */
#define FREES(name, object, parameters, arguments)                                                                     \
    int name parameters {                                                                                              \
        freeing(#name, object);                                                                                        \
        hang(-1);                                                                                                      \
        int code = REAL(name) arguments;                                                                               \
        if (code == NVLX_EBUSY)                                                                                        \
            made(object, NULL);                                                                                        \
        return code;                                                                                                   \
    }

USES(nvlx_engine_get_info, e, (struct nvlx_engine * e, struct nvlx_engine_info *i), (e, i))
USES(nvlx_export, e, (struct nvlx_engine * e, char **t, size_t *l), (e, t, l))
USES(nvlx_peer_find, p, (struct nvlx_peer * p, const char *n, uint64_t *a, uint64_t *l), (p, n, a, l))
USES(nvlx_peer_test, p, (struct nvlx_peer * p), (p))
USES(nvlx_peer_map, p, (struct nvlx_peer * p, int g, uint64_t a, uint64_t l), (p, g, a, l))
USES(nvlx_peer_wake, p, (struct nvlx_peer * p), (p))
USES(nvlx_request_get_info, r, (struct nvlx_request * r, struct nvlx_request_info *i), (r, i))
MAKES(nvlx_register, e,
      (struct nvlx_engine * e, const void *a, size_t l, const struct nvlx_region_options *o, struct nvlx_region **r),
      (e, a, l, o, r), r)
MAKES(nvlx_connect, e, (struct nvlx_engine * e, const char *a, int64_t t, struct nvlx_peer **p), (e, a, t, p), p)
MAKES(nvlx_peer_open, e, (struct nvlx_engine * e, const char *t, size_t l, struct nvlx_peer **p), (e, t, l, p), p)
MAKES(nvlx_prepare, e,
      (struct nvlx_engine * e, const struct nvlx_op *o, size_t c, const struct nvlx_transfer_options *t,
       struct nvlx_prepared **p),
      (e, o, c, t, p), p)
MAKES(nvlx_post, p, (struct nvlx_prepared * p, const struct nvlx_transfer_options *o, struct nvlx_request **r),
      (p, o, r), r)
FREES(nvlx_peer_close, p, (struct nvlx_peer * p), (p))
FREES(nvlx_prepared_free, p, (struct nvlx_prepared * p), (p))
FREES(nvlx_request_free, r, (struct nvlx_request * r), (r))
FREES(nvlx_engine_destroy, e, (struct nvlx_engine * e), (e))

int nvlx_engine_create(const struct nvlx_config *config, struct nvlx_engine **engine) {
    int code = REAL(nvlx_engine_create)(config, engine);
    if (!code)
        made(*engine, *engine);
    return code;
}

/* Its ops name peers, which nobody may free meanwhile. */
int nvlx_transfer(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count,
                  const struct nvlx_transfer_options *options, struct nvlx_request **request) {
    enter("nvlx_transfer", engine);
    for (size_t i = 0; i < count; i++)
        enter("nvlx_transfer", ops[i].peer);
    int code = REAL(nvlx_transfer)(engine, ops, count, options, request);
    for (size_t i = 0; i < count; i++)
        leave(ops[i].peer);
    leave(engine);
    if (!code)
        made(*request, engine);
    return code;
}

int nvlx_memcpy(struct nvlx_engine *engine, void *destination, const void *source, size_t length) {
    enter("nvlx_memcpy", engine);
    hang(-1);
    int code = REAL(nvlx_memcpy)(engine, destination, source, length);
    leave(engine);
    return code;
}

int nvlx_test(struct nvlx_request *request) {
    enter("nvlx_test", request);
    int code = hanging() ? NVLX_EAGAIN : REAL(nvlx_test)(request);
    leave(request);
    return code;
}

int nvlx_wait(struct nvlx_request *request, int64_t timeout) {
    enter("nvlx_wait", request);
    int code = hang(timeout) ? NVLX_ETIMEDOUT : REAL(nvlx_wait)(request, timeout);
    leave(request);
    return code;
}

int nvlx_unregister(struct nvlx_region *region, int64_t timeout) {
    freeing("nvlx_unregister", region);
    int code = hang(timeout) ? NVLX_ETIMEDOUT : REAL(nvlx_unregister)(region, timeout);
    if (code)
        made(region, NULL);
    return code;
}
