/* Memory that is shared by file descriptors: what device_contract_kinds.c and device_contract_refusals.c share.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef DEVICE_CONTRACT_FILES_H
#define DEVICE_CONTRACT_FILES_H

#include "device_contract.h"

#define CHUNK (2 * MIB) /* the granularity of every GPU, up to now */

enum { FILES_MAX = 8, RUN = 5 };

/* Gives out file descriptors in order, and fails after the last. */
struct source {
    struct nvlxi_files files;
    int fds[FILES_MAX];
    size_t count;
    size_t taken; /* how often `take` was called */
};

struct source source_of(size_t count, const int *fds);
/* Of new descriptors of the peer's segments. */
struct source files_of(size_t count, const struct nvlxi_segment_record *run);

uint64_t allocate_kind(uint32_t kind, int gpu, uint64_t length, uint64_t chunk);
void copy_here(int gpu, uint64_t destination, uint64_t from, uint64_t length);
/* Skips the case if GPU 0 has no pools that can be shared. */
void need_pools(void);

/* Memory of the peer's GPU 0, filled. */
uint64_t peer_memory(uint32_t kind, uint64_t length, uint64_t chunk, uint8_t seed);
void peer_free(uint64_t address);
uint64_t peer_wrong(uint64_t address, uint64_t length, uint8_t seed);
struct nvlxi_segment_record peer_record(uint64_t address);
/* The peer's segments from the one at `address` on. */
void peer_run(uint64_t address, size_t count, struct nvlxi_segment_record *run);

int try_map_from(struct source *source, int gpu, size_t count, const struct nvlxi_segment_record *run, bool read_only,
                 uint64_t *address);
/* With new files of the peer. */
uint64_t map_run(int gpu, size_t count, const struct nvlxi_segment_record *run, bool read_only);

#endif
