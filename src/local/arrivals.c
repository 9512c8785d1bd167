/* Which bytes come with which mark. SPDX-License-Identifier: Apache-2.0 */
#include "local/arrivals.h"

#include <stdlib.h>

#include "base/base.h"
#include "base/error.h"

int nvlxi_arrivals_add(struct nvlxi_arrivals *arrivals, uint64_t start, uint64_t end, size_t mark) {
    struct nvlxi_arriving *last = arrivals->count ? &arrivals->list[arrivals->count - 1] : NULL;
    if (last && last->mark == mark && last->end == start) {
        last->end = end;
        return 0;
    }
    if (arrivals->count == arrivals->capacity) {
        const size_t capacity = arrivals->capacity ? 2 * arrivals->capacity : 64;
        struct nvlxi_arriving *grown = realloc(arrivals->list, capacity * sizeof *grown);
        if (!grown)
            return nvlxi_fail(NVLX_ENOMEM, "no memory to tell %zu parts of a transfer apart", capacity);
        arrivals->list = grown;
        arrivals->capacity = capacity;
    }
    last = &arrivals->list[arrivals->count++];
    *last = (struct nvlxi_arriving){start, end, 0, mark}; /* NOLINT(clang-analyzer-core.NullDereference): it has room */
    arrivals->ordered = false;
    return 0;
}

static int compare_starts(const void *a, const void *b) {
    const struct nvlxi_arriving *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* Lists are often in order already. */
static bool is_in_order(const struct nvlxi_arrivals *arrivals) {
    for (size_t i = 1; i < arrivals->count; i++)
        if (arrivals->list[i].start < arrivals->list[i - 1].start)
            return false;
    return true;
}

static void put_in_order(struct nvlxi_arrivals *arrivals) {
    uint64_t reach = 0;
    if (!is_in_order(arrivals))
        qsort(arrivals->list, arrivals->count, sizeof *arrivals->list, compare_starts);
    for (size_t i = 0; i < arrivals->count; i++)
        arrivals->list[i].reach = reach = nvlxi_max(reach, arrivals->list[i].end);
    arrivals->ordered = true;
}

/* How many begin before an address. */
static size_t count_before(const struct nvlxi_arrivals *arrivals, uint64_t address) {
    size_t from = 0, to = arrivals->count;
    while (from < to) {
        const size_t middle = from + (to - from) / 2;
        if (arrivals->list[middle].start < address)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

bool nvlxi_arrivals_seen(struct nvlxi_arrivals *arrivals, uint64_t start, uint64_t end,
                         bool (*seen)(void *context, size_t mark), void *context) {
    if (!arrivals->ordered)
        put_in_order(arrivals);
    for (size_t i = count_before(arrivals, end); i > 0 && arrivals->list[i - 1].reach > start; i--)
        if (arrivals->list[i - 1].end > start && !seen(context, arrivals->list[i - 1].mark))
            return false;
    return true;
}

void nvlxi_arrivals_clear(struct nvlxi_arrivals *arrivals) {
    arrivals->count = 0;
    arrivals->ordered = false;
}

void nvlxi_arrivals_free(struct nvlxi_arrivals *arrivals) {
    free(arrivals->list);
    *arrivals = (struct nvlxi_arrivals){0};
}
