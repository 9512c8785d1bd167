/* Marks on lanes, and what comes with them. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/marks.h"

#include <stdlib.h>

#include "base/error.h"

int nvlxi_marks_open(struct nvlxi_marks *marks, struct nvlxi_marked_lane *to) {
    if (marks->count == marks->capacity) {
        const size_t capacity = marks->capacity ? 2 * marks->capacity : 16;
        struct nvlxi_mark *grown = realloc(marks->mark, capacity * sizeof *grown);
        if (!grown)
            return nvlxi_fail(NVLX_ENOMEM, "no memory to mark %zu slabs of a transfer", capacity);
        marks->mark = grown;
        marks->capacity = capacity;
    }
    to->mark = marks->count;
    marks->mark[marks->count++] = (struct nvlxi_mark){0};
    return 0;
}

int nvlxi_marks_note(struct nvlxi_marks *marks, struct nvlxi_marked_lane *to, const struct nvlxi_fragment *list,
                     uint64_t count) {
    int code = 0;
    for (uint64_t i = 0; i < count && !code; i++) {
        const uint64_t start = list[i].destination;
        code = nvlxi_arrivals_add(&marks->arrivals, start, start + list[i].length, to->mark);
        to->bytes += list[i].length;
    }
    return code;
}

int nvlxi_marks_close(struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks, struct nvlxi_marked_lane *to) {
    struct nvlxi_pooled_event *event;
    int code = nvlxi_lanes_borrow_event(pool, to->lane->key.gpu, &event);
    if (code)
        return code;
    code = pool->context->ops->event_record(to->lane->lane, event->event);
    if (code)
        nvlxi_lanes_return(pool, NULL, 0, event);
    else
        marks->mark[to->mark].event = event;
    to->bytes = 0;
    return code;
}

struct looker {
    const struct nvlxi_lane_pool *pool;
    struct nvlxi_marks *marks;
};

static bool is_done(void *context, size_t number) {
    const struct looker *looker = context;
    struct nvlxi_mark *mark = &looker->marks->mark[number];
    if (!mark->done)
        mark->done = mark->event && looker->pool->context->ops->event_query(mark->event->event) == 0;
    return mark->done;
}

bool nvlxi_marks_arrived(const struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks, uint64_t start, uint64_t end) {
    return nvlxi_arrivals_seen(&marks->arrivals, start, end, is_done, &(struct looker){pool, marks});
}

void nvlxi_marks_return(struct nvlxi_lane_pool *pool, struct nvlxi_marks *marks) {
    for (size_t i = 0; i < marks->count; i++)
        nvlxi_lanes_return(pool, NULL, 0, marks->mark[i].event);
    marks->count = 0;
    nvlxi_arrivals_clear(&marks->arrivals);
}

void nvlxi_marks_free(struct nvlxi_marks *marks) {
    free(marks->mark);
    nvlxi_arrivals_free(&marks->arrivals);
}
