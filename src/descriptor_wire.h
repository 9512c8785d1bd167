/* What the writer and the reader of descriptors must agree on. The format is described in descriptor.cc.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DESCRIPTOR_WIRE_H
#define NVLXI_DESCRIPTOR_WIRE_H

#define NVLXI_WIRE_FORMAT "nvlxfer"
#define NVLXI_WIRE_MAJOR  1u
#define NVLXI_WIRE_MINOR  0u

/* enum nvlxi_kind and its name. */
#define NVLXI_WIRE_KINDS(X) X(NVLXI_KIND_CUDA_MALLOC, "cuda_malloc")

/* NVLX_ACCESS_... and its name. */
#define NVLXI_WIRE_ACCESSES(X)                                                                                         \
    X(NVLX_ACCESS_NONE, "-")                                                                                           \
    X(NVLX_ACCESS_READ, "r")                                                                                           \
    X(NVLX_ACCESS_WRITE, "w")                                                                                          \
    X(NVLX_ACCESS_READ_WRITE, "rw")

#endif
