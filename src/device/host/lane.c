/* The host backend's lanes and events: a worker thread for each lane plays the copy engine.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A lane is a FIFO of jobs: copies, points to be marked done or to be waited for, signals and waits for counts. Its
 * states:
 *
 *     RUNNING    the worker takes jobs from the front and runs them without a lock
 *     STOPPING   lane_destroy has been called: the worker empties the queue and ends, then it is joined
 *
 * Lanes are spread over channels, as CUDA's streams are. A channel has room for so many copies and kernels that are not
 * done; whoever queues one more waits. Events and waits take no room. (As measured on an H100 with driver 580.)
 *
 * An event holds the point (point.h) of its last recording, or none, which counts as done. A wait takes the point that
 * the event holds at the time of the call; recording the event again gives it another point and does not touch the
 * wait. Points are counted: by the event, by the job that marks them, by each job that waits.
 *
 * Jobs and points are allocated before anything is queued or changed. Locks: `lanes_mutex` guards the registry; a
 * lane's mutex its queue; an event's mutex its point. None is held while another is taken. */
#define _GNU_SOURCE
#include "device/host/host.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/base.h"
#include "base/error.h"
#include "base/thread.h"
#include "device/host/graph.h"
#include "device/host/job.h"
#include "device/host/memory.h"
#include "device/host/point.h"
#include "device/leaf_list.h"

#define CHANNELS      8
#define CHANNEL_DEPTH 1021
#define BATCH         64 /* copies of a list that are one job */

struct nvlxi_event {
    int gpu;
    pthread_mutex_t mutex;
    struct nvlxi_host_point *point; /* held; NULL: never recorded */
};

struct nvlxi_lane {
    int gpu;
    uint64_t id;
    pthread_t worker;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct nvlxi_host_graph *graph; /* that it captures; or NULL */
    bool stopping, working;         /* working: a job has left the queue and is not done */
    STAILQ_HEAD(, nvlxi_host_job) jobs;
    LIST_ENTRY(nvlxi_lane) entry;
};

static pthread_mutex_t channels_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t channels_changed = PTHREAD_COND_INITIALIZER;
static size_t channels[CHANNELS]; /* places taken in each */

static atomic_ullong ids;
static pthread_mutex_t lanes_mutex = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, nvlxi_lane) lanes = LIST_HEAD_INITIALIZER(lanes);

/* The workers are not in the child, nor who waits for places. */
void nvlxi_host_lanes_fork(enum nvlxi_fork_phase phase) {
    if (phase == NVLXI_BEFORE_FORK) {
        pthread_mutex_lock(&lanes_mutex);
        pthread_mutex_lock(&channels_mutex);
        return;
    }
    if (phase == NVLXI_IN_CHILD) {
        LIST_INIT(&lanes);
        memset(channels, 0, sizeof channels);
        pthread_cond_init(&channels_changed, NULL);
    }
    pthread_mutex_unlock(&channels_mutex);
    pthread_mutex_unlock(&lanes_mutex);
}

/* ---- Channels ---------------------------------------------------------------------------------------- */

/* As CUDA does, this waits while the channel is full. */
static void take_places(const struct nvlxi_lane *lane, const struct nvlxi_host_job *job) {
    size_t *taken = &channels[lane->id % CHANNELS];
    const size_t needed = nvlxi_host_job_places(job);
    if (!needed)
        return;
    pthread_mutex_lock(&channels_mutex);
    while (*taken + needed > CHANNEL_DEPTH)
        pthread_cond_wait(&channels_changed, &channels_mutex);
    *taken += needed;
    pthread_mutex_unlock(&channels_mutex);
}

static void leave_places(const struct nvlxi_lane *lane, const struct nvlxi_host_job *job) {
    const size_t left = nvlxi_host_job_places(job);
    if (!left)
        return;
    pthread_mutex_lock(&channels_mutex);
    channels[lane->id % CHANNELS] -= left;
    pthread_cond_broadcast(&channels_changed);
    pthread_mutex_unlock(&channels_mutex);
}

/* ---- Workers ------------------------------------------------------------------------------------------ */

static struct nvlxi_host_job *next_job(struct nvlxi_lane *lane) {
    pthread_mutex_lock(&lane->mutex);
    lane->working = false;
    while (STAILQ_EMPTY(&lane->jobs) && !lane->stopping)
        pthread_cond_wait(&lane->changed, &lane->mutex);
    struct nvlxi_host_job *job = STAILQ_FIRST(&lane->jobs);
    if (job)
        STAILQ_REMOVE_HEAD(&lane->jobs, entry);
    lane->working = job != NULL;
    pthread_mutex_unlock(&lane->mutex);
    return job;
}

static void end_job(const struct nvlxi_lane *lane, struct nvlxi_host_job *job) {
    leave_places(lane, job);
    nvlxi_host_job_free(job);
}

static void *work(void *argument) {
    struct nvlxi_lane *lane = argument;
    struct nvlxi_host_job *job;
    while ((job = next_job(lane))) {
        nvlxi_host_job_run(job);
        end_job(lane, job);
    }
    return NULL;
}

static int start_worker(struct nvlxi_lane *lane) {
    int error = nvlxi_thread_start(&lane->worker, work, lane);
    if (!error)
        pthread_setname_np(lane->worker, "nvlx-host-lane");
    return error;
}

int nvlxi_host_lane_create(struct nvlxi_device *device, int gpu, int priority, struct nvlxi_lane **lane) {
    (void)priority; /* workers have none */
    int code = nvlxi_host_check_gpu(device, gpu);
    if (code)
        return code;
    struct nvlxi_lane *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for a lane of GPU %d", gpu);
    made->gpu = gpu;
    made->id = atomic_fetch_add(&ids, 1);
    STAILQ_INIT(&made->jobs);
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->changed, NULL);
    int error = start_worker(made);
    if (error) {
        code = nvlxi_fail(nvlxi_system_code(error, NVLX_EDEVICE), "cannot start the worker of a lane of GPU %d: %s",
                          gpu, strerror(error));
        goto free_lane;
    }
    pthread_mutex_lock(&lanes_mutex);
    LIST_INSERT_HEAD(&lanes, made, entry);
    pthread_mutex_unlock(&lanes_mutex);
    *lane = made;
    return 0;

free_lane:
    pthread_cond_destroy(&made->changed);
    pthread_mutex_destroy(&made->mutex);
    free(made);
    return code;
}

void nvlxi_host_lane_destroy(struct nvlxi_lane *lane) {
    pthread_mutex_lock(&lanes_mutex);
    LIST_REMOVE(lane, entry);
    pthread_mutex_unlock(&lanes_mutex);
    pthread_mutex_lock(&lane->mutex);
    lane->stopping = true;
    pthread_cond_signal(&lane->changed);
    pthread_mutex_unlock(&lane->mutex);
    pthread_join(lane->worker, NULL);
    pthread_cond_destroy(&lane->changed);
    pthread_mutex_destroy(&lane->mutex);
    free(lane);
}

int nvlxi_host_lane_gpu(const struct nvlxi_lane *lane) {
    return lane->gpu;
}

struct nvlxi_host_graph *nvlxi_host_lane_graph(struct nvlxi_lane *lane) {
    pthread_mutex_lock(&lane->mutex);
    struct nvlxi_host_graph *graph = lane->graph;
    pthread_mutex_unlock(&lane->mutex);
    return graph;
}

int nvlxi_host_lane_query(struct nvlxi_lane *lane) {
    struct nvlxi_host_graph *graph = nvlxi_host_lane_graph(lane);
    if (graph)
        return nvlxi_host_graph_break(graph);
    pthread_mutex_lock(&lane->mutex);
    bool idle = STAILQ_EMPTY(&lane->jobs) && !lane->working;
    pthread_mutex_unlock(&lane->mutex);
    return idle ? 0 : NVLX_EAGAIN;
}

/* The job is the lane's, or that of the graph that it captures, or gone. */
int nvlxi_host_lane_queue(struct nvlxi_lane *lane, struct nvlxi_host_job *job) {
    struct nvlxi_host_graph *graph = nvlxi_host_lane_graph(lane);
    if (graph)
        return nvlxi_host_graph_take(graph, job);
    take_places(lane, job);
    pthread_mutex_lock(&lane->mutex);
    STAILQ_INSERT_TAIL(&lane->jobs, job, entry);
    pthread_cond_signal(&lane->changed);
    pthread_mutex_unlock(&lane->mutex);
    return 0;
}

struct nvlxi_host_graph *nvlxi_host_lane_capture(struct nvlxi_lane *lane, struct nvlxi_host_graph *graph) {
    pthread_mutex_lock(&lane->mutex);
    struct nvlxi_host_graph *before = lane->graph;
    lane->graph = graph;
    pthread_mutex_unlock(&lane->mutex);
    return before;
}

static int queue_list(struct nvlxi_lane *lane, const struct nvlxi_fragment *list, size_t count) {
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_LIST);
    struct nvlxi_fragment *own = malloc(count * sizeof *own);
    if (!job || !own) {
        free(job);
        free(own);
        return nvlxi_fail(NVLX_ENOMEM, "no memory to queue %zu copies", count);
    }
    memcpy(own, list, count * sizeof *own);
    job->list = own;
    job->count = count;
    return nvlxi_host_lane_queue(lane, job);
}

int nvlxi_host_copy_list(struct nvlxi_lane *lane, const struct nvlxi_fragment *list, size_t count, int destination_gpu,
                         int source_gpu) {
    (void)destination_gpu;
    (void)source_gpu;
    int code = nvlxi_host_check_copies(lane->gpu, list, count, NVLX_EDEVICE);
    for (size_t first = 0; first < count && !code; first += BATCH)
        code = queue_list(lane, list + first, nvlxi_min(BATCH, count - first));
    return code;
}

int nvlxi_host_copy(struct nvlxi_lane *lane, const struct nvlxi_copy *copy) {
    const struct nvlxi_fragment fragment = {copy->destination, copy->source, copy->length};
    return nvlxi_host_copy_list(lane, &fragment, 1, copy->destination_gpu, copy->source_gpu);
}

static int queue_grid(struct nvlxi_lane *lane, const struct nvlxi_grid *grid) {
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_GRID);
    if (!job)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to queue a copy of rows");
    job->grid = *grid;
    return nvlxi_host_lane_queue(lane, job);
}

int nvlxi_host_copy_grid(struct nvlxi_lane *lane, const struct nvlxi_grid *grid, int destination_gpu, int source_gpu) {
    (void)destination_gpu;
    (void)source_gpu;
    int code = nvlxi_host_check_form(grid);
    if (!code)
        code = nvlxi_host_check_rows(lane->gpu, grid);
    return code ? code : queue_grid(lane, grid);
}

int nvlxi_host_copy_rows(struct nvlxi_lane *lane, const struct nvlxi_rows *list, size_t count, int destination_gpu,
                         int source_gpu) {
    int code = 0;
    for (size_t i = 0; i < count && !code; i++) {
        const struct nvlxi_grid once = {.rows = list[i], .times = 1};
        code = nvlxi_host_copy_grid(lane, &once, destination_gpu, source_gpu);
    }
    return code;
}

static int check_part(int gpu, const struct nvlxi_part *part, bool of_rows) {
    int code = of_rows ? 0 : nvlxi_host_check_copies(gpu, part->list, part->count, NVLX_EDEVICE);
    for (uint32_t i = 0; of_rows && i < part->count && !code; i++)
        code = nvlxi_host_check_rows(gpu, &(const struct nvlxi_grid){.rows = nvlxi_host_rows_of(part)[i], .times = 1});
    return code;
}

int nvlxi_host_copy_kernel(struct nvlxi_lane *lane, const struct nvlxi_kernel *kernel) {
    int code = 0;
    for (uint32_t i = 0; i < kernel->part_count && !code; i++)
        code = check_part(lane->gpu, &kernel->parts[i], kernel->rows);
    if (code)
        return code;
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_KERNEL);
    if (!job)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to queue a kernel of %u lists", (unsigned)kernel->part_count);
    memcpy(job->parts, kernel->parts, kernel->part_count * sizeof *kernel->parts);
    job->part_count = kernel->part_count;
    job->of_rows = kernel->rows;
    return nvlxi_host_lane_queue(lane, job);
}

int nvlxi_host_digest(struct nvlxi_lane *lane, const struct nvlxi_leaves *leaves) {
    int code = nvlxi_host_check_digest(lane->gpu, leaves->spans, leaves->span_count);
    if (code)
        return code;
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_DIGEST);
    if (!job)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to queue a digest of %u spans", (unsigned)leaves->span_count);
    job->leaves = nvlxi_leaf_list_make(leaves);
    return nvlxi_host_lane_queue(lane, job);
}

int nvlxi_host_lane_call(struct nvlxi_lane *lane, void (*function)(void *argument), void *argument) {
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_CALL);
    if (!job)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to queue a call");
    job->function = function;
    job->argument = argument;
    return nvlxi_host_lane_queue(lane, job);
}

int nvlxi_host_signal(struct nvlxi_lane *lane, const struct nvlxi_signal *signal) {
    int code = nvlxi_host_check_count(lane->gpu, signal->address, NVLXI_HOST_CHANGE);
    if (code)
        return code;
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_SIGNAL);
    if (!job)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to queue a signal");
    job->signal = *signal;
    return nvlxi_host_lane_queue(lane, job);
}

static int queue_await(struct nvlxi_lane *lane, const struct nvlxi_gated *gated, enum nvlxi_host_count_use use) {
    int code = nvlxi_host_check_count(lane->gpu, gated->address, use);
    if (!code)
        code = nvlxi_host_check_count(lane->gpu, gated->gate, use);
    if (code)
        return code;
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_AWAIT);
    if (!job)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to queue a wait for a signal");
    job->gated = *gated;
    return nvlxi_host_lane_queue(lane, job);
}

int nvlxi_host_await(struct nvlxi_lane *lane, uint64_t address, uint64_t value) {
    return queue_await(lane, &(const struct nvlxi_gated){address, value, address, value}, NVLXI_HOST_AWAIT);
}

int nvlxi_host_await_gated(struct nvlxi_lane *lane, const struct nvlxi_gated *gated) {
    return queue_await(lane, gated, NVLXI_HOST_READ);
}

int nvlxi_host_await_paced(struct nvlxi_lane *lane, const struct nvlxi_paced *paced) {
    int code = nvlxi_host_check_count(lane->gpu, paced->address, NVLXI_HOST_READ);
    if (!code && paced->reached)
        code = nvlxi_host_check_count(lane->gpu, paced->reached, NVLXI_HOST_CHANGE);
    if (!code && paced->mark)
        code = nvlxi_host_check_count(lane->gpu, paced->mark, NVLXI_HOST_CHANGE);
    if (code)
        return code;
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_PACE);
    if (!job)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to queue a wait of a graph");
    job->paced = *paced;
    return nvlxi_host_lane_queue(lane, job);
}

/* Copies that take_pair of blocks.c finds are checked there. */
int nvlxi_host_queue_blocks(struct nvlxi_lane *lane, const struct nvlxi_block_kernel *kernel) {
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_BLOCKS);
    if (!job)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to queue a kernel of %u blocks", (unsigned)kernel->pair_count);
    job->blocks = *kernel;
    return nvlxi_host_lane_queue(lane, job);
}

/* ---- Events ------------------------------------------------------------------------------------------ */

int nvlxi_host_event_create(struct nvlxi_device *device, int gpu, struct nvlxi_event **event) {
    int code = nvlxi_host_check_gpu(device, gpu);
    if (code)
        return code;
    struct nvlxi_event *made = calloc(1, sizeof *made);
    if (!made)
        return nvlxi_fail(NVLX_ENOMEM, "no memory for an event of GPU %d", gpu);
    made->gpu = gpu;
    pthread_mutex_init(&made->mutex, NULL);
    *event = made;
    return 0;
}

void nvlxi_host_event_destroy(struct nvlxi_event *event) {
    nvlxi_host_point_drop(event->point);
    pthread_mutex_destroy(&event->mutex);
    free(event);
}

static struct nvlxi_host_point *event_point(struct nvlxi_event *event) {
    pthread_mutex_lock(&event->mutex);
    struct nvlxi_host_point *point = nvlxi_host_point_hold(event->point);
    pthread_mutex_unlock(&event->mutex);
    return point;
}

int nvlxi_host_event_record(struct nvlxi_lane *lane, struct nvlxi_event *event) {
    if (lane->gpu != event->gpu)
        return nvlxi_fail(NVLX_EDEVICE, "an event of GPU %d cannot be recorded on GPU %d", event->gpu, lane->gpu);
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_MARK);
    struct nvlxi_host_point *point = nvlxi_host_point_make();
    if (!job || !point) {
        free(job);
        nvlxi_host_point_drop(point);
        return nvlxi_fail(NVLX_ENOMEM, "no memory to record an event of GPU %d", event->gpu);
    }
    job->point = nvlxi_host_point_hold(point);
    pthread_mutex_lock(&event->mutex);
    struct nvlxi_host_point *old = event->point;
    event->point = point;
    pthread_mutex_unlock(&event->mutex);
    nvlxi_host_point_drop(old);
    return nvlxi_host_lane_queue(lane, job);
}

int nvlxi_host_event_query(struct nvlxi_event *event) {
    pthread_mutex_lock(&event->mutex);
    bool done = nvlxi_host_point_is_done(event->point);
    pthread_mutex_unlock(&event->mutex);
    return done ? 0 : NVLX_EAGAIN;
}

int nvlxi_host_lane_wait(struct nvlxi_lane *lane, struct nvlxi_event *event) {
    struct nvlxi_host_point *point = event_point(event);
    if (!point)
        return 0;
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_WAIT);
    if (!job) {
        nvlxi_host_point_drop(point);
        return nvlxi_fail(NVLX_ENOMEM, "no memory to wait for an event of GPU %d", event->gpu);
    }
    job->point = point;
    return nvlxi_host_lane_queue(lane, job);
}

/* ---- The caller's streams: lanes of this process ----------------------------------------------------- */

static struct nvlxi_lane *find_lane(const void *handle) {
    struct nvlxi_lane *found;
    pthread_mutex_lock(&lanes_mutex);
    LIST_FOREACH(found, &lanes, entry) {
        if (found == handle)
            break;
    }
    pthread_mutex_unlock(&lanes_mutex);
    return found;
}

int nvlxi_host_stream_find(struct nvlxi_device *device, void *handle, struct nvlxi_stream *stream) {
    (void)device;
    struct nvlxi_lane *lane = find_lane(handle);
    if (lane) {
        *stream = (struct nvlxi_stream){
            .handle = lane, .gpu = lane->gpu, .id = lane->id, .capturing = nvlxi_host_lane_graph(lane) != NULL};
        return 0;
    }
    return nvlxi_fail(NVLX_ENOTSUP, "stream %p is none of the host backend's: it knows no CUDA streams", handle);
}

int nvlxi_host_stream_record(struct nvlxi_device *device, const struct nvlxi_stream *stream,
                             struct nvlxi_event *event) {
    (void)device;
    return nvlxi_host_event_record(stream->handle, event);
}

int nvlxi_host_stream_wait(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_event *event) {
    (void)device;
    return nvlxi_host_lane_wait(stream->handle, event);
}

int nvlxi_host_stream_lane(struct nvlxi_device *device, const struct nvlxi_stream *stream, struct nvlxi_lane **lane) {
    (void)device;
    *lane = stream->handle;
    return 0;
}

void nvlxi_host_stream_lane_end(struct nvlxi_lane *lane) {
    (void)lane;
}

int nvlxi_host_lane_hold(struct nvlxi_lane *lane, const atomic_bool *until) {
    struct nvlxi_host_job *job = nvlxi_host_job_make(NVLXI_JOB_HOLD);
    if (!job)
        return nvlxi_fail(NVLX_ENOMEM, "no memory to queue a wait");
    job->until = until;
    return nvlxi_host_lane_queue(lane, job);
}
