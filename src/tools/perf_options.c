/* nvlx_perf: what the user asks for. SPDX-License-Identifier: Apache-2.0 */
#include "perf_options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <nvlxfer.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIB  UINT64_C(1024)
#define MIB  (1024 * KIB)
#define GIB  (1024 * MIB)
#define PAGE 4096u

const char *const perf_pattern_names[] = {"scattered", "contiguous", "mixed", NULL};
const char *const perf_baseline_names[] = {"loop", "batch", "batch4", "staged", "kernel", NULL};
static const char *const op_names[] = {"", "read", "write", "both", NULL};
static const char *const backend_names[] = {"auto", "cuda", "host", NULL};
static const char *const mechanism_names[] = {"default", "auto", "copy_engine", "kernel", NULL};

static const char usage_text[] =
    "usage: nvlx_perf [option...]\n"
    "Measures how fast lists of fragments move between the memory of two processes, with libnvlxfer and, in the same\n"
    "run and on the same buffers, by what CUDA offers raw. It starts the second process itself.\n"
    "\n"
    "The list\n"
    "  --op read|write|both     read: from the other process's GPU (get); write: to it (put). Default: read\n"
    "  --fragment SIZE,...      sizes of a fragment; K, M and G are powers of 1024. Default: 1K to 256M (host: to 1M)\n"
    "  --count N                fragments a list, if --bytes allows. Default: 8192\n"
    "  --bytes SIZE             bytes a list moves, at most. Default: 512M (host: 16M)\n"
    "  --arena SIZE             memory on each side in which they lie. Default: 4G (host: 64M); 64M (host: 8M) for\n"
    "                           --latency and --random\n"
    "  --regions N              regions that the memory on each side is registered as. Default: 1\n"
    "  --pattern NAME           scattered: at random slots; contiguous: one after the other on both sides;\n"
    "                           mixed: scattered, of a quarter to twice the size. Default: scattered\n"
    "Our side: one call of nvlx_transfer a round; the array of ops is written right before it, untimed\n"
    "  --mechanism NAME         auto, copy_engine or kernel. Default: the library's\n"
    "  --max-sms N,...          SMs that the library may take, 0 for its default; each value is measured\n"
    "  --priority N             of the streams that carry it\n"
    "  --prepared               measures nvlx_post of a prepared list too, beside one call of nvlx_transfer\n"
    "  --bidirectional          measures also both directions at once, each process starting one; each has half of\n"
    "                           the memory. Without baselines\n"
    "  --submit                 prints also what submitting costs the CPU: the time in the call\n"
    "  --verify                 moves each list once more in each way and checks every byte on both sides\n"
    "Compared with\n"
    "  --baseline NAME,...      loop: a cudaMemcpyPeerAsync each; batch, batch4: cudaMemcpyBatchAsync on one stream, "
    "on\n"
    "                           four; staged: gather kernel on the owner's GPU, one copy, scatter kernel; kernel: the\n"
    "                           best plain copy kernel, the list already on the GPU; all; none. Default: all\n"
    "                           (host: a memcpy each, as loop; no other)\n"
    "Instead of the table of rates (any of them together)\n"
    "  --latency                single transfers of 8 bytes to 64K, or of --fragment, against a raw copy and\n"
    "                           cudaStreamSynchronize\n"
    "  --compute                the slowdown of computing kernels beside transfers of 64K (or of --fragment), and of\n"
    "                           the transfers: by copy engines, and by the kernel for each --max-sms. Only on cuda\n"
    "  --random N               N random lists, fragments of 1 byte to 1M at any address, every byte of both memories\n"
    "                           checked after each\n"
    "The run\n"
    "  --rounds N               of which medians are taken; fewer, but 5, where they take long. Default: 9\n"
    "  --json FILE              writes all results\n"
    "  --plot FILE.svg          draws the rates over the size of a fragment\n"
    "  --gpus A,B               the owner's GPU and the measuring process's. Default: 0,1, or 0,0 if there is one\n"
    "  --backend NAME           cuda, host or auto. Default: auto, which looks at NVLX_BACKEND\n"
    "Exit: 0, or 1 if a byte was wrong, or 2 if it could not run.\n";

enum {
    OP = 256,
    FRAGMENT,
    COUNT,
    BYTES,
    ARENA,
    REGIONS,
    PATTERN,
    MECHANISM,
    MAX_SMS,
    PRIORITY,
    PREPARED,
    BIDIRECTIONAL,
    SUBMIT,
    VERIFY,
    BASELINE,
    LATENCY,
    COMPUTE,
    RANDOM,
    ROUNDS,
    JSON,
    PLOT,
    GPUS,
    BACKEND,
    HELP
};

static const struct option long_options[] = {{"op", required_argument, NULL, OP},
                                             {"fragment", required_argument, NULL, FRAGMENT},
                                             {"count", required_argument, NULL, COUNT},
                                             {"bytes", required_argument, NULL, BYTES},
                                             {"arena", required_argument, NULL, ARENA},
                                             {"regions", required_argument, NULL, REGIONS},
                                             {"pattern", required_argument, NULL, PATTERN},
                                             {"mechanism", required_argument, NULL, MECHANISM},
                                             {"max-sms", required_argument, NULL, MAX_SMS},
                                             {"priority", required_argument, NULL, PRIORITY},
                                             {"prepared", no_argument, NULL, PREPARED},
                                             {"bidirectional", no_argument, NULL, BIDIRECTIONAL},
                                             {"submit", no_argument, NULL, SUBMIT},
                                             {"verify", no_argument, NULL, VERIFY},
                                             {"baseline", required_argument, NULL, BASELINE},
                                             {"latency", no_argument, NULL, LATENCY},
                                             {"compute", no_argument, NULL, COMPUTE},
                                             {"random", required_argument, NULL, RANDOM},
                                             {"rounds", required_argument, NULL, ROUNDS},
                                             {"json", required_argument, NULL, JSON},
                                             {"plot", required_argument, NULL, PLOT},
                                             {"gpus", required_argument, NULL, GPUS},
                                             {"backend", required_argument, NULL, BACKEND},
                                             {"help", no_argument, NULL, HELP},
                                             {0}};

static uint64_t read_number(const char *option, const char *text, uint64_t least, uint64_t most) {
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < least || value > most)
        perf_die("%s: '%s' is not a number from %" PRIu64 " to %" PRIu64, option, text, least, most);
    return value;
}

static uint64_t read_size(const char *option, const char *text) {
    static const char units[] = "KMG";
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    const unsigned shift = unit ? 10 * (unsigned)(unit - units + 1) : 0;
    if (*text < '0' || *text > '9' || errno || (*end && !unit) || (unit && end[1]) || !value ||
        value > (UINT64_C(1) << 50) >> shift)
        perf_die("%s: '%s' is not a size such as 4096, 16K, 1M or 4G", option, text);
    return (uint64_t)value << shift;
}

static uint32_t read_name(const char *option, const char *text, const char *const *names) {
    char known[128] = "";
    for (uint32_t i = 0; names[i]; i++)
        if (*names[i] && !strcmp(text, names[i]))
            return i;
    for (uint32_t i = 0; names[i]; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", *known ? ", " : "", names[i]);
    perf_die("%s: '%s' is none of %s", option, text, known);
}

/* Calls `add` for each part of a list with commas. */
static void read_list(struct perf_options *options, const char *text,
                      void (*add)(struct perf_options *options, const char *part)) {
    char *copy = strdup(text), *rest = copy, *part;
    if (!copy)
        perf_die("out of memory");
    while ((part = strsep(&rest, ",")))
        add(options, part);
    free(copy);
}

static void add_fragment(struct perf_options *options, const char *part) {
    if (options->fragment_count == PERF_FRAGMENTS_MAX)
        perf_die("--fragment: '%s' is one size too many: at most %d", part, PERF_FRAGMENTS_MAX);
    options->fragments[options->fragment_count++] = read_size("--fragment", part);
}

static void add_budget(struct perf_options *options, const char *part) {
    if (options->budget_count == PERF_BUDGETS_MAX)
        perf_die("--max-sms: '%s' is one number too many: at most %d", part, PERF_BUDGETS_MAX);
    options->budgets[options->budget_count++] = (uint32_t)read_number("--max-sms", part, 0, 4096);
}

static void add_baseline(struct perf_options *options, const char *part) {
    if (!strcmp(part, "none"))
        options->baselines = 0;
    else if (!strcmp(part, "all"))
        options->baselines = (1u << PERF_BASELINES) - 1;
    else
        options->baselines |= 1u << read_name("--baseline", part, perf_baseline_names);
}

static void read_gpus(struct perf_options *options, const char *text) {
    int end = 0;
    if (sscanf(text, "%d,%d%n", &options->gpu[0], &options->gpu[1], &end) != 2 || text[end] || options->gpu[0] < 0 ||
        options->gpu[1] < 0)
        perf_die("--gpus: '%s' is not two numbers such as 0,1", text);
}

static void read_op(struct perf_options *options, const char *text) {
    const uint32_t name = read_name("--op", text, op_names);
    options->op[NVLX_OP_READ] = name & 1;
    options->op[NVLX_OP_WRITE] = name & 2;
}

static void read_priority(struct perf_options *options, const char *text) {
    char *end;
    const long value = strtol(text, &end, 10);
    if (end == text || *end || value < -100 || value > 100)
        perf_die("--priority: '%s' is not a number from -100 to 100", text);
    options->priority = (int32_t)value;
}

/* Options that describe the list, which take a value. False: none of them. */
static bool read_list_option(struct perf_options *options, int option, const char *value) {
    switch (option) {
    case OP:
        read_op(options, value);
        return true;
    case FRAGMENT:
        options->fragment_count = 0;
        read_list(options, value, add_fragment);
        return true;
    case COUNT:
        options->count = read_number("--count", value, 1, 100000000);
        return true;
    case BYTES:
        options->bytes = read_size("--bytes", value);
        return true;
    case ARENA:
        options->arena = read_size("--arena", value);
        return true;
    case REGIONS:
        options->regions = read_number("--regions", value, 1, PERF_REGIONS_MAX);
        return true;
    case PATTERN:
        options->pattern = read_name("--pattern", value, perf_pattern_names);
        return true;
    default:
        return false;
    }
}

/* Options that describe our side and the run, which take a value. */
static bool read_run_option(struct perf_options *options, int option, const char *value) {
    switch (option) {
    case MECHANISM:
        options->mechanism = read_name("--mechanism", value, mechanism_names);
        return true;
    case MAX_SMS:
        options->budget_count = 0;
        read_list(options, value, add_budget);
        return true;
    case PRIORITY:
        read_priority(options, value);
        return true;
    case BASELINE:
        options->baselines = 0;
        read_list(options, value, add_baseline);
        return true;
    case RANDOM:
        options->random = read_number("--random", value, 1, 1000000000);
        return true;
    case ROUNDS:
        options->rounds = read_number("--rounds", value, 1, PERF_ROUNDS_MAX);
        return true;
    case JSON:
        options->json = value;
        return true;
    case PLOT:
        options->plot = value;
        return true;
    case GPUS:
        read_gpus(options, value);
        return true;
    case BACKEND:
        options->backend = read_name("--backend", value, backend_names);
        return true;
    default:
        return false;
    }
}

static void read_flag(struct perf_options *options, int option) {
    switch (option) {
    case PREPARED:
        options->prepared = true;
        break;
    case BIDIRECTIONAL:
        options->bidirectional = true;
        break;
    case SUBMIT:
        options->submit = true;
        break;
    case VERIFY:
        options->verify = true;
        break;
    case LATENCY:
        options->latency = true;
        break;
    default:
        options->compute = true;
        break;
    }
}

/* Found out now, not after a long run. */
static void try_file(const char *option, const char *path) {
    FILE *file = path ? fopen(path, "a") : NULL;
    if (path && (!file || fclose(file)))
        perf_die("%s: %s: %s", option, path, strerror(errno));
}

void perf_options_read(struct perf_options *options, int argc, char **argv) {
    int option;
    *options = (struct perf_options){.op = {[NVLX_OP_READ] = true},
                                     .count = 8192,
                                     .regions = 1,
                                     .budget_count = 1,
                                     .rounds = 9,
                                     .baselines = (1u << PERF_BASELINES) - 1,
                                     .gpu = {-1, -1}};
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        if (option == HELP) {
            fputs(usage_text, stdout);
            exit(0);
        }
        if (option == '?') {
            fputs("Try nvlx_perf --help.\n", stderr);
            exit(2);
        }
        if (!read_list_option(options, option, optarg) && !read_run_option(options, option, optarg))
            read_flag(options, option);
    }
    if (optind < argc)
        perf_die("'%s' is not an option; try --help", argv[optind]);
    if (options->bidirectional && options->regions > 1 && options->regions % 2)
        perf_die("--regions: %" PRIu64 " cannot be halved, which --bidirectional does", options->regions);
    try_file("--json", options->json);
    try_file("--plot", options->plot);
    if (options->plot && !perf_options_rates(options))
        perf_die("--plot: '%s' draws the table of rates, which --latency, --compute and --random replace",
                 options->plot);
}

bool perf_options_rates(const struct perf_options *options) {
    return !options->latency && !options->compute && !options->random;
}

static const uint64_t default_fragments[] = {KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB, 256 * MIB};

static uint64_t default_arena(const struct perf_options *options, bool host) {
    if (!perf_options_rates(options) && !options->compute)
        return host ? 8 * MIB : 64 * MIB;
    return host ? 64 * MIB : 4 * GIB;
}

void perf_options_complete(struct perf_options *options, bool host) {
    const bool small = !perf_options_rates(options) && !options->compute;
    if (!options->arena)
        options->arena = default_arena(options, host);
    options->arena = (options->arena + PAGE - 1) / PAGE * PAGE;
    if (!options->bytes)
        options->bytes = small ? options->arena / 4 : host ? 16 * MIB : 512 * MIB;
    if (!options->fragment_count && perf_options_rates(options))
        for (size_t i = 0; i < PERF_ENTRIES(default_fragments) - (host ? 2 : 0); i++)
            options->fragments[options->fragment_count++] = default_fragments[i];
    if (options->bytes > options->arena)
        perf_die("--bytes: %s is more than the arena of %s", perf_size_text(options->bytes).text,
                 perf_size_text(options->arena).text);
    if (host && options->compute)
        perf_die("--compute: the host backend has no GPU that computes");
}
