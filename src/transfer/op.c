/* What is wrong with one op. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/op.h"

#include <inttypes.h>

#include "base/error.h"

int nvlxi_op_check(const struct nvlx_op *op, size_t index) {
    if (op->opcode != NVLX_OP_READ && op->opcode != NVLX_OP_WRITE)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: opcode %" PRIu32 " is neither NVLX_OP_READ nor NVLX_OP_WRITE", index,
                          op->opcode);
    if (op->flags || op->arg)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: flags 0x%" PRIx32 " and arg 0x%" PRIx64 " must be 0", index, op->flags,
                          op->arg);
    return 0;
}

int nvlxi_op_fail_foreign(const struct nvlx_op *op, size_t index) {
    return nvlxi_fail(NVLX_EINVAL, "op %zu: peer %p is not one of this engine", index, (void *)op->peer);
}

static bool overlaps(const struct nvlx_op *op) {
    const uint64_t local = (uint64_t)(uintptr_t)op->local, remote = op->remote;
    return local != remote && (local > remote ? local - remote : remote - local) < op->length;
}

int nvlxi_ops_check_overlap(const struct nvlx_op *ops, size_t index, size_t end) {
    for (; index < end; index++)
        if (overlaps(&ops[index]))
            return nvlxi_fail(NVLX_EINVAL,
                              "op %zu: its source and its destination overlap: local %p and remote 0x%" PRIx64
                              ", both of this process, + %" PRIu64,
                              index, ops[index].local, ops[index].remote, ops[index].length);
    return 0;
}

int nvlxi_op_fail_local(const struct nvlx_op *op, size_t index, uint64_t where) {
    return nvlxi_fail(NVLX_ERANGE,
                      "op %zu: local range 0x%" PRIx64 " + %" PRIu64
                      " is not registered in this engine, or was freed (byte 0x%" PRIx64 " is missing)",
                      index, (uint64_t)(uintptr_t)op->local, op->length, where);
}

int nvlxi_op_fail_asleep(const struct nvlx_op *op, size_t index, const char *whose, uint64_t where) {
    return nvlxi_fail(NVLX_ESUSPENDED,
                      "op %zu, of %" PRIu64 " bytes: %s memory at 0x%" PRIx64 " is suspended: wait until it is resumed",
                      index, op->length, whose, where);
}

int nvlxi_op_fail_remote(const struct nvlx_op *op, size_t index, uint64_t where, bool registered) {
    if (registered)
        return nvlxi_fail(NVLX_EACCES, "op %zu: the peer's region at 0x%" PRIx64 " does not grant %s", index, where,
                          op->opcode == NVLX_OP_READ ? "reading" : "writing");
    return nvlxi_fail(NVLX_ERANGE,
                      "op %zu: the peer's range 0x%" PRIx64 " + %" PRIu64
                      " is not in its registered regions (byte 0x%" PRIx64 " is missing)",
                      index, op->remote, op->length, where);
}

int nvlxi_op_fail_younger(const struct nvlx_op *op, size_t index, uint64_t where, uint64_t wanted, uint64_t born) {
    return nvlxi_fail(NVLX_ESTALE,
                      "op %zu: the peer's range 0x%" PRIx64 " + %" PRIu64 " was learned at generation %" PRIu64
                      ", but what is at 0x%" PRIx64 " now came with generation %" PRIu64,
                      index, op->remote, op->length, wanted, where, born);
}

int nvlxi_op_fail_unknown(size_t index, uint64_t wanted, uint64_t known) {
    return nvlxi_fail(NVLX_ESTALE,
                      "op %zu: of the peer generation %" PRIu64 " is known, not yet %" PRIu64
                      ", which its address is from: nvlx_peer_sync waits for it",
                      index, known, wanted);
}

int nvlxi_op_fail_second_peer(size_t index, uint64_t wanted) {
    return nvlxi_fail(NVLX_EINVAL,
                      "op %zu: generation %" PRIu64 " is of one peer, and the ops before are of another one", index,
                      wanted);
}
