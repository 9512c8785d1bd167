/* What is wrong with one op. SPDX-License-Identifier: Apache-2.0 */
#include "transfer/op.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/error.h"

/* ---- Rows -------------------------------------------------------------------------------------------- */

static struct nvlxi_side side_of(const struct nvlx_op *op, uint64_t address, bool local) {
    const struct nvlx_rows *rows = op->flags & NVLX_OP_ROWS ? nvlxi_op_rows(op) : NULL;
    const uint64_t pitch = !rows || rows->count == 1 ? 0 : local ? rows->local_pitch : rows->remote_pitch;
    return (struct nvlxi_side){address, pitch, op->length, rows ? rows->count : 1};
}

struct nvlxi_side nvlxi_op_local(const struct nvlx_op *op) {
    return side_of(op, (uint64_t)(uintptr_t)op->local, true);
}

struct nvlxi_side nvlxi_op_remote(const struct nvlx_op *op) {
    return side_of(op, op->remote, false);
}

struct nvlx_op nvlxi_op_row(const struct nvlx_op *op, uint64_t row, uint64_t length) {
    const struct nvlxi_side local = nvlxi_op_local(op), remote = nvlxi_op_remote(op);
    struct nvlx_op one = *op;
    one.local = (void *)(uintptr_t)nvlxi_side_at(&local, row);
    one.remote = nvlxi_side_at(&remote, row);
    one.length = length;
    one.arg = row;
    return one;
}

/* Whether the address behind the last row is a number of 64 bits. */
static bool has_end(const struct nvlxi_side *side) {
    uint64_t end;
    return !__builtin_mul_overflow(side->count - 1, side->pitch, &end) && nvlxi_add(end, side->length, &end) &&
           nvlxi_add(end, side->address, &end);
}

static int check_side(const struct nvlxi_side *side, size_t index, const char *whose, bool written) {
    if (!has_end(side))
        return nvlxi_fail(NVLX_EINVAL,
                          "op %zu: the last of %" PRIu64 " rows of %" PRIu64 " bytes, %s from 0x%" PRIx64
                          " on with pitch %" PRIu64 ", ends beyond 2^64",
                          index, side->count, side->length, whose, side->address, side->pitch);
    if (written && side->count > 1 && side->pitch < side->length)
        return nvlxi_fail(NVLX_EINVAL,
                          "op %zu: rows of %" PRIu64
                          " bytes that are written to %s memory overlap: the pitch is %" PRIu64,
                          index, side->length, whose, side->pitch);
    return 0;
}

static int check_rows(const struct nvlx_op *op, size_t index) {
    if (!op->arg)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: flags has NVLX_OP_ROWS, and arg, the address of its nvlx_rows, is 0",
                          index);
    if (!nvlxi_op_moves(op))
        return 0;
    const struct nvlxi_side local = nvlxi_op_local(op), remote = nvlxi_op_remote(op);
    int code = check_side(&local, index, "local", op->opcode == NVLX_OP_READ);
    return code ? code : check_side(&remote, index, "the peer's", op->opcode == NVLX_OP_WRITE);
}

static int check_count(uint64_t address, size_t index) {
    return address % NVLXI_COUNT_BYTES
               ? nvlxi_fail(NVLX_EINVAL, "op %zu: a count at 0x%" PRIx64 ": it is no multiple of 8", index, address)
               : 0;
}

static int check_own_signal(const struct nvlx_op *op, size_t index) {
    if (op->remote || op->length)
        return nvlxi_fail(NVLX_EINVAL,
                          "op %zu: remote 0x%" PRIx64 " and length %" PRIu64 ": a signal of one's own has "
                          "none",
                          index, op->remote, op->length);
    return check_count((uint64_t)(uintptr_t)op->local, index);
}

static int check_signal(const struct nvlx_op *op, size_t index) {
    if (op->flags & ~(uint32_t)NVLX_OP_ADD)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: flags 0x%" PRIx32 " are not for a signal: NVLX_OP_ADD is 0x2", index,
                          op->flags);
    if (!op->peer && op->local)
        return check_own_signal(op, index);
    if (op->local || op->length)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: local %p and length %" PRIu64 ": a signal has none", index, op->local,
                          op->length);
    return check_count(op->remote, index);
}

static int check_wait(const struct nvlx_op *op, size_t index) {
    if (op->flags || op->local || op->length)
        return nvlxi_fail(NVLX_EINVAL,
                          "op %zu: flags 0x%" PRIx32 ", local %p and length %" PRIu64 ": NVLX_OP_WAIT_READY has none",
                          index, op->flags, op->local, op->length);
    return check_count(op->remote, index);
}

int nvlxi_op_check(const struct nvlx_op *op, size_t index) {
    if (op->opcode == NVLX_OP_SIGNAL)
        return check_signal(op, index);
    if (op->opcode == NVLX_OP_WAIT_READY)
        return check_wait(op, index);
    if (op->opcode != NVLX_OP_READ && op->opcode != NVLX_OP_WRITE)
        return nvlxi_fail(NVLX_EINVAL,
                          "op %zu: opcode %" PRIu32
                          " is not NVLX_OP_READ, NVLX_OP_WRITE, NVLX_OP_SIGNAL or NVLX_OP_WAIT_READY",
                          index, op->opcode);
    if (op->flags == NVLX_OP_ROWS)
        return check_rows(op, index);
    if (op->flags)
        return nvlxi_fail(NVLX_EINVAL, "op %zu: flags 0x%" PRIx32 " are not of a read or a write: NVLX_OP_ROWS is 0x1",
                          index, op->flags);
    return op->arg
               ? nvlxi_fail(NVLX_EINVAL, "op %zu: flags 0x0 and arg 0x%" PRIx64 ": arg must be 0 without NVLX_OP_ROWS",
                            index, op->arg)
               : 0;
}

/* ---- What is wrong ----------------------------------------------------------------------------------- */

struct label { /* the op's number, and the row's */
    char text[48];
};

static struct label label_of(const struct nvlx_op *op, size_t index) {
    struct label label;
    if (op->flags & NVLX_OP_ROWS)
        snprintf(label.text, sizeof label.text, "op %zu, row %" PRIu64, index, op->arg);
    else
        snprintf(label.text, sizeof label.text, "op %zu", index);
    return label;
}

int nvlxi_op_fail_foreign(const struct nvlx_op *op, size_t index) {
    return op->peer ? nvlxi_fail(NVLX_EINVAL, "op %zu: the peer %p is not one of this engine, or was closed", index,
                                 (void *)op->peer)
                    : nvlxi_fail(NVLX_EINVAL, "op %zu: peer is NULL", index);
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

int nvlxi_op_check_rows_overlap(const struct nvlx_op *op, size_t index) {
    const struct nvlxi_side local = nvlxi_op_local(op), remote = nvlxi_op_remote(op);
    if ((local.address == remote.address && local.pitch == remote.pitch) || !nvlxi_sides_overlap(&local, &remote))
        return 0;
    return nvlxi_fail(NVLX_EINVAL,
                      "op %zu: its source and its destination overlap: %" PRIu64 " rows of %" PRIu64
                      " bytes at 0x%" PRIx64 " (pitch %" PRIu64 ") and 0x%" PRIx64 " (pitch %" PRIu64
                      "), both of this process",
                      index, local.count, local.length, local.address, local.pitch, remote.address, remote.pitch);
}

int nvlxi_op_fail_local(const struct nvlx_op *op, size_t index, uint64_t where) {
    return nvlxi_fail(NVLX_ERANGE,
                      "%s: local range 0x%" PRIx64 " + %" PRIu64
                      " is not registered in this engine, or was freed (byte 0x%" PRIx64 " is missing)",
                      label_of(op, index).text, (uint64_t)(uintptr_t)op->local, op->length, where);
}

int nvlxi_op_fail_asleep(const struct nvlx_op *op, size_t index, bool local, uint64_t where) {
    return nvlxi_fail(NVLX_ESUSPENDED, "%s, of %" PRIu64 " bytes: %s memory at 0x%" PRIx64 " is suspended: %s",
                      label_of(op, index).text, op->length, local ? "local" : "the peer's", where,
                      local ? "nvlx_resume it first" : "wait until it is resumed");
}

int nvlxi_op_fail_remote(const struct nvlx_op *op, size_t index, uint64_t where, bool registered) {
    if (registered)
        return nvlxi_fail(NVLX_EACCES, "%s: the peer's region at 0x%" PRIx64 " does not grant %s",
                          label_of(op, index).text, where, op->opcode == NVLX_OP_READ ? "reading" : "writing");
    char there[64] = "";
    if (where > op->remote)
        snprintf(there, sizeof there, ", the %" PRIu64 " before it are there", where - op->remote);
    return nvlxi_fail(NVLX_ERANGE,
                      "%s: the peer's range 0x%" PRIx64 " + %" PRIu64
                      " is not in its registered regions (byte 0x%" PRIx64
                      " is missing%s): if it was there before, find the name again",
                      label_of(op, index).text, op->remote, op->length, where, there);
}

int nvlxi_op_fail_younger(const struct nvlx_op *op, size_t index, uint64_t where, uint64_t wanted, uint64_t born) {
    return nvlxi_fail(NVLX_ESTALE,
                      "%s: the peer's range 0x%" PRIx64 " + %" PRIu64 " was learned at generation %" PRIu64
                      ", but what is at 0x%" PRIx64 " now came with generation %" PRIu64,
                      label_of(op, index).text, op->remote, op->length, wanted, where, born);
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
