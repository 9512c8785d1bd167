/* Sealed files: what the host backend's memory consists of. SPDX-License-Identifier: Apache-2.0
 *
 * They are sealed against growing and shrinking: what was found to be inside when it was mapped can be touched for
 * ever. */
#ifndef NVLXI_DEVICE_HOST_FILE_H
#define NVLXI_DEVICE_HOST_FILE_H

#include <stdbool.h>

#include "device/device.h"

/* A file of exactly `length` bytes that keeps its size. Its descriptor; or -1, and errno tells why. Beyond RLIMIT_FSIZE
 * it is EFBIG, and no signal. */
int nvlxi_host_file_make(uint64_t length);

/* Fails for what errno says, `reason`: a GPU, or its pool, has no `length` bytes. NVLX_EDEVICE, or NVLX_ENOMEM if it is
 * this process that has no address space or file descriptor for them. */
int nvlxi_host_file_failure(int gpu, uint64_t length, int reason);

/* Whether a descriptor, of anything, leads to a sealed file of exactly `length` bytes. */
bool nvlxi_host_file_is(int fd, uint64_t length);

/* Takes the descriptor that `segment` needs. NVLX_EDEVICE, and it is closed, unless it leads to a sealed file of
 * `length` bytes. */
int nvlxi_host_file_take(struct nvlxi_files *files, const struct nvlxi_segment_record *segment, uint64_t length,
                         int *fd);

/* Makes bytes of a file visible, from `offset` on. errno tells why not. */
int nvlxi_host_file_map(int fd, uint64_t offset, uint64_t size, uint64_t *base);
void nvlxi_host_file_unmap(uint64_t base, uint64_t size);

#endif
