/* Lifetimes beside GPUs that compute: what a peer asks of a process is answered whatever its GPU runs, a withdrawn
 * segment is let go of in time, and a killed owner's memory is free again though nobody asks. Prints how long each
 * takes, and holds it to a limit.
 * Usage: cuda_busy [GIB [SECONDS]]: memory of the owner that is killed, and of the longest kernel; by default 8 and 3.
 * SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cuda/support/cuda_support.h"

#define PART        ((size_t)64 * MIB)
#define SPIN_WORDS  1024
#define TOLERANCE   (64 * MIB) /* of free memory: the driver's own */
#define MS_NS       INT64_C(1000000)
#define ASK_MS      20.0  /* in which a peer is answered */
#define FREE_MS     200.0 /* in which the memory of the dead is free */
#define WITHDRAW_MS 2.0   /* in which an idle reader has let go */

static void within(const char *what, double took, double limit) {
    printf("  %s: %.2f ms\n", what, took);
    if (took > limit)
        FAIL("%s took %.2f ms; at most %.0f are right", what, took, limit);
}

/* ---- A kernel that does not end for a while -------------------------------------------------------------- */

struct spinner {
    uint32_t *words;
    cudaStream_t stream;
};

static void spinner_make(struct spinner *spinner) {
    CUDA(cudaMalloc((void **)&spinner->words, SPIN_WORDS * sizeof *spinner->words));
    CUDA(cudaStreamCreateWithFlags(&spinner->stream, cudaStreamNonBlocking));
    CUDA(kernel_produce(spinner->words, SPIN_WORDS, 0, 1, spinner->stream));
    CUDA(cudaStreamSynchronize(spinner->stream));
}

/* Returns when it will end, at the earliest. */
static double spin(const struct spinner *spinner, double ms) {
    CUDA(kernel_produce(spinner->words, SPIN_WORDS, (uint64_t)(ms * 1e6), 1, spinner->stream));
    usleep(20000); /* so that it runs */
    EXPECT(cudaStreamQuery(spinner->stream) == cudaErrorNotReady);
    return now_ms() + ms - 20;
}

static void spinner_end(struct spinner *spinner) {
    CUDA(cudaStreamSynchronize(spinner->stream));
    CUDA(cudaStreamDestroy(spinner->stream));
    CUDA(cudaFree(spinner->words));
}

/* ---- An actor: another process, which owns, reads and computes as it is told ------------------------------ */

enum task { ALLOCATE, UNREGISTER, PUBLISH, RECEIVE, CONNECT, READ_BEHIND, AWAIT_READ, SPIN };

struct order {
    enum task task;
    uint32_t kind; /* NVLX_ALLOC_... */
    uint64_t count;
    double ms; /* of a spin, or the timeout of an unregister */
    char text[64];
};

struct answer {
    int code;
    uint64_t generation;
    double at, ms;
};

struct actor {
    int gpu;
    struct nvlx_engine *engine;
    struct spinner spinner;
    struct nvlx_peer *peer;
    struct nvlx_region *newest;
    void *local;
    struct nvlx_request *request;
    cudaEvent_t read; /* it is complete */
};

static struct nvlx_region *allocate_as(const struct actor *actor, uint32_t kind, size_t length, const char *name,
                                       void **memory) {
    struct nvlx_alloc_options options;
    nvlx_alloc_options_init(&options);
    options.flags = kind;
    OK(nvlx_alloc(actor->engine, actor->gpu, length, &options, memory));
    return register_range(actor->engine, *memory, length, name, NVLX_ACCESS_READ_WRITE);
}

/* `count` parts, named "<text>0" and so on. */
static void allocate_parts(struct actor *actor, const struct order *order) {
    char name[80];
    void *memory;
    for (uint64_t i = 0; i < order->count; i++) {
        snprintf(name, sizeof name, "%s%u", order->text, (unsigned)i);
        actor->newest = allocate_as(actor, order->kind, PART, name, &memory);
    }
}

static void receive(struct actor *actor, struct answer *answer) {
    struct pollfd ready = {.events = POLLIN};
    struct nvlx_event event = {.size = sizeof event};
    int code;
    OK(nvlx_event_fd(actor->engine, &ready.fd));
    while ((code = nvlx_next_event(actor->engine, &event)) == NVLX_EAGAIN ||
           (!code && event.kind != NVLX_EVENT_MESSAGE))
        EXPECT(poll(&ready, 1, 20000) == 1 || !code);
    OK(code);
    answer->at = now_ms();
}

static void map_parts(struct actor *actor, const struct order *order) {
    char name[16];
    OK(nvlx_connect(actor->engine, order->text, PATIENCE, &actor->peer));
    for (uint64_t i = 0; i < order->count; i++) {
        snprintf(name, sizeof name, "part%u", (unsigned)i);
        OK(nvlx_peer_map(actor->peer, actor->gpu, find(actor->peer, name), PART));
    }
}

/* Where the owner has it: the connection may tell of it a moment later. */
static uint64_t await_part(const struct actor *actor, const char *name) {
    uint64_t address, length;
    const double until = now_ms() + 5000;
    int code;
    while ((code = nvlx_peer_find(actor->peer, name, &address, &length)) == NVLX_ENOENT && now_ms() < until)
        usleep(1000);
    OK(code);
    return address;
}

/* Reads a part behind a kernel in a stream: in flight until that ends. */
static void read_behind(struct actor *actor, const struct order *order) {
    const uint64_t part = await_part(actor, order->text);
    CUDA(kernel_produce(actor->spinner.words, SPIN_WORDS, (uint64_t)(order->ms * 1e6), 1, actor->spinner.stream));
    actor->request =
        start_op(actor->engine, NVLX_OP_READ, actor->peer, actor->local, part, PART, actor->spinner.stream);
    CUDA(cudaEventCreateWithFlags(&actor->read, cudaEventDisableTiming));
    CUDA(cudaEventRecord(actor->read, actor->spinner.stream));
}

/* As CUDA sees it: nobody asks the library for the request. */
static void await_read(const struct actor *actor, struct answer *answer) {
    while (cudaEventQuery(actor->read) == cudaErrorNotReady)
        ;
    answer->at = now_ms();
    CUDA(cudaEventDestroy(actor->read));
}

static void obey(struct actor *actor, const struct order *order, struct answer *answer) {
    const double began = now_ms();
    switch (order->task) {
    case ALLOCATE:
        allocate_parts(actor, order);
        break;
    case UNREGISTER:
        answer->code = nvlx_unregister(actor->newest, (int64_t)(order->ms * MS_NS));
        if (answer->code)
            printf("  %s\n", nvlx_last_error());
        break;
    case PUBLISH:
        OK(nvlx_publish(actor->engine, &answer->generation));
        break;
    case RECEIVE:
        receive(actor, answer);
        break;
    case CONNECT:
        map_parts(actor, order);
        break;
    case READ_BEHIND:
        read_behind(actor, order);
        break;
    case AWAIT_READ:
        await_read(actor, answer);
        break;
    case SPIN:
        answer->at = spin(&actor->spinner, order->ms);
        break;
    }
    answer->ms = now_ms() - began;
}

static void actor_role(int socket) {
    struct actor actor = {.gpu = get_int(socket)};
    struct order order;
    char address[64];
    get(socket, address, sizeof address);
    CUDA(cudaSetDevice(actor.gpu));
    CUDA(kernels_load());
    actor.engine = engine_on(&actor.gpu, 1);
    spinner_make(&actor.spinner);
    OK(nvlx_unregister(allocate_as(&actor, 0, PART, "scratch", &actor.local), GPU_PATIENCE));
    register_range(actor.engine, actor.local, PART, NULL, NVLX_ACCESS_NONE);
    OK(nvlx_serve(actor.engine, address, NULL));
    while (get_or_end(socket, &order, sizeof order)) {
        struct answer answer = {0};
        obey(&actor, &order, &answer);
        put(socket, &answer, sizeof answer);
    }
    if (actor.request)
        finish(actor.request);
    spinner_end(&actor.spinner);
    OK(nvlx_engine_destroy(actor.engine));
}

struct played {
    struct child child;
    char address[64];
};

static void tell(const struct played *actor, struct order order) {
    put(actor->child.socket, &order, sizeof order);
}

static struct answer hear(const struct played *actor) {
    struct answer answer;
    get(actor->child.socket, &answer, sizeof answer);
    return answer;
}

static struct answer ask(const struct played *actor, struct order order) {
    tell(actor, order);
    return hear(actor);
}

static void start_actor(struct played *actor, int gpu) {
    static int number;
    memset(actor->address, 0, sizeof actor->address);
    snprintf(actor->address, sizeof actor->address, "@nvlxfer-cuda-busy-%d-%d", (int)getpid(), number++);
    cuda_child_start(&actor->child, "actor", NULL);
    put_int(actor->child.socket, gpu);
    put(actor->child.socket, actor->address, sizeof actor->address);
}

static void parts(const struct played *owner, uint32_t kind, uint64_t count, const char *prefix) {
    struct order order = {.task = ALLOCATE, .kind = kind, .count = count};
    snprintf(order.text, sizeof order.text, "%s", prefix);
    ask(owner, order);
}

static void map_all(const struct played *reader, const struct played *owner, uint64_t count) {
    struct order order = {.task = CONNECT, .count = count};
    memcpy(order.text, owner->address, sizeof order.text);
    ask(reader, order);
}

/* ---- What is asked of a process whose GPU is busy --------------------------------------------------------- */

struct setup {
    int near, far; /* GPUs */
    struct nvlx_engine *engine;
    void *local;
    struct spinner spinner;
};

/* Connects, maps, follows a change and sends a message, as if nothing ran. */
static void expect_answers(struct setup *s, const struct played *owner, const char *name) {
    struct nvlx_peer *peer;
    double began = now_ms();
    OK(nvlx_connect(s->engine, owner->address, PATIENCE, &peer));
    within("connect", now_ms() - began, ASK_MS);
    uint64_t there = find(peer, name);
    began = now_ms();
    OK(nvlx_peer_map(peer, s->near, there, PART));
    within("first map of chunks", now_ms() - began, ASK_MS);
    began = now_ms();
    const uint64_t generation = ask(owner, (struct order){.task = PUBLISH}).generation;
    OK(nvlx_peer_sync(peer, generation, PATIENCE));
    within("publish and peer_sync", now_ms() - began, ASK_MS);
    tell(owner, (struct order){.task = RECEIVE});
    usleep(5000);
    began = now_ms();
    OK(nvlx_send(peer, "hello", 5));
    within("message", hear(owner).at - began, ASK_MS);
    OK(nvlx_peer_close(peer));
}

static void answers_beside_kernels(struct setup *s, double ms) {
    struct played owner;
    start_actor(&owner, s->far);
    parts(&owner, NVLX_ALLOC_VMM, 1, "idle");
    parts(&owner, NVLX_ALLOC_VMM, 1, "theirs");
    parts(&owner, NVLX_ALLOC_VMM, 1, "ours");
    printf("nothing runs\n");
    expect_answers(s, &owner, "idle0");
    printf("a kernel of %.0f ms on the owner's GPU\n", ms);
    double end = ask(&owner, (struct order){.task = SPIN, .ms = ms}).at;
    expect_answers(s, &owner, "theirs0");
    EXPECT(now_ms() < end);
    printf("a kernel of %.0f ms on the reader's GPU\n", ms);
    end = spin(&s->spinner, ms);
    expect_answers(s, &owner, "ours0");
    EXPECT(now_ms() < end);
    CUDA(cudaStreamSynchronize(s->spinner.stream));
    child_end(&owner.child);
}

/* ---- Withdrawing ------------------------------------------------------------------------------------------ */

static void withdrawn(uint32_t kind, const char *kind_name, const struct setup *s) {
    struct played owner, reader;
    printf("unregister of a mapped segment, %s\n", kind_name);
    start_actor(&owner, s->near);
    start_actor(&reader, s->far);
    parts(&owner, kind, 1, "part");
    map_all(&reader, &owner, 1);
    struct answer answer = ask(&owner, (struct order){.task = UNREGISTER, .ms = 5000});
    OK(answer.code);
    within("the reader is idle", answer.ms, WITHDRAW_MS);
    parts(&owner, kind, 1, "flying");
    const double begun = now_ms();
    ask(&reader, (struct order){.task = READ_BEHIND, .ms = 500, .text = "flying0"});
    tell(&reader, (struct order){.task = AWAIT_READ});
    answer = ask(&owner, (struct order){.task = UNREGISTER, .ms = 5000});
    const double returned = now_ms(), ended = hear(&reader).at;
    OK(answer.code);
    printf("  with a read in flight for %.0f ms: returned %.2f ms after its end\n", ended - begun, returned - ended);
    EXPECT(ended - begun > 400 && returned - ended > -0.1 && returned - ended < WITHDRAW_MS);
    child_end(&reader.child);
    child_end(&owner.child);
}

/* Memory of cudaMalloc can only be let go of when the reader's kernels end: who waits is told, and nothing else waits.
 */
static void withdrawn_beside_a_kernel(struct setup *s, double ms) {
    struct played owner, reader;
    printf("unregister of a cudaMalloc segment that is mapped where a kernel of %.0f ms runs\n", ms);
    start_actor(&owner, s->near);
    start_actor(&reader, s->far);
    parts(&owner, 0, 1, "part");
    parts(&reader, NVLX_ALLOC_VMM, 1, "theirs");
    map_all(&reader, &owner, 1);
    const double end = ask(&reader, (struct order){.task = SPIN, .ms = ms}).at;
    EQUAL(NVLX_ETIMEDOUT, ask(&owner, (struct order){.task = UNREGISTER, .ms = 300}).code);
    expect_answers(s, &reader, "theirs0");
    EXPECT(now_ms() < end);
    OK(ask(&owner, (struct order){.task = UNREGISTER, .ms = 60000}).code);
    within("after the kernel's end", now_ms() - end, ASK_MS);
    child_end(&reader.child);
    child_end(&owner.child);
}

/* ---- Death ------------------------------------------------------------------------------------------------ */

static size_t free_memory(const struct setup *s) {
    size_t free_bytes, total;
    CUDA(cudaSetDevice(s->near));
    CUDA(cudaMemGetInfo(&free_bytes, &total));
    return free_bytes;
}

/* Since `when`. */
static double time_until_free(const struct setup *s, size_t wanted, double when) {
    while (free_memory(s) + TOLERANCE < wanted) {
        if (now_ms() - when > 30000)
            FAIL("%zu MiB are not free again", (wanted - free_memory(s)) / MIB);
        usleep(500);
    }
    return now_ms() - when;
}

/* A reader, which has all of the owner's memory mapped, does nothing but perhaps compute. */
static void killed(struct setup *s, uint32_t kind, double gib, double busy_ms) {
    const uint64_t count = (uint64_t)(gib * 1024 * MIB / PART);
    struct played owner, reader;
    printf("owner killed, %.0f GiB of %s mapped%s\n", gib, kind ? "chunks" : "cudaMalloc",
           busy_ms > 0 ? " beside a kernel" : "");
    start_actor(&reader, s->far);
    parts(&reader, NVLX_ALLOC_VMM, 1, "theirs");
    const size_t before = free_memory(s);
    start_actor(&owner, s->near);
    parts(&owner, kind, count, "part");
    map_all(&reader, &owner, count);
    EXPECT(free_memory(s) + count * PART <= before);
    double since = busy_ms > 0 ? ask(&reader, (struct order){.task = SPIN, .ms = busy_ms}).at : 0;
    const double began = now_ms();
    child_kill(&owner.child);
    if (busy_ms > 0 && !kind) {
        expect_answers(s, &reader, "theirs0");
        EXPECT(now_ms() < since);
        within("free after the kernel's end", time_until_free(s, before, since), FREE_MS);
    } else {
        within("free after the kill", time_until_free(s, before, began), FREE_MS);
        EXPECT(busy_ms <= 0 || now_ms() < since);
    }
    child_end(&reader.child);
}

int main(int argc, char **argv) {
    const struct role roles[] = {{"actor", actor_role}, {NULL, NULL}};
    struct setup s = {0};
    struct nvlx_region *region;
    begin_process(argc, argv, roles, PROCESS_SECONDS);
    const double gib = argc > 1 ? strtod(argv[1], NULL) : 8, ms = (argc > 2 ? strtod(argv[2], NULL) : 3) * 1e3;
    s.far = gpus_needed(1) > 1 ? 1 : 0;
    printf("this process on GPU %d, others on GPUs %d and %d\n", s.near, s.near, s.far);
    CUDA(cudaSetDevice(s.near));
    CUDA(kernels_load());
    s.engine = engine_on(&s.near, 1);
    CUDA(cudaMalloc(&s.local, PART));
    OK(nvlx_register(s.engine, s.local, PART, NULL, &region));
    spinner_make(&s.spinner);
    answers_beside_kernels(&s, ms);
    withdrawn(0, "cudaMalloc", &s);
    withdrawn(NVLX_ALLOC_VMM, "chunks", &s);
    withdrawn_beside_a_kernel(&s, ms);
    for (uint32_t kind = 0; kind <= NVLX_ALLOC_VMM; kind += NVLX_ALLOC_VMM) {
        killed(&s, kind, gib, 0);
        killed(&s, kind, gib, ms);
    }
    spinner_end(&s.spinner);
    OK(nvlx_engine_destroy(s.engine));
    CUDA(cudaFree(s.local));
    return 0;
}
