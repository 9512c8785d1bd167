/* What the parts of device_contract.c share: helpers that fail the running case when something goes wrong.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICE_CONTRACT_H
#define DEVICE_CONTRACT_H

#include "base/base.h"
#include "device/device_peer.h"

struct contract_case {
    const char *name;
    CMUnitTestFunction function;
};
extern const struct contract_case memory_cases[], kind_cases[], refusal_cases[], lane_cases[], kernel_cases[],
    block_cases[], border_cases[], digest_cases[], rows_cases[], signal_cases[], host_cases[];
extern const size_t memory_case_count, kind_case_count, refusal_case_count, lane_case_count, kernel_case_count,
    block_case_count, border_case_count, digest_case_count, rows_case_count, signal_case_count, host_case_count;

/* Why this backend's verdict may differ in this respect; NULL: it must not. */
const char *difference(const char *what);

void need_two_gpus(void);

/* An errand that must succeed in this process. */
struct message here(struct message message);

uint64_t allocate(int gpu, uint64_t length);
void release(uint64_t address);
void fill(uint64_t address, uint64_t length, uint8_t seed);
uint64_t wrong(uint64_t address, uint64_t length, uint8_t seed); /* how many bytes are */
struct nvlxi_allocation resolve(uint64_t address);
uint64_t map(int gpu, const struct nvlxi_segment_record *record);
void unmap(int gpu, uint64_t address);
/* A new segment of the peer's, on its GPU 0. */
struct nvlxi_segment_record peer_segment(uint64_t length, uint8_t seed);

/* Two blocks of memory, and a lane for copies from one to the other. copy_desk_begin fills `to` with other bytes, and
 * `expected` with the same; copy_desk_expect notes a copy there; copy_desk_finish waits for the lane, and compares. */
#define COPY_DESK_BYTES (4 * MIB)
struct copy_desk {
    struct nvlxi_lane *lane;
    struct nvlxi_event *event;
    void *list; /* from list_alloc */
    uint64_t from, to;
    uint8_t *expected;
};
struct copy_desk copy_desk_make(size_t list_bytes);
void copy_desk_free(const struct copy_desk *desk);
void copy_desk_begin(const struct copy_desk *desk);
void copy_desk_expect(const struct copy_desk *desk, uint64_t to, uint64_t from, uint64_t length);
void copy_desk_finish(const struct copy_desk *desk);

/* Ends if the event is not complete in time. */
void wait_for(struct nvlxi_event *event);

#endif
