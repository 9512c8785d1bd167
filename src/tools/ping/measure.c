/* nvlx_ping: latency, rates, what the links carried. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "ping/ping.h"

#define ROUNDS_MAX 200
#define ROUNDS_MIN 3
#define TIME_NS    UINT64_C(50000000) /* of one measurement, when it has ROUNDS_MIN */
#define WAIT_NS    INT64_C(30000000000)
#define SMALL      64 /* bytes of a read that tells the latency */

struct rounds {
    uint64_t ns[ROUNDS_MAX];
    size_t count;
    uint64_t bytes, engine_bytes, kernel_bytes; /* of one round; what carried it */
};

static int by_value(const void *left, const void *right) {
    const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

static struct nvlx_op make_op(const struct ping *ping, uint32_t opcode, uint64_t most) {
    const struct nvlx_region_info *region = opcode == NVLX_OP_READ ? &ping->read : &ping->written;
    struct nvlx_op op = {.opcode = opcode, .peer = ping->peer, .local = ping->memory, .remote = region->address};
    op.length = region->length < ping->bytes ? region->length : ping->bytes;
    if (op.length > most)
        op.length = most;
    return op;
}

/* One transfer, to its end. */
static int move(const struct ping *ping, const struct nvlx_op *op, const struct nvlx_transfer_options *options,
                struct nvlx_request_info *info) {
    struct nvlx_request *request;
    int code = nvlx_transfer(ping->engine, op, 1, options, &request);
    if (code)
        return code;
    code = nvlx_wait(request, WAIT_NS);
    info->size = sizeof *info;
    if (!code)
        code = nvlx_request_get_info(request, info);
    nvlx_request_free(request);
    return code;
}

static int measure(const struct ping *ping, const struct nvlx_op *op, uint32_t mechanism, struct rounds *rounds) {
    struct nvlx_transfer_options options;
    struct nvlx_request_info info;
    nvlx_transfer_options_init(&options);
    options.mechanism = mechanism;
    rounds->count = 0;
    rounds->bytes = op->length;
    int code = move(ping, op, &options, &info); /* maps it, and warms up */
    const uint64_t begin = clock_now_ns();
    while (!code && rounds->count < ROUNDS_MAX && (rounds->count < ROUNDS_MIN || clock_now_ns() - begin < TIME_NS)) {
        const uint64_t before = clock_now_ns();
        code = move(ping, op, &options, &info);
        rounds->ns[rounds->count++] = clock_now_ns() - before;
    }
    if (code)
        return code;
    rounds->engine_bytes = info.engine_bytes;
    rounds->kernel_bytes = info.kernel_bytes;
    qsort(rounds->ns, rounds->count, sizeof rounds->ns[0], by_value);
    return 0;
}

static double microseconds(const struct rounds *rounds, size_t percent) {
    const size_t at = (rounds->count - 1) * percent / 100;
    return (double)rounds->ns[at] / 1e3;
}

/* ---- What is told ----------------------------------------------------------------------------------------- */

static int tell_latency(const struct ping *ping, struct report *report) {
    struct rounds rounds;
    const struct nvlx_op op = make_op(ping, NVLX_OP_READ, SMALL);
    int code = measure(ping, &op, NVLX_MECHANISM_AUTO, &rounds);
    if (code)
        return ping_fail("a read", code);
    report_open(report, "latency");
    report_bytes(report, "bytes", rounds.bytes);
    report_number(report, "reads", rounds.count);
    report_real(report, "median_us", microseconds(&rounds, 50));
    report_real(report, "p90_us", microseconds(&rounds, 90));
    report_close(report);
    return 0;
}

static void tell_rate(struct report *report, const char *name, const struct rounds *rounds) {
    report_text(report, "mechanism", "%s", name);
    report_bytes(report, "bytes", rounds->bytes);
    report_number(report, "transfers", rounds->count);
    report_real(report, "gb_per_s", (double)rounds->bytes / microseconds(rounds, 50) / 1e3);
    report_bytes(report, "by_engines", rounds->engine_bytes);
    report_bytes(report, "by_kernels", rounds->kernel_bytes);
}

/* A mechanism that cannot copy here is told as such; that is no failure. */
static int tell_rates(const struct ping *ping, const struct nvlx_op *op, struct report *report, uint64_t *moved) {
    static const struct {
        const char *name;
        uint32_t mechanism;
    } ways[] = {
        {"auto", NVLX_MECHANISM_AUTO}, {"copy_engine", NVLX_MECHANISM_COPY_ENGINE}, {"kernel", NVLX_MECHANISM_KERNEL}};
    int failure = 0;
    report_open_list(report, op->opcode == NVLX_OP_READ ? "reads" : "writes");
    for (size_t i = 0; i < sizeof ways / sizeof ways[0] && !failure; i++) {
        struct rounds rounds;
        int code = measure(ping, op, ways[i].mechanism, &rounds);
        report_open(report, NULL);
        if (code) {
            report_text(report, "mechanism", "%s", ways[i].name);
            report_text(report, "why_not", "%s", nvlx_last_error());
        } else {
            tell_rate(report, ways[i].name, &rounds);
            *moved += (rounds.count + 1) * rounds.bytes;
        }
        report_close(report);
        failure = code == NVLX_ENOTSUP ? 0 : code;
    }
    report_close(report);
    return failure ? ping_fail("a transfer", failure) : 0;
}

static void tell_links(struct report *report, uint64_t moved, const struct links_count *before,
                       const struct links_count *after, bool received) {
    report_open(report, received ? "nvlink_read" : "nvlink_written");
    report_bytes(report, "moved", moved);
    if (!before->told || !after->told) {
        report_nothing(report, "counted");
        report_text(report, "why_not", "NVML does not tell what the links of this GPU carry, or is not here");
        report_close(report);
        return;
    }
    const uint64_t counted = received ? after->received - before->received : after->sent - before->sent;
    report_bytes(report, "counted", counted);
    report_text(report, "path", "%s",
                (double)counted >= 0.9 * (double)moved ? "NVLink" : "not NVLink: the same GPU, or PCIe");
    report_close(report);
}

static int rates_and_links(struct ping *ping, struct links *links, struct report *report, uint32_t opcode) {
    struct links_count before, after;
    uint64_t moved = 0;
    const struct nvlx_op op = make_op(ping, opcode, UINT64_MAX);
    links_read(links, &before);
    int code = tell_rates(ping, &op, report, &moved);
    links_read(links, &after);
    if (!code)
        tell_links(report, moved, &before, &after, opcode == NVLX_OP_READ);
    return code;
}

/* ---- Right bytes ------------------------------------------------------------------------------------------ */

static void tell_no_digest(const struct ping *ping, struct report *report) {
    const struct nvlx_region_info *read = &ping->read;
    report_nothing(report, "digest_right");
    if (read->has_digest)
        report_text(report, "why_no_digest", "%" PRIu64 " bytes are read of the %" PRIu64 " that the digest is of",
                    ping->bytes, read->length);
    else
        report_text(report, "why_no_digest", "the peer has told none of this region");
}

/* Where the peer has told a digest of what is read. */
static int verify(const struct ping *ping, struct report *report) {
    struct nvlx_transfer_options options;
    struct nvlx_request_info info;
    const struct nvlx_op op = make_op(ping, NVLX_OP_READ, UINT64_MAX);
    if (!ping->read.has_digest || op.length != ping->read.length) {
        tell_no_digest(ping, report);
        return PING_DONE;
    }
    nvlx_transfer_options_init(&options);
    options.flags = NVLX_VERIFY;
    int code = move(ping, &op, &options, &info);
    report_truth(report, "digest_right", !code);
    if (code)
        ping_fail("a read that is verified", code);
    return code == NVLX_EDIGEST ? PING_WRONG : code ? PING_UNREAD : PING_DONE;
}

/* Writes what was just read there: the peer's bytes stay as they are, unless it changes them at that moment. */
static int write_back(struct ping *ping, struct links *links, struct report *report) {
    const struct nvlx_region_info read = ping->read;
    struct nvlx_request_info info;
    ping->read = ping->written;
    const struct nvlx_op op = make_op(ping, NVLX_OP_READ, UINT64_MAX);
    int code = move(ping, &op, NULL, &info);
    ping->read = read;
    if (code)
        return ping_fail("a read", code);
    return rates_and_links(ping, links, report, NVLX_OP_WRITE);
}

static void tell_nothing_read(const struct ping *ping, struct report *report) {
    struct nvlx_region_info region = {.size = sizeof region};
    const char *why = "the peer shares no region";
    for (size_t place = 0; !nvlx_peer_region(ping->peer, &place, &region);) {
        why = "no region grants reading";
        if (region.access & NVLX_ACCESS_READ) {
            why = "each region that grants reading sleeps, or has no bytes";
            break;
        }
    }
    report_nothing(report, "measured");
    report_text(report, "why_not_measured", "%s", why);
}

int ping_measure(struct ping *ping, struct links *links, struct report *report) {
    if (!ping->read.length) {
        tell_nothing_read(ping, report);
    } else {
        report_text(report, "measured", "%s", *ping->read.name ? ping->read.name : "(no name)");
        if (tell_latency(ping, report) || rates_and_links(ping, links, report, NVLX_OP_READ))
            return PING_UNREAD;
        const int code = verify(ping, report);
        if (code)
            return code;
    }
    return ping->written.length && write_back(ping, links, report) ? PING_UNREAD : PING_DONE;
}
