/* nvlx_perf: how fast lists of fragments move between two processes, beside what CUDA offers raw: what the user asks
 * for, and what is run. The parts of the program: perf.h.
 * SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/output.h"
#include "perf.h"

#define KIB        UINT64_C(1024)
#define MIB        (1024 * KIB)
#define GIB        (1024 * MIB)
#define PAGE       4096u
#define LAYERS_MAX 65536u /* regions of a table of blocks */

/* ---- Values ----------------------------------------------------------------------------------------------- */

const char *const perf_way_names[] = {"call",  "prepared", "rows",   "blocks", "loop",
                                      "batch", "batch4",   "staged", "kernel", "2d"};
const char *const perf_op_names[] = {[NVLX_OP_READ] = "read", [NVLX_OP_WRITE] = "write"};
const char *const perf_pattern_names[] = {"scattered", "contiguous", "mixed", "rows", "blocks"};
const char *const perf_mechanism_names[] = {"default", "auto", "copy_engine", "kernel"};

struct setting {
    const char *name, *argument, *doc; /* as in struct argp_option; without a name: a title */
    void (*set)(struct perf_options *options, const struct setting *setting, const char *text);
    size_t at;           /* its place in struct perf_options */
    int64_t least, most; /* of a number; of names: the first one's */
};

static void *place(struct perf_options *options, const struct setting *setting) {
    return (char *)options + setting->at;
}

#define SIZES 1, (int64_t)(UINT64_C(1) << 50) /* least and most; these know K, M and G */

static uint64_t read_number(const struct setting *setting, const char *text) {
    static const char units[] = "KMG";
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    const char *unit = *end && setting->most > INT32_MAX ? strchr(units, *end) : NULL;
    const int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    if (strchr("-0123456789", *text) && end > text && !end[unit ? 1 : 0] && !errno && value >= setting->least &&
        value <= setting->most >> shift)
        return (uint64_t)value << shift;
    if (setting->most > INT32_MAX)
        perf_die("--%s: '%s' is not a size such as 4096, 16K, 1M or 4G", setting->name, text);
    perf_die("--%s: '%s' is not a number from %" PRId64 " to %" PRId64, setting->name, text, setting->least,
             setting->most);
}

/* Which of the names in `argument`, where '|' is between them. */
static uint64_t read_name(const struct setting *setting, const char *text) {
    const char *name = setting->argument;
    for (uint64_t number = (uint64_t)setting->least;; number++) {
        const size_t length = strcspn(name, "|");
        if (strlen(text) == length && !strncmp(text, name, length))
            return number;
        if (!name[length])
            perf_die("--%s: '%s' is none of %s", setting->name, text, setting->argument);
        name += length + 1;
    }
}

static void set_flag(struct perf_options *options, const struct setting *setting, const char *text) {
    (void)text;
    *(bool *)place(options, setting) = true;
}

static void set_number(struct perf_options *options, const struct setting *setting, const char *text) {
    *(uint64_t *)place(options, setting) = read_number(setting, text);
}

static void set_name(struct perf_options *options, const struct setting *setting, const char *text) {
    *(uint32_t *)place(options, setting) = (uint32_t)read_name(setting, text);
}

/* Found out now, not after a long run; no file is left behind if it does not come to that. */
static void set_file(struct perf_options *options, const struct setting *setting, const char *text) {
    const bool made = access(text, F_OK) != 0;
    FILE *file = fopen(text, "a");
    if (!file || fclose(file))
        perf_die("--%s: %s: %s", setting->name, text, strerror(errno));
    char *behind_links = made ? realpath(text, NULL) : NULL;
    if (behind_links)
        unlink(behind_links);
    free(behind_links);
    *(const char **)place(options, setting) = text;
}

/* A folder that is there, or can be made. */
static void set_folder(struct perf_options *options, const struct setting *setting, const char *text) {
    struct stat status;
    int error = mkdir(text, 0777) ? errno : 0;
    if (!error)
        rmdir(text); /* made again when there is something to write */
    else if (error == EEXIST)
        error = stat(text, &status)         ? errno
                : !S_ISDIR(status.st_mode)  ? ENOTDIR
                : access(text, W_OK | X_OK) ? errno
                                            : 0;
    if (error)
        perf_die("--%s: %s: %s", setting->name, text, strerror(error));
    *(const char **)place(options, setting) = text;
}

static void set_text(struct perf_options *options, const struct setting *setting, const char *text) {
    *(const char **)place(options, setting) = text;
}

static void set_gpus(struct perf_options *options, const struct setting *setting, const char *text) {
    int *gpu = options->gpu, end = 0;
    if (sscanf(text, "%d,%d%n", &gpu[0], &gpu[1], &end) != 2 || text[end] || gpu[0] < 0 || gpu[1] < 0)
        perf_die("--%s: '%s' is not two numbers such as 0,1", setting->name, text);
}

/* Values with commas between them. */
static size_t read_list(const struct setting *setting, const char *text,
                        uint64_t (*read)(const struct setting *setting, const char *text), uint64_t *values,
                        size_t most) {
    char *copy = strdup(text), *rest = copy, *part;
    size_t count = 0;
    while (copy && (part = strsep(&rest, ","))) {
        if (count == most)
            perf_die("--%s: '%s' is one too many: at most %zu", setting->name, part, most);
        values[count++] = read(setting, part);
    }
    free(copy);
    return count;
}

static void set_fragments(struct perf_options *options, const struct setting *setting, const char *text) {
    options->fragment_count = read_list(setting, text, read_number, options->fragments, PERF_FRAGMENTS_MAX);
}

/* rows:WIDTH:PITCH, or blocks:LAYERS:BYTES */
static void set_shape(struct perf_options *options, const struct setting *setting, const char *text) {
    const bool rows = !strncmp(text, "rows:", 5), blocks = !strncmp(text, "blocks:", 7);
    const char *first = rows || blocks ? strchr(text, ':') + 1 : NULL, *second = first ? strchr(first, ':') : NULL;
    char *copy = second ? strndup(first, (size_t)(second - first)) : NULL;
    if (!copy)
        perf_die("--%s: '%s' is neither rows:WIDTH:PITCH such as rows:1K:2K nor blocks:LAYERS:BYTES such as "
                 "blocks:64:32K",
                 setting->name, text);
    const uint64_t one = read_number(setting, copy), other = read_number(setting, second + 1);
    free(copy);
    options->fragments[0] = rows ? one : other;
    options->fragment_count = 1;
    options->pitch = rows ? other : 0;
    options->layers = rows ? 0 : one;
    options->pattern = rows ? PERF_IN_ROWS : PERF_IN_BLOCKS;
    if (rows && options->pitch < options->fragments[0])
        perf_die("--%s: '%s': the pitch is shorter than a row", setting->name, text);
    if (options->layers > LAYERS_MAX)
        perf_die("--%s: '%s': there may be up to %u layers", setting->name, text, LAYERS_MAX);
}

static void set_budgets(struct perf_options *options, const struct setting *setting, const char *text) {
    options->budget_count = read_list(setting, text, read_number, options->budgets, PERF_BUDGETS_MAX);
}

#define ALL_BASELINES (((1u << PERF_WAYS) - 1) & ~((1u << PERF_LOOP) - 1))

/* Behind the ways' names come "all" and "none". */
static void set_baselines(struct perf_options *options, const struct setting *setting, const char *text) {
    uint64_t ways[PERF_WAYS];
    const size_t count = read_list(setting, text, read_name, ways, PERF_ENTRIES(ways));
    options->baselines = 0;
    for (size_t i = 0; i < count; i++)
        if (ways[i] < PERF_WAYS)
            options->baselines |= 1u << ways[i];
        else
            options->baselines = ways[i] == PERF_WAYS ? ALL_BASELINES : 0;
}

/* ---- Options ---------------------------------------------------------------------------------------------- */

#define AT(member) .at = offsetof(struct perf_options, member)

static const struct setting settings[] = {
    {.doc = "The list"},
    {"op", "read|write|both", "read: from the other process's GPU (get); write: to it (put). Default: read", set_name,
     AT(op), 1},
    {"fragment", "SIZE,...", "sizes of a fragment; K, M and G are powers of 1024. Default: 1K to 256M (host: to 1M)",
     set_fragments, AT(fragments), SIZES},
    {"count", "N", "fragments a list, if --bytes allows. Default: 8192", set_number, AT(count), 1, 100000000},
    {"bytes", "SIZE", "bytes a list moves, at most. Default: 512M (host: 16M)", set_number, AT(bytes), SIZES},
    {"arena", "SIZE", "memory on each side. Default: 4G (host: 64M); for --latency 64M (host: 8M)", set_number,
     AT(arena), SIZES},
    {"regions", "N", "regions that this memory is registered as. Default: 1", set_number, AT(regions), 1, 4096},
    {"pattern", "scattered|contiguous|mixed",
     "at random slots (default); one after the other on both sides; scattered, "
     "of a quarter to twice the size",
     set_name, AT(pattern)},
    {"shape", "rows:WIDTH:PITCH|blocks:LAYERS:BYTES",
     "instead of a pattern. rows: fragments of WIDTH bytes, one every PITCH bytes on both sides; measures also one op "
     "with rows, and one cudaMemcpy2DAsync (2d). blocks: random blocks of a KV cache, BYTES of each in each of LAYERS "
     "layers; measures also nvlx_blocks_transfer, and a cudaMemcpy2DAsync for each block (2d)",
     set_shape, AT(pitch), SIZES},
    {.doc = "Our side: one call of nvlx_transfer a round; the array of ops is written right before it, untimed"},
    {"mechanism", "default|auto|copy_engine|kernel", "Default: the library's", set_name, AT(mechanism)},
    {"max-sms", "N,...", "SMs that the library may take, 0 for its default; each value is measured", set_budgets,
     AT(budgets), 0, 4096},
    {"priority", "N", "of the streams that carry it", set_number, AT(priority), -100, 100},
    {"prepared", NULL, "measures nvlx_post of a prepared list too", set_flag, AT(prepared)},
    {"bidirectional", NULL,
     "measures also both directions at once, each process starting one, in half of the memory "
     "each. Without baselines",
     set_flag, AT(bidirectional)},
    {"submit", NULL, "prints also what submitting costs the CPU: the time in the call", set_flag, AT(submit)},
    {"verify", NULL, "moves each list once more in each way and checks every byte on both sides", set_flag, AT(verify)},
    {.doc = "Compared with (host: a memcpy each, as loop; no other)"},
    {"baseline", "loop|batch|batch4|staged|kernel|2d|all|none",
     "some with commas between. loop: a cudaMemcpyPeerAsync "
     "each; batch, batch4: cudaMemcpyBatchAsync on one stream, on four; staged: gather kernel on the owner's GPU, one "
     "copy, scatter kernel; kernel: the best plain copy kernel, the list already on the GPU; 2d: see --shape. Default: "
     "all",
     set_baselines, AT(baselines), PERF_LOOP},
    {.doc = "Instead of the table of rates"},
    {"latency", NULL,
     "single transfers of 8 bytes to 64K, or of --fragment, against a raw copy and "
     "cudaStreamSynchronize",
     set_flag, AT(latency)},
    {"peers", "N",
     "N processes at once, on GPUs 0 to N - 1: all from all, one from all, all from one; every byte is compared",
     set_number, AT(peers), 2, PERF_PEERS_MAX},
    {.doc = "The run"},
    {"rounds", "N", "of which medians are taken; fewer, but 5, where they take long. Default: 9", set_number,
     AT(rounds), 1, 1000},
    {"json", "FILE", "writes all results", set_file, AT(json)},
    {"plot", "FILE.svg", "draws the rates over the size of a fragment, by python3 with matplotlib", set_file, AT(plot)},
    {"report", "FOLDER",
     "writes a page there with plots, tables and the machine, index.html, and results.json; by python3 with matplotlib",
     set_folder, AT(report)},
    {"beside", "RESULTS.json", "other results, that the page shows too", set_text, AT(beside)},
    {"gpus", "A,B", "the owner's GPU and the measuring process's. Default: 0,1, or 0,0 if there is one", set_gpus,
     AT(gpu)},
    {"backend", "auto|cuda|host", "Default: auto, which looks at NVLX_BACKEND", set_name, AT(backend)},
};
#define FIRST_KEY 256 /* of settings[0]: none is a character */

#define HELP_WIDTH  79
#define HELP_COLUMN 29 /* where texts begin */

/* From column `at` on; further lines begin at `indent`. */
static void print_words(const char *text, int at, int indent) {
    for (const char *word = text; *word; word += strspn(word, " ")) {
        const int length = (int)strcspn(word, " ");
        if (word > text && at + 1 + length > HELP_WIDTH)
            at = printf("\n%*s", indent, "") - 1;
        else if (word > text)
            at += printf(" ");
        at += printf("%.*s", length, word);
        word += length;
    }
    printf("\n");
}

/* That of argp loses words, and indents titles. */
static void print_help(void) {
    puts("Usage: nvlx_perf [OPTION...]\n"
         "Measures how fast lists of fragments move between the memory of two processes,\n"
         "with libnvlxfer and, in the same run and on the same buffers, by what CUDA\n"
         "offers raw. It starts the second process itself.");
    for (const struct setting *setting = settings; setting < settings + PERF_ENTRIES(settings); setting++) {
        const char *argument = setting->argument ? setting->argument : "";
        if (!setting->name) {
            print_words(setting->doc, printf("\n ") - 1, 1);
            continue;
        }
        const int end = printf("      --%s%s%s", setting->name, *argument ? "=" : "", argument);
        printf(end + 2 > HELP_COLUMN ? "\n%*s" : "%*s", end + 2 > HELP_COLUMN ? HELP_COLUMN : HELP_COLUMN - end, "");
        print_words(setting->doc, HELP_COLUMN, HELP_COLUMN);
    }
    puts("\n  -?, -h, --help             prints this\n"
         "      --usage                prints the options alone\n"
         "  -V, --version              prints the version\n\n"
         "Exit: 0; 1 if a byte was wrong; 2 if it could not run, or not write what it\n"
         "tells; 130 after Ctrl-C, having told what it had measured.");
}

static error_t read_option(int key, char *text, struct argp_state *state) {
    if (key == 'h' || key == '?') {
        print_help();
        exit(0);
    }
    if (key == ARGP_KEY_ARG)
        perf_die("'%s' is not an option; try --help", text);
    else if (key < FIRST_KEY || key >= (int)(FIRST_KEY + PERF_ENTRIES(settings)))
        return ARGP_ERR_UNKNOWN;
    else
        settings[key - FIRST_KEY].set(state->input, &settings[key - FIRST_KEY], text);
    return 0;
}

/* Exits on --help and --version, and with code 2 on an option that is wrong, naming it. */
static void read_options(struct perf_options *options, int argc, char **argv) {
    static char version[64];
    struct argp_option table[PERF_ENTRIES(settings) + 3] = {{.name = "help", .key = 'h'}, {.key = '?'}};
    const struct argp argp = {.options = table, .parser = read_option};
    for (size_t i = 0; i < PERF_ENTRIES(settings); i++)
        table[i + 2] = (struct argp_option){.name = settings[i].name,
                                            .key = settings[i].name ? FIRST_KEY + (int)i : 0,
                                            .arg = settings[i].argument,
                                            .doc = settings[i].doc};
    *options = (struct perf_options){.op = NVLX_OP_READ,
                                     .count = 8192,
                                     .regions = 1,
                                     .budget_count = 1,
                                     .rounds = 9,
                                     .baselines = ALL_BASELINES,
                                     .gpu = {-1, -1},
                                     .command = argv};
    snprintf(version, sizeof version, "nvlx_perf of libnvlxfer %s", nvlx_version());
    argp_program_version = version;
    argp_err_exit_status = 2;
    argp_parse(&argp, argc, argv, 0, NULL, options);
    if (options->bidirectional && options->regions > 1 && options->regions % 2)
        perf_die("--regions: %" PRIu64 " cannot be halved, which --bidirectional does", options->regions);
    if ((options->pitch || options->layers) &&
        (options->regions > 1 || options->latency || options->fragment_count != 1 || options->pattern < PERF_IN_ROWS))
        perf_die("--shape: it says what a list is: not with --regions, --latency, --fragment or --pattern");
    if (options->peers && (options->latency || options->bidirectional || options->json || options->plot ||
                           options->report || options->op > NVLX_OP_WRITE || options->regions > 1 || options->pattern))
        perf_die("--peers: not with --latency, --bidirectional, --json, --plot, --report, --op both, --regions or "
                 "--pattern");
    if (options->plot && options->latency)
        perf_die("--plot: '%s' draws the table of rates, which --latency replaces", options->plot);
    if (options->beside && !options->report)
        perf_die("--beside: '%s' is shown on the page of --report, which is not asked for", options->beside);
}

void perf_options_complete(struct perf_options *options, bool host) {
    static const uint64_t of_lists[] = {KIB, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 16 * MIB, 256 * MIB};
    static const uint64_t single[] = {8, 64, 512, 4 * KIB, 16 * KIB, 64 * KIB};
    if (!options->arena)
        options->arena = options->latency ? (host ? 8 * MIB : 64 * MIB) : (host ? 64 * MIB : 4 * GIB);
    options->arena = (options->arena + PAGE - 1) / PAGE * PAGE;
    if (!options->bytes)
        options->bytes = options->latency ? options->arena / 4 : host ? 16 * MIB : 512 * MIB;
    if (!options->fragment_count) {
        options->fragment_count = options->latency ? PERF_ENTRIES(single) : PERF_ENTRIES(of_lists) - (host ? 2 : 0);
        for (size_t i = 0; i < options->fragment_count; i++)
            options->fragments[i] = options->latency ? single[i] : of_lists[i];
    }
    if (options->bytes > options->arena)
        perf_die("--bytes: %s is more than the arena of %s", perf_size_text(options->bytes).text,
                 perf_size_text(options->arena).text);
}

/* ---- The run ---------------------------------------------------------------------------------------------- */

static void write_json(FILE *file, int (*close)(FILE *file), const char *option, const struct perf_session *session,
                       const struct perf_results *results) {
    char *text = perf_json(session, results);
    const bool failed = !file || fputs(text, file) < 0;
    free(text);
    if (!file || close(file) || failed)
        perf_die("--%s: it could not be written", option);
}

/* What the drawing needs is found out now, not after a long run. */
static void check_drawing(const struct perf_options *options) {
    if (!options->plot && !options->report)
        return;
    if (system("python3 -c 'import matplotlib' 2>/dev/null"))
        perf_die("--%s needs python3 with matplotlib: apt-get install python3-matplotlib, or pip install matplotlib",
                 options->plot ? "plot" : "report");
    setenv("NVLX_PERF_PLOT", perf_plot_script, 1);
    setenv("NVLX_PERF_FILE", options->plot ? options->plot : "", 1);
    setenv("NVLX_PERF_FOLDER", options->report ? options->report : "", 1);
    setenv("NVLX_PERF_BESIDE", options->beside ? options->beside : "", 1);
    if (options->beside && system("python3 -c \"$NVLX_PERF_PLOT\" --check \"$NVLX_PERF_BESIDE\" 2>/dev/null >&2"))
        perf_die("--beside: %s does not have the results of nvlx_perf --json", options->beside);
}

static void write_files(const struct perf_session *session, const struct perf_results *results) {
    const char *json = session->options->json, *plot = session->options->plot, *report = session->options->report;
    perf_progress_end();
    if (json)
        write_json(fopen(json, "w"), fclose, "json", session, results);
    signal(SIGPIPE, SIG_IGN);
    if (plot && results->rates.row_count)
        write_json(popen("python3 -c \"$NVLX_PERF_PLOT\" \"$NVLX_PERF_FILE\"", "w"), pclose, "plot", session, results);
    if (report && mkdir(report, 0777) && errno != EEXIST)
        perf_die("--report: %s: %s", report, strerror(errno));
    if (report)
        write_json(popen("python3 -c \"$NVLX_PERF_PLOT\" --report \"$NVLX_PERF_FOLDER\" "
                         "${NVLX_PERF_BESIDE:+\"$NVLX_PERF_BESIDE\"}",
                         "w"),
                   pclose, "report", session, results);
}

/* Errors come back from calls, and are told where they end the program. */
static void tell(void *context, int level, const char *message) {
    (void)context;
    if (level == NVLX_LOG_WARNING)
        fprintf(stderr, "%s: warning: %s\n", perf_role, message);
}

int main(int argc, char **argv) {
    struct perf_options options;
    struct perf_session session;
    struct perf_results results = {0};
    output_watch("nvlx_perf", 2);
    perf_check(nvlx_set_log(NVLX_LOG_WARNING, tell, NULL), "nvlx_set_log");
    read_options(&options, argc, argv);
    check_drawing(&options);
    perf_catch_interrupt();
    if (options.peers)
        return perf_peers(&options);
    perf_session_open(&session, &options);
    perf_print_head(&session);
    if (options.verify)
        perf_session_prove(&session);
    if (options.latency)
        perf_measure_latency(&session, &results);
    else
        perf_measure_rates(&session, &results);
    fflush(stdout);
    perf_session_close(&session);
    write_files(&session, &results);
    free(results.rates.rows);
    free(results.latency.rows);
    return perf_stopped() ? 130 : results.wrong ? 1 : 0;
}
