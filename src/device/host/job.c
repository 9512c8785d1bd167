/* The host backend's jobs: see job.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "device/host/job.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "device/host/count.h"
#include "device/host/host.h"
#include "device/host/memory.h"
#include "device/xxh64.h"

#define PEEK_US 100 /* between two looks at a value */

static void copy_fragments(const struct nvlxi_fragment *list, size_t count) {
    for (size_t i = 0; i < count; i++)
        memmove(nvlxi_host_pointer(list[i].destination), nvlxi_host_pointer(list[i].source), list[i].length);
}

static void move_rows(const struct nvlxi_rows *rows) {
    for (uint64_t i = 0; i < rows->count; i++)
        memmove(nvlxi_host_pointer(rows->destination + i * rows->destination_pitch),
                nvlxi_host_pointer(rows->source + i * rows->source_pitch), rows->length);
}

static void move_grid(const struct nvlxi_grid *grid) {
    struct nvlxi_rows rows = grid->rows;
    for (uint64_t i = 0; i < grid->times; i++) {
        move_rows(&rows);
        rows.destination += grid->destination_step;
        rows.source += grid->source_step;
    }
}

static void copy_part(const struct nvlxi_part *part, bool of_rows) {
    if (!of_rows)
        copy_fragments(part->list, part->count);
    for (uint32_t i = 0; of_rows && i < part->count; i++)
        move_rows(&nvlxi_host_rows_of(part)[i]);
}

static void digest_leaves(const struct nvlxi_leaf_list *leaves) {
    for (uint64_t i = 0, offset = 0; i < leaves->count; i++, offset += NVLXI_LEAF_BYTES) {
        const struct nvlxi_digest_span whole = leaves->span;
        const struct nvlxi_digest_span leaf =
            leaves->list ? leaves->list[i]
                         : (struct nvlxi_digest_span){whole.address + offset,
                                                      nvlxi_min(NVLXI_LEAF_BYTES, whole.length - offset)};
        leaves->digests[i] = nvlxi_xxh64(nvlxi_host_pointer(leaf.address), leaf.length);
    }
}

void nvlxi_host_job_run(const struct nvlxi_host_job *job) {
    switch (job->kind) {
    case NVLXI_JOB_LIST:
        copy_fragments(job->list, job->count);
        break;
    case NVLXI_JOB_KERNEL:
        for (uint32_t i = 0; i < job->part_count; i++)
            copy_part(&job->parts[i], job->of_rows);
        break;
    case NVLXI_JOB_GRID:
        move_grid(&job->grid);
        break;
    case NVLXI_JOB_DIGEST:
        digest_leaves(&job->leaves);
        break;
    case NVLXI_JOB_MARK:
        nvlxi_host_point_mark(job->point);
        break;
    case NVLXI_JOB_WAIT:
        nvlxi_host_point_await(job->point);
        break;
    case NVLXI_JOB_HOLD:
        while (!atomic_load(job->until))
            usleep(PEEK_US);
        break;
    case NVLXI_JOB_CALL:
        job->function(job->argument);
        break;
    case NVLXI_JOB_SIGNAL:
        nvlxi_host_count_change(&job->signal);
        break;
    case NVLXI_JOB_AWAIT:
        nvlxi_host_count_await(&job->gated);
        break;
    case NVLXI_JOB_PACE:
        nvlxi_host_count_pace(&job->paced);
        break;
    case NVLXI_JOB_BLOCKS:
        nvlxi_host_blocks_run(&job->blocks);
        break;
    }
}

size_t nvlxi_host_job_places(const struct nvlxi_host_job *job) {
    return job->kind == NVLXI_JOB_MARK || job->kind == NVLXI_JOB_WAIT ? 0
           : job->kind == NVLXI_JOB_LIST                              ? job->count
                                                                      : 1;
}

struct nvlxi_host_job *nvlxi_host_job_make(enum nvlxi_host_job_kind kind) {
    struct nvlxi_host_job *job = calloc(1, sizeof *job);
    if (job)
        job->kind = kind;
    return job;
}

struct nvlxi_host_job *nvlxi_host_job_clone(const struct nvlxi_host_job *job) {
    struct nvlxi_host_job *clone = malloc(sizeof *clone);
    const size_t bytes = job->list ? job->count * sizeof *job->list : 0;
    if (!clone)
        return NULL;
    *clone = *job;
    if (!bytes)
        return clone;
    clone->list = malloc(bytes);
    if (!clone->list) {
        free(clone);
        return NULL;
    }
    memcpy(clone->list, job->list, bytes);
    return clone;
}

void nvlxi_host_job_free(struct nvlxi_host_job *job) {
    nvlxi_host_point_drop(job->point);
    free(job->list);
    free(job);
}
