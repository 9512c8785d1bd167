/* nvlx_perf: what its parts offer each other.
 *
 *     nvlx_perf.c      what the user asks for, and what is run
 *     perf_measure.c   rounds of all ways in turn: rates, latency
 *     perf_report.c    tables; perf_json.cc: all results as JSON; perf_plot.py: a plot of that
 *     perf_peers.c     --peers: several processes at once, instead of all that
 *     perf_process.c   the two processes, and what is between them
 *     perf_end.c       what each process has: the library's side, and the raw side of the host backend
 *     perf_cuda.cu     the raw side on CUDA, with its kernels
 *     perf_list.c      lists of fragments
 *     perf_base.c      errors, time, numbers, progress
 *
 * Our side uses only the public header. Only the raw side on CUDA knows CUDA.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PERF_H
#define PERF_H

#include <nvlxfer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PERF_ENTRIES(array) (sizeof(array) / sizeof *(array))

/* ---- Errors, time, numbers, progress: perf_base.c ----------------------------------------------------------- */

/* Who speaks in messages: the measuring process, or the owner of the other memory. */
extern const char *perf_role;

/* Prints why, and ends the process with exit code 2. */
void perf_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* Dies, with the library's own words, unless `code` is 0. */
void perf_check(int code, const char *what);
/* From now on the first Ctrl-C only makes perf_stopped true; the second one kills. */
void perf_catch_interrupt(void);
bool perf_stopped(void);
/* Zeroed memory, or dies. */
void *perf_alloc(size_t count, size_t size);

/* The value that `fraction` of them do not exceed: 0.5 is the median. Sorts them. */
double perf_percentile(double *values, size_t count, double fraction);

struct perf_text {
    char text[32];
};
struct perf_text perf_size_text(uint64_t bytes); /* "16K"; exact, so some are plain numbers */

/* On stderr: on a terminal a line that is overwritten; elsewhere only if a row is done, which is a line of its own. */
void perf_progress(bool row_done, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Before anything else is printed. */
void perf_progress_end(void);

/* ---- What the user asks for: nvlx_perf.c -------------------------------------------------------------------- */

enum { PERF_FRAGMENTS_MAX = 32, PERF_BUDGETS_MAX = 6, PERF_PEERS_MAX = 16 };

/* The ways to move a list: four of ours, then the raw ones that they are compared with. PERF_ROWS (one op with
 * NVLX_OP_ROWS) is for lists that are rows, PERF_BLOCKS (nvlx_blocks_transfer) for blocks in layers, PERF_2D for both:
 * a cudaMemcpy2DAsync for all rows, or for each block. */
enum perf_way {
    PERF_CALL,
    PERF_PREPARED,
    PERF_ROWS,
    PERF_BLOCKS,
    PERF_LOOP,
    PERF_BATCH,
    PERF_BATCH4,
    PERF_STAGED,
    PERF_KERNEL,
    PERF_2D,
    PERF_WAYS
};
#define PERF_IS_RAW(way) ((way) >= PERF_LOOP)
extern const char *const perf_way_names[], *const perf_pattern_names[], *const perf_mechanism_names[];
extern const char *const perf_op_names[];

enum perf_pattern { PERF_SCATTERED, PERF_CONTIGUOUS, PERF_MIXED, PERF_IN_ROWS, PERF_IN_BLOCKS };

struct perf_options {
    uint32_t op; /* bits: NVLX_OP_READ | NVLX_OP_WRITE */
    uint32_t pattern, backend, mechanism;
    bool prepared, bidirectional, submit, verify, latency;
    uint64_t fragments[PERF_FRAGMENTS_MAX], budgets[PERF_BUDGETS_MAX]; /* budgets: of SMs; 0: the library's default */
    size_t fragment_count, budget_count;
    uint64_t pitch;               /* of PERF_IN_ROWS: from one fragment to the next, on both sides; else 0 */
    uint64_t layers;              /* of PERF_IN_BLOCKS; else 0 */
    uint64_t count, bytes, arena; /* bytes, arena: 0: the default of the backend; likewise no fragments */
    uint64_t regions;             /* on each side */
    uint64_t peers;               /* processes that measure at once; 0: the usual two */
    uint64_t rounds;              /* of which medians are taken */
    int64_t priority;
    uint32_t baselines;                        /* bits: 1 << enum perf_way */
    const char *json, *plot, *report, *beside; /* NULL: none */
    int gpu[2];                                /* the owner's, the measuring process's; -1: choose */
    char **command;                            /* line of it; ends with NULL */
};

/* Fills in what depends on the backend, and refuses what cannot be. */
void perf_options_complete(struct perf_options *options, bool host);

/* ---- Lists: perf_list.c ------------------------------------------------------------------------------------- */

/* How both sides' memory is divided: `count` regions, one every `step` bytes, each `size` bytes long. Between regions
 * lies a gap, so that they are not adjacent. */
struct perf_layout {
    uint64_t count, step, size;
};
struct perf_layout perf_layout_of(uint64_t arena, uint64_t regions);

/* A fragment by its offsets in the measuring process's memory and in the owner's. */
struct perf_fragment {
    uint64_t local, remote, length;
};

/* All that a list follows from: both processes make the same one. */
struct perf_list_spec {
    uint32_t opcode, pattern;
    uint64_t fragment, count, bytes; /* bytes: at most */
    uint64_t pitch;                  /* of PERF_IN_ROWS */
    uint64_t layers;                 /* of PERF_IN_BLOCKS */
    uint64_t arena, regions;
    uint32_t half; /* 0: anywhere; 1, 2: only in that half of the memory */
    uint32_t swap; /* the owner's own transfer: its memory is the local side */
    uint64_t seed;
};

struct perf_list {
    struct perf_list_spec spec;
    struct perf_fragment *fragments;
    size_t count;
    uint64_t bytes;
    bool aligned; /* all offsets and lengths are multiples of 16 */
    /* Of PERF_IN_BLOCKS: fragments are block by block, layer after layer, which are arrays of so many blocks. */
    uint32_t *ids[2]; /* of the measuring process's blocks, and of the owner's; NULL: it is no such list */
    size_t id_count;
    uint64_t first, blocks; /* where layer 0 begins, and blocks of a layer */
};

/* Dies if not one fragment fits. */
void perf_list_make(struct perf_list *list, const struct perf_list_spec *spec);
void perf_list_free(struct perf_list *list);

/* ---- What memory holds: a pattern, and what it becomes -------------------------------------------------------- */

#ifdef __CUDACC__
#define PERF_EVERYWHERE __host__ __device__
#else
#define PERF_EVERYWHERE
#endif

/* Memory filled with `seed` has these eight bytes at offset 8 * index. Neighbouring words, and the same word under
 * another seed, differ in about every byte. */
PERF_EVERYWHERE static inline uint64_t perf_word(uint64_t seed, uint64_t index) {
    uint64_t x = (index + seed * UINT64_C(0xd1342543de82ef95)) * UINT64_C(0x9e3779b97f4a7c15);
    x ^= x >> 32;
    x *= UINT64_C(0xda942042e4dd58b5);
    return x ^ (x >> 29);
}

PERF_EVERYWHERE static inline unsigned char perf_byte(uint64_t seed, uint64_t offset) {
    return (unsigned char)(perf_word(seed, offset / 8) >> offset % 8 * 8);
}

/* What memory must hold: what `seed` fills it with, except the bytes that arrived from memory filled otherwise. */
struct perf_arrival {
    uint64_t at, from, length; /* offsets in this memory and in the other one */
};
struct perf_content {
    uint64_t seed, arrived_seed;
    struct perf_arrival *arrivals;
    size_t count;
};
struct perf_wrong {
    uint64_t count, first; /* wrong bytes; the offset of the first */
};

/* ---- One end, of which each process has one: perf_end.c, perf_cuda.cu --------------------------------------- */

struct perf_machine { /* a process's GPU, and what drives it; "": unknown, or there is no such thing */
    char gpu[64], driver[32], cuda[16], driver_cuda[16];
};

struct perf_lent { /* what a process tells the other one; memory by handles */
    struct perf_machine machine;
    unsigned char memory[64], staging[64];
};

struct perf_sample { /* of one transfer, in nanoseconds */
    double wall;     /* from just before the first call until completion was seen */
    double submit;   /* of it, until the last call that submits had returned */
};

struct perf_choice { /* how a raw kernel is run */
    int kernel, blocks;
    char name[48];
};

struct perf_raw_backend;

/* The library's side of a process, and the raw one, on the same memory. */
struct perf_end {
    struct nvlx_engine *engine;
    int gpu;
    char *memory, *staging; /* staging: NULL, or for the staged way */
    uint64_t size, staging_size;
    struct nvlx_peer *peer;
    uint64_t remote; /* the peer's address of its memory */
    const struct perf_list *list;
    struct nvlx_op *ops;        /* of the list */
    struct nvlx_blocks *blocks; /* of one of blocks; NULL */
    const struct perf_raw_backend *backend;
};

/* What a program would do without libnvlxfer, by the means of the backend alone. Nothing here returns an error: what
 * fails ends the process, with its cause. Host has only what stands before `borrow`. */
struct perf_raw_backend {
    bool host;             /* its way moves memory of its own, which is not checked */
    uint32_t ways;         /* that it has; bits: 1 << enum perf_way */
    const char *loop_name; /* for people */
    void (*lend)(const struct perf_end *end, struct perf_lent *lent);
    /* Moves the list: any raw way except PERF_STAGED. */
    void (*run)(const struct perf_end *end, enum perf_way way, const struct perf_choice *choice,
                struct perf_sample *sample);
    void (*fill)(const struct perf_end *end, uint64_t seed); /* own memory */
    void (*check)(const struct perf_end *end, const struct perf_content *content, struct perf_wrong *wrong);
    /* What the other process lends: NULL in the owner, which only lends its own. */
    void (*borrow)(const struct perf_end *end, const struct perf_lent *peer);
    void (*give_back)(void);
    void (*set_list)(const struct perf_end *end); /* PERF_KERNEL and PERF_STAGED can do aligned ones only */
    /* The fastest kernel for the list, with at most `sms` blocks (0: as many as it likes). */
    struct perf_choice (*choose)(const struct perf_end *end, uint32_t sms);
    void (*stage)(const struct perf_end *end); /* PERF_STAGED takes both processes: each calls this in its turn */
};
extern const struct perf_raw_backend perf_raw_cuda; /* in a build with CUDA */

void perf_end_open(struct perf_end *end, uint32_t backend, int gpu);
/* Then: the memory, registered; then: the other process's descriptor, and what it lends. */
void perf_end_allocate(struct perf_end *end, const struct perf_options *options);
void perf_end_meet(struct perf_end *end, const char *text, size_t length, const struct perf_lent *peer);
/* Closes all that is open of the other process, whose memory may then be freed. What was prepared must be freed. */
void perf_end_leave(struct perf_end *end);
void perf_end_close(struct perf_end *end);

/* Makes a list, which must stay, the one that all ways move. */
void perf_end_set_list(struct perf_end *end, const struct perf_list *list);
/* The caller frees it, by nvlx_prepared_free. */
struct nvlx_prepared *perf_end_prepare(struct perf_end *end, const struct nvlx_transfer_options *options);
/* One transfer of the list and its end: a post of `prepared`, or if that is NULL, one call. `way`: PERF_ROWS is one op
 * for all of the list, PERF_BLOCKS two arrays of ids; else its ops are written again right before the call, outside of
 * the time taken. */
void perf_end_move(const struct perf_end *end, struct nvlx_prepared *prepared, enum perf_way way,
                   const struct nvlx_transfer_options *options, struct perf_sample *sample,
                   struct nvlx_request_info *info);

/* ---- The two processes, seen from the measuring one: perf_process.c ----------------------------------------- */

struct perf_session {
    struct perf_options *options;
    struct perf_end end;
    bool host, same_gpu;
    struct perf_machine machine[2]; /* the owner's, the measuring process's */
};

/* Starts both processes, completes the options, and has each side open the other's memory. This process ends with exit
 * code 2 if the owner does. */
void perf_session_open(struct perf_session *session, struct perf_options *options);
void perf_session_close(struct perf_session *session);
/* Tells the owner which lists are moved: one, or two, of which it moves the last one itself, as `how` says. Its part in
 * rounds is PERF_STAGED, or how it moves that. */
void perf_session_lists(const struct perf_list lists[2], enum perf_way part, const struct nvlx_transfer_options *how);
/* A round in which the owner does its part: it is made ready, started, waited for. */
void perf_round_begin(void);
void perf_round_go(void);
void perf_round_wait(void);

/* Fills all memory with a new pattern; compares all of it with what the lists must have made of that, tells what is
 * wrong, and returns how many bytes are; dies if a byte that is wrong is not found. */
void perf_session_fill(const struct perf_session *session);
uint64_t perf_session_check(const struct perf_session *session, const struct perf_list lists[2]);
void perf_session_prove(const struct perf_session *session);

/* ---- Results, and their tables: perf_report.c --------------------------------------------------------------- */

enum { PERF_COLUMNS_MAX = 3 * PERF_BUDGETS_MAX + PERF_WAYS };

struct perf_column {
    enum perf_way way;
    uint32_t budget; /* of SMs; 0: the default, and for a raw kernel as many as it likes */
    char name[32];
};

struct perf_cell {
    const char *why_not; /* NULL: it was measured */
    size_t rounds;
    double wall, fastest, slowest, p90, p99, submit; /* nanoseconds; wall and submit are medians */
    struct perf_choice kernel;                       /* of a raw one: its name is "" if there is none */
    struct nvlx_request_info info;                   /* of ours: what carried it */
    bool verified;
    uint64_t wrong; /* bytes */
};

struct perf_row {
    uint32_t opcode;
    bool both; /* directions at once; `bytes` are those of both */
    uint64_t fragment, count, bytes;
    struct perf_cell cells[PERF_COLUMNS_MAX];
};

struct perf_table {
    struct perf_column columns[PERF_COLUMNS_MAX];
    size_t column_count;
    struct perf_row *rows;
    size_t row_count;
};

struct perf_results {
    struct perf_table rates, latency; /* latency: lists of one fragment, in PERF_CALL, PERF_PREPARED and PERF_LOOP */
    uint64_t link_bytes;              /* of the one copy that tells the link's own rate */
    double link[3];                   /* GB/s, by opcode; 0: not measured */
    uint64_t wrong;                   /* bytes, of all */
};

/* GB/s of a measured cell, 0 of another. Of both directions: each way. */
double perf_rate(const struct perf_row *row, const struct perf_cell *cell);
/* Nanoseconds a fragment in the calls that submit: of both directions, in those of this process. */
double perf_submit_each(const struct perf_row *row, const struct perf_cell *cell);
/* The fastest of the raw columns, except the staged one; of kernels only those within the budget, if that is not 0.
 * NULL: none was measured. */
const struct perf_column *perf_best_raw(const struct perf_table *table, const struct perf_row *row, uint32_t budget);

void perf_print_head(const struct perf_session *session);
/* The table of rates: its head, and a line as soon as its row is measured; then what it costs to submit. */
void perf_print_rates_head(const struct perf_session *session, const struct perf_results *results, uint32_t opcode,
                           bool both);
void perf_print_rates(const struct perf_table *table, const struct perf_row *row);
void perf_print_submit(const struct perf_table *table);
void perf_print_latency(const struct perf_session *session, const struct perf_table *table);

/* All results as JSON: perf_json.cc. To be freed. */
char *perf_json(const struct perf_session *session, const struct perf_results *results);
extern const char perf_plot_script[]; /* perf_plot.py, for python3 */

/* ---- Measuring: perf_measure.c. Each prints, stops early if perf_stopped, and adds to the results. ------------- */

void perf_measure_rates(struct perf_session *session, struct perf_results *results);
void perf_measure_latency(struct perf_session *session, struct perf_results *results);

/* The run with --peers: perf_peers.c. Returns the exit code. */
int perf_peers(const struct perf_options *options);

#ifdef __cplusplus
}
#endif

#endif
