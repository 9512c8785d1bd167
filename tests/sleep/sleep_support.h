/* An owner whose memory sleeps: what the tests of it share. SPDX-License-Identifier: Apache-2.0 */
#ifndef SLEEP_SUPPORT_H
#define SLEEP_SUPPORT_H

#include "device/host/host.h"
#include "support.h"

#define SIZE       (128 * KIB) /* of the weights, which lie across the border of two chunks */
#define CHUNK      (2 * MIB)
#define INNER      (CHUNK - SIZE / 2) /* where they begin */
#define CODE(code) ((uint64_t)(int64_t)(code))

extern struct nvlx_engine *owner;
extern char *memory, *rest;
extern struct nvlx_region *weights;

/* Memory in two chunks; returns where the weights begin. */
char *chunks(uint32_t seed);
void free_chunks(char *inner);

/* The chunks go: what vLLM's sleep mode does. The addresses stay. */
struct nvlxi_host_block *drop_chunks(void);
void replace_chunks(uint32_t seed);

/* An owner that serves: "weights" are chunks, and can sleep; "rest" is other memory. */
void begin(void);
void end(void);
uint64_t published(void);

#endif
