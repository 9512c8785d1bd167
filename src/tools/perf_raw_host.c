/* nvlx_perf: the baseline of the host backend: memcpy within one process, on the same list of offsets.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "nvlxfer.h"
#include "perf_raw.h"

struct perf_raw {
    char *local, *remote; /* both of this process: the other's memory is out of reach without the library */
    struct perf_fragment *fragments;
    size_t count;
    bool put;
};

static void describe_gpu(int gpu, char *text, size_t size) {
    snprintf(text, size, "software GPU %d", gpu);
}

static void describe_platform(char *text, size_t size) {
    struct utsname name;
    snprintf(text, size, "%s", uname(&name) ? "unknown machine" : name.machine);
}

static void share(int gpu, const void *memory, struct perf_handle *handle) {
    (void)gpu, (void)memory;
    *handle = (struct perf_handle){{0}};
}

static struct perf_raw *raw_open(const struct perf_raw_setup *setup) {
    struct perf_raw *raw = perf_alloc(1, sizeof *raw);
    if (!setup->peer_memory)
        return raw;
    raw->local = perf_alloc(setup->size, 1);
    raw->remote = perf_alloc(setup->size, 1);
    return raw;
}

static void raw_close(struct perf_raw *raw) {
    free(raw->local);
    free(raw->remote);
    free(raw->fragments);
    free(raw);
}

static void set_list(struct perf_raw *raw, const struct perf_list *list) {
    free(raw->fragments);
    raw->fragments = perf_alloc(list->count, sizeof *raw->fragments);
    memcpy(raw->fragments, list->fragments, list->count * sizeof *raw->fragments);
    raw->count = list->count;
    raw->put = list->spec.opcode == NVLX_OP_WRITE;
}

static const char *cannot(struct perf_raw *raw, enum perf_baseline baseline) {
    (void)raw;
    return baseline == PERF_LOOP ? NULL : "the host backend has no such baseline";
}

static struct perf_choice choose(struct perf_raw *raw, uint32_t sms) {
    (void)raw, (void)sms;
    return (struct perf_choice){0, 0};
}

static void describe_choice(const struct perf_choice *choice, char *text, size_t size) {
    (void)choice;
    snprintf(text, size, "none");
}

static void run(struct perf_raw *raw, enum perf_baseline baseline, const struct perf_choice *choice,
                struct perf_sample *sample) {
    (void)baseline, (void)choice;
    const uint64_t begin = perf_now();
    for (size_t i = 0; i < raw->count; i++) {
        const struct perf_fragment *fragment = &raw->fragments[i];
        char *local = raw->local + fragment->local, *remote = raw->remote + fragment->remote;
        memcpy(raw->put ? remote : local, raw->put ? local : remote, fragment->length);
    }
    sample->wall = sample->submit = (double)(perf_now() - begin);
}

static void stage(struct perf_raw *raw) {
    (void)raw;
    perf_die("the host backend has no staging");
}

const struct perf_raw_backend perf_raw_host = {
    .baseline_names = {[PERF_LOOP] = "memcpy"},
    .describe_gpu = describe_gpu,
    .describe_platform = describe_platform,
    .share = share,
    .open = raw_open,
    .close = raw_close,
    .set_list = set_list,
    .cannot = cannot,
    .choose = choose,
    .describe_choice = describe_choice,
    .run = run,
    .stage = stage,
};
