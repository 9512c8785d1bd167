/* Links that sleep.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * NVLink sleeps when it was not used for 50 ms, unless the administrator has set another threshold (`nvidia-smi nvlink
 * -gLowPwrInfo`). Whatever uses it next takes about 0.2 ms longer (measured on two H200, driver 580: cuda_wake). Each
 * of its lanes wakes only when it is used. So a long list begins to wake all lanes to its peers before it is checked
 * and planned, which takes as long. What is short has nothing to do meanwhile. */
#ifndef NVLXI_TRANSFER_WAKE_H
#define NVLXI_TRANSFER_WAKE_H

#include "transfer/transfer.h"

/* A list is about to be checked, which has come at that time: of its ops, nothing is known but that they can be read.
 * Wakes only the links of its own GPUs: where another one's queue is full, a launch would wait. Without a lock. */
void nvlxi_wake_for(struct nvlxi_transfers *transfers, const struct nvlx_op *ops, size_t count, uint64_t now_ns);
/* Something has been submitted. When it ends nobody knows: it may be seen done long after. */
void nvlxi_wake_note_use(struct nvlxi_transfers *transfers, uint64_t now_ns);

#endif
