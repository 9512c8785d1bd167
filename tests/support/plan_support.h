/* What the planner's tests share: its rules said once more, chunks on demand, one plan, and one checked list.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PLAN_SUPPORT_H
#define PLAN_SUPPORT_H

#include "support.h"
#include "transfer/plan/plan.h"

/* The piece that the kernel's fragments are cut into, the longest one, and the
 * shortest fragment for the copy engines. */
#define PIECE      (64 * KIB)
#define PIECE_MAX  (2 * MIB)
#define ENGINE_MIN MIB

#define LOCAL  UINT64_C(0x7f0000000000)
#define REMOTE UINT64_C(0x7e0000000000)

/* What take_chunk of the plan gives, and when it fails. */
struct chunks {
    uint32_t capacity; /* of the next ones */
    long taken, live, fail_at;
    long most; /* that may be live; 0: any number */
};
extern struct chunks chunks;

extern struct nvlxi_plan plan;

void begin(uint32_t mechanism);
void end(void);

/* As nvlxi_plan_group, of a pair without host memory. */
struct nvlxi_group *plan_group(int gpu, int remote_gpu, uint16_t device, uint16_t opcode, bool kernels);
struct nvlxi_group *group_for(uint16_t opcode, bool kernels);
void add(struct nvlxi_group *group, uint64_t destination, uint64_t source, uint64_t length);

/* Apart from each other: none continues another. */
void add_fillers(struct nvlxi_group *group, size_t count);

uint64_t all_fragments(void);

/* A list as the check hands it on, with room for so many ops. */
extern struct nvlxi_validated checked;

void begin_checked(size_t count);
void end_checked(void);
void add_checked(struct nvlxi_group *group, const struct nvlxi_fragment *fragment);

#endif
