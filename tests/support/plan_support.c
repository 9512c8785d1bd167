/* What the tests of plans share: see plan_support.h. SPDX-License-Identifier: Apache-2.0 */
#include "plan_support.h"

#include <stdlib.h>

struct chunks chunks = {.capacity = 7};

static int take_chunk(void *context, bool kernel, uint64_t count, struct nvlxi_chunk **chunk) {
    EXPECT(context == &chunks);
    if (++chunks.taken == chunks.fail_at || (chunks.most && chunks.live == chunks.most))
        return NVLX_EBUSY;
    struct nvlxi_chunk *made = calloc(1, sizeof *made);
    EXPECT(made != NULL);
    made->capacity = chunks.capacity + (uint32_t)(count % 3);
    made->kernel = kernel;
    made->fragment = calloc(made->capacity, sizeof *made->fragment);
    EXPECT(made->fragment != NULL);
    chunks.live++;
    *chunk = made;
    return 0;
}

static void give_chunk(void *context, struct nvlxi_chunk *chunk) {
    EXPECT(context == &chunks);
    chunks.live--;
    free(chunk->fragment);
    free(chunk);
}

struct nvlxi_plan plan;

void begin(uint32_t mechanism) {
    nvlxi_plan_init(&plan, take_chunk, give_chunk, &chunks);
    nvlxi_plan_reset(&plan, mechanism);
    chunks.taken = chunks.fail_at = 0;
    chunks.most = 0;
}

void end(void) {
    nvlxi_plan_reset(&plan, NVLX_MECHANISM_AUTO);
    EQUAL(0, chunks.live);
}

struct nvlxi_group *plan_group(int gpu, int remote_gpu, uint16_t device, uint16_t opcode, bool kernels) {
    const struct nvlxi_pair pair = {
        .gpu = gpu, .remote_gpu = remote_gpu, .device = device, .opcode = opcode, .kernels = kernels};
    return nvlxi_plan_group(&plan, &pair);
}

struct nvlxi_group *group_for(uint16_t opcode, bool kernels) {
    struct nvlxi_group *group = plan_group(0, 0, 0, opcode, kernels);
    if (!group)
        FAIL("no memory for a group");
    return group;
}

void add(struct nvlxi_group *group, uint64_t destination, uint64_t source, uint64_t length) {
    OK(nvlxi_plan_add(&plan, group, destination, source, length));
}

void add_fillers(struct nvlxi_group *group, size_t count) {
    for (size_t i = 0; i < count; i++)
        add(group, LOCAL + (UINT64_C(1) << 40) + 100 * i, REMOTE + (UINT64_C(1) << 40) + 200 * i, 50);
}

uint64_t all_fragments(void) {
    return plan.fragments[NVLXI_BY_KERNEL] + plan.fragments[NVLXI_BY_ENGINES];
}

struct nvlxi_validated checked;

void begin_checked(size_t count) {
    struct nvlx_op *ops = calloc(count, sizeof *ops);
    checked = (struct nvlxi_validated){.ops = ops, .count = 0};
    checked.remote = calloc(count, sizeof *checked.remote);
    checked.pairs = calloc(count + 1, sizeof *checked.pairs);
    checked.stretches = calloc(count + 1, sizeof *checked.stretches);
    EXPECT(ops && checked.remote && checked.pairs && checked.stretches);
}

void end_checked(void) {
    free((void *)checked.ops);
    free(checked.remote);
    free(checked.pairs);
    free(checked.stretches);
}

/* The index of the pair that the planner makes this group of. */
static uint32_t pair_of(const struct nvlxi_group *group) {
    for (uint32_t i = 0; i < checked.pair_count; i++)
        if (checked.pairs[i].group == group)
            return i;
    checked.pairs[checked.pair_count] = (struct nvlxi_pair){.gpu = group->gpu,
                                                            .remote_gpu = group->remote_gpu,
                                                            .device = group->device,
                                                            .opcode = group->opcode,
                                                            .hosts = group->hosts,
                                                            .kernels = group->kernels,
                                                            .group = (struct nvlxi_group *)group};
    return (uint32_t)checked.pair_count++;
}

void add_checked(struct nvlxi_group *group, const struct nvlxi_fragment *fragment) {
    const bool read = group->opcode == NVLX_OP_READ;
    struct nvlx_op *op = (struct nvlx_op *)&checked.ops[checked.count];
    const uint32_t pair = pair_of(group);
    if (!checked.stretch_count || checked.stretches[checked.stretch_count - 1].pair != pair)
        checked.stretches[checked.stretch_count++] = (struct nvlxi_stretch){checked.count, 0, pair, 0};
    op->local = (void *)(uintptr_t)(read ? fragment->destination : fragment->source);
    op->length = fragment->length;
    checked.remote[checked.count++] = read ? fragment->source : fragment->destination;
    checked.stretches[checked.stretch_count - 1].end = checked.count;
    checked.longest |= fragment->length - 1;
}
