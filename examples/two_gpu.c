/* Two processes, two GPUs, six tensors: does each arrive byte for byte?
 *
 * A caching allocator carves small tensors out of one large allocation. A CUDA IPC handle names the whole allocation,
 * so a transport that exports a tensor's pointer as if it were the base reads the wrong bytes, silently. This program
 * shows that libnvlxfer gets it right, and with --naive it does it the old way, which shows that the comparison can
 * fail.
 *
 *     seed    (GPU 0)  allocates two segments, carves six tensors, registers them, hands its descriptor over
 *     target  (GPU 1)  finds each tensor by name, reads all of them in one call, compares        (--write: writes them;
 * the seed compares)
 *
 * It uses only the public header. Exit: 0 all tensors are correct, 1 some are not, 2 it could not run.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <nvlxfer.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TENSORS   6
#define SEGMENTS  2
#define ALIGNMENT 512 /* the step of a caching allocator */
#define KIB       1024u
#define MIB       (1024u * 1024u)

static const struct tensor {
    const char *name;
    size_t size;
    int segment;
} tensors[TENSORS] = {{"embed.scale", 64, 0},        {"layer0.norm", KIB, 0},       {"layer0.bias", 16 * KIB, 0},
                      {"layer0.proj", 128 * KIB, 0}, {"layer1.proj", 512 * KIB, 0}, {"lm_head", 4 * MIB, 1}};
static const size_t segment_sizes[SEGMENTS] = {2 * MIB, 4 * MIB};
static const char *const segment_names[SEGMENTS] = {"segment 0", "segment 1"};

static struct {
    bool naive, write, hide;
    int gpu[2]; /* of the seed, of the target; -1: choose */
} arguments = {.gpu = {-1, -1}};

static void fail(const char *what, const char *why) {
    fprintf(stderr, "two_gpu: %s: %s\n", what, why);
    exit(2);
}

static void check(int code, const char *what) {
    if (code)
        fail(what, *nvlx_last_error() ? nvlx_last_error() : nvlx_strerror(code));
}

/* ---- Tensors ------------------------------------------------------------------------------------------ */

/* Where a tensor begins in its segment: behind the one before, at the next step. */
static size_t offset_of(int tensor) {
    size_t offset = 0;
    for (int i = 0; i < tensor; i++)
        if (tensors[i].segment == tensors[tensor].segment)
            offset += (tensors[i].size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return offset;
}

/* Each tensor has its own pattern, which differs from the others' at every place. */
static unsigned char pattern(int tensor, size_t i) {
    return (unsigned char)(31 * tensor + 7 * i + (i >> 8) + 1);
}

struct memory { /* the two segments of one process */
    struct nvlx_engine *engine;
    char *segment[SEGMENTS];
};

static char *tensor_at(const struct memory *memory, int tensor) {
    return memory->segment[tensors[tensor].segment] + offset_of(tensor);
}

static void fill(const struct memory *memory, int tensor, bool with_pattern) {
    char *bytes = malloc(tensors[tensor].size);
    if (!bytes)
        fail("fill", "out of memory");
    for (size_t i = 0; i < tensors[tensor].size; i++)
        bytes[i] = (char)(with_pattern ? pattern(tensor, i) : 0xee);
    check(nvlx_memcpy(memory->engine, tensor_at(memory, tensor), bytes, tensors[tensor].size), "nvlx_memcpy");
    free(bytes);
}

static bool is_correct(const struct memory *memory, int tensor) {
    bool correct = true;
    unsigned char *bytes = malloc(tensors[tensor].size);
    if (!bytes)
        fail("compare", "out of memory");
    check(nvlx_memcpy(memory->engine, bytes, tensor_at(memory, tensor), tensors[tensor].size), "nvlx_memcpy");
    for (size_t i = 0; i < tensors[tensor].size && correct; i++)
        correct = bytes[i] == pattern(tensor, i);
    free(bytes);
    return correct;
}

/* Prints the table; returns the exit code. */
static int report(const struct memory *memory) {
    int correct = 0;
    printf("%-14s %10s %18s  %s\n", "tensor", "bytes", "offset in segment", "verdict");
    for (int i = 0; i < TENSORS; i++) {
        bool good = is_correct(memory, i);
        correct += good;
        printf("%-14s %10zu %18zu  %s\n", tensors[i].name, tensors[i].size, offset_of(i), good ? "correct" : "WRONG");
    }
    printf("%d/%d tensors correct\n", correct, TENSORS);
    return correct == TENSORS ? 0 : 1;
}

/* ---- Both processes ----------------------------------------------------------------------------------- */

static void open_memory(struct memory *memory, int gpu, bool with_pattern) {
    struct nvlx_config config;
    nvlx_config_init(&config);
    config.gpus = &gpu;
    config.gpu_count = 1;
    check(nvlx_engine_create(&config, &memory->engine), "nvlx_engine_create");
    for (int i = 0; i < SEGMENTS; i++)
        check(nvlx_alloc(memory->engine, gpu, segment_sizes[i], NULL, (void **)&memory->segment[i]), "nvlx_alloc");
    for (int i = 0; i < TENSORS; i++)
        fill(memory, i, with_pattern);
}

static void send_all(int fd, const void *data, size_t length) {
    for (size_t sent = 0; sent < length;) {
        ssize_t n = send(fd, (const char *)data + sent, length - sent, MSG_NOSIGNAL);
        if (n < 0)
            fail("sending to the other process", strerror(errno));
        sent += (size_t)n;
    }
}

static void receive_all(int fd, void *data, size_t length) {
    for (size_t got = 0; got < length;) {
        ssize_t n = recv(fd, (char *)data + got, length - got, 0);
        if (n <= 0)
            fail("receiving from the other process", n ? strerror(errno) : "it has ended");
        got += (size_t)n;
    }
}

/* ---- The seed ----------------------------------------------------------------------------------------- */

/* What has no name is the local side of ops: no peer reaches it. */
static void register_range(const struct memory *memory, const void *address, size_t length, const char *name) {
    struct nvlx_region *region; /* freed with the engine */
    struct nvlx_region_options options;
    nvlx_region_options_init(&options);
    options.name = name;
    options.access = name ? NVLX_ACCESS_READ_WRITE : NVLX_ACCESS_NONE;
    check(nvlx_register(memory->engine, address, length, &options, &region), "nvlx_register");
}

static int seed(int gpu, int target) {
    struct memory memory;
    char *text, done;
    size_t length;
    open_memory(&memory, gpu, !arguments.write);
    if (arguments.naive)
        for (int i = 0; i < SEGMENTS; i++)
            register_range(&memory, memory.segment[i], segment_sizes[i], segment_names[i]);
    else
        for (int i = 0; i < TENSORS; i++)
            register_range(&memory, tensor_at(&memory, i), tensors[i].size, tensors[i].name);
    check(nvlx_export(memory.engine, &text, &length), "nvlx_export");
    send_all(target, &length, sizeof length);
    send_all(target, text, length);
    nvlx_text_free(text);
    receive_all(target, &done, 1);
    int verdict = arguments.write ? report(&memory) : 0;
    check(nvlx_engine_destroy(memory.engine), "nvlx_engine_destroy");
    return verdict;
}

/* ---- The target --------------------------------------------------------------------------------------- */

static struct nvlx_peer *open_seed(struct nvlx_engine *engine, int seed) {
    struct nvlx_peer *peer;
    size_t length;
    receive_all(seed, &length, sizeof length);
    char *text = malloc(length);
    if (!text)
        fail("the seed's descriptor", "out of memory");
    receive_all(seed, text, length);
    check(nvlx_peer_open(engine, text, length, &peer), "nvlx_peer_open");
    free(text);
    return peer;
}

static struct nvlx_op op_for(const struct memory *memory, struct nvlx_peer *peer, int tensor) {
    struct nvlx_op op = {.opcode = arguments.write ? NVLX_OP_WRITE : NVLX_OP_READ,
                         .peer = peer,
                         .local = tensor_at(memory, tensor),
                         .length = tensors[tensor].size};
    uint64_t length;
    const char *name = arguments.naive ? segment_names[tensors[tensor].segment] : tensors[tensor].name;
    check(nvlx_peer_find(peer, name, &op.remote, &length), "nvlx_peer_find");
    return op;
}

static void move(struct nvlx_engine *engine, const struct nvlx_op *ops, size_t count) {
    struct nvlx_request *request;
    check(nvlx_transfer(engine, ops, count, NULL, &request), "nvlx_transfer");
    check(nvlx_wait(request, 60000000000), "nvlx_wait");
    check(nvlx_request_free(request), "nvlx_request_free");
}

static int target(int gpu, int seed) {
    struct memory memory;
    struct nvlx_op ops[TENSORS];
    open_memory(&memory, gpu, arguments.write);
    printf("backend %s\n", nvlx_backend_name(memory.engine));
    register_range(&memory, memory.segment[0], segment_sizes[0], NULL);
    register_range(&memory, memory.segment[1], segment_sizes[1], NULL);
    struct nvlx_peer *peer = open_seed(memory.engine, seed);
    for (int i = 0; i < TENSORS; i++)
        ops[i] = op_for(&memory, peer, i);
    if (arguments.naive) /* the tensors lie on each other: one at a time, the first of the segment last */
        for (int i = TENSORS - 1; i >= 0; i--)
            move(memory.engine, &ops[i], 1);
    else
        move(memory.engine, ops, TENSORS);
    int verdict = arguments.write ? 0 : report(&memory);
    check(nvlx_peer_close(peer), "nvlx_peer_close");
    check(nvlx_engine_destroy(memory.engine), "nvlx_engine_destroy");
    fflush(stdout);
    send_all(seed, "", 1);
    return verdict;
}

/* ---- Starting them ------------------------------------------------------------------------------------ */

/* In a process of its own: a process that has used CUDA must not fork, nor choose its GPUs any more. */
static int count_gpus(void) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        int count;
        check(nvlx_gpu_count(NVLX_BACKEND_AUTO, &count), "nvlx_gpu_count");
        _exit(count < 100 ? 100 + count : 199);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) < 100)
        exit(2);
    return WEXITSTATUS(status) - 100;
}

static void choose_gpus(void) {
    int count = count_gpus();
    for (int i = 0; i < 2; i++) {
        if (arguments.gpu[i] < 0)
            arguments.gpu[i] = i < count ? i : 0;
        if (arguments.gpu[i] >= count) {
            fprintf(stderr, "two_gpu: GPU %d is not one of the %d here\n", arguments.gpu[i], count);
            exit(2);
        }
    }
    if (arguments.gpu[0] == arguments.gpu[1])
        printf("seed and target share GPU %d%s\n", arguments.gpu[0], count == 1 ? ", the only one" : "");
    else
        printf("seed on GPU %d, target on GPU %d\n", arguments.gpu[0], arguments.gpu[1]);
    fflush(stdout);
}

static pid_t start(int (*role)(int gpu, int other), int gpu, int mine, int others) {
    pid_t child = fork();
    if (child)
        return child;
    close(others);
    if (arguments.hide) {
        char visible[16];
        snprintf(visible, sizeof visible, "%d", gpu);
        setenv("CUDA_VISIBLE_DEVICES", visible, 1);
        gpu = 0; /* the only one that is left */
    }
    exit(role(gpu, mine));
}

static int wait_for(pid_t child) {
    int status;
    if (waitpid(child, &status, 0) != child)
        return 2;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 2;
}

static void usage(FILE *to) {
    fputs("usage: two_gpu [--naive] [--write] [--gpus A,B] [--hide]\n"
          "  --naive     lose the tensors' offsets, as a transport that exports pointers as if they were bases\n"
          "  --write     the target writes the tensors instead of reading them\n"
          "  --gpus A,B  the seed's GPU and the target's (default 0,1)\n"
          "  --hide      each process sees only its own GPU (CUDA_VISIBLE_DEVICES)\n"
          "environment: NVLX_BACKEND=cuda|host\n",
          to);
}

static void read_arguments(int argc, char **argv) {
    static const struct option options[] = {{"naive", no_argument, NULL, 'n'},      {"write", no_argument, NULL, 'w'},
                                            {"gpus", required_argument, NULL, 'g'}, {"hide", no_argument, NULL, 'h'},
                                            {"help", no_argument, NULL, '?'},       {0}};
    int option, end = 0;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'n')
            arguments.naive = true;
        else if (option == 'w')
            arguments.write = true;
        else if (option == 'h')
            arguments.hide = true;
        else if (option == 'g') {
            if (sscanf(optarg, "%d,%d%n", &arguments.gpu[0], &arguments.gpu[1], &end) != 2 || optarg[end] ||
                arguments.gpu[0] < 0 || arguments.gpu[1] < 0)
                fail("--gpus takes two numbers such as 0,1, not", optarg);
        } else {
            bool asked = optind > 0 && !strcmp(argv[optind - 1], "--help");
            usage(asked ? stdout : stderr);
            exit(asked ? 0 : 2);
        }
    }
    if (optind < argc)
        fail("unexpected argument", argv[optind]);
}

int main(int argc, char **argv) {
    int sockets[2];
    read_arguments(argc, argv);
    choose_gpus();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets))
        fail("socketpair", strerror(errno));
    pid_t seed_process = start(seed, arguments.gpu[0], sockets[0], sockets[1]);
    pid_t target_process = start(target, arguments.gpu[1], sockets[1], sockets[0]);
    close(sockets[0]);
    close(sockets[1]);
    if (seed_process < 0 || target_process < 0)
        fail("fork", strerror(errno));
    int seed_verdict = wait_for(seed_process), target_verdict = wait_for(target_process);
    return seed_verdict > target_verdict ? seed_verdict : target_verdict;
}
