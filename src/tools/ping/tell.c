/* nvlx_ping: tells who the peer is, and what it shares. SPDX-License-Identifier: Apache-2.0 */
#include "common/kind.h"
#include "ping/ping.h"

static const char *access_text(uint32_t access) {
    static const char *const texts[] = {"none", "read", "write", "read_write"};
    return texts[access & NVLX_ACCESS_READ_WRITE];
}

void ping_tell_peer(const struct ping *ping, struct report *report) {
    report_text(report, "address", "%s", ping->address);
    report_text(report, "engine", "%s", ping->info.engine);
    report_number(report, "pid", ping->info.pid);
    report_number(report, "pid_namespace", ping->info.pid_namespace);
    report_text(report, "backend", "%s", ping->info.backend);
    report_number(report, "generation", ping->info.generation);
    report_number(report, "segments", ping->info.segments);
    report_real(report, "connect_ms", ping->connect_ms);
}

static void tell_region(const struct nvlx_region_info *region, struct report *report) {
    report_open(report, NULL);
    report_text(report, "name", "%s", region->name);
    report_text(report, "kind", "%s", kind_text(region->kind));
    report_text(report, "access", "%s", access_text(region->access));
    report_bytes(report, "bytes", region->length);
    report_text(report, "gpu", "%s", region->gpu);
    report_number(report, "generation", region->generation);
    report_truth(report, "suspended", region->suspended);
    if (region->has_digest)
        report_text(report, "digest", "%016llx", (unsigned long long)region->digest);
    report_close(report);
}

/* For people a line each. */
static void tell_line(const struct nvlx_region_info *region, struct report *report) {
    report_text(report, NULL, "%s: %s, %s, %llu bytes%s%s%s", *region->name ? region->name : "(no name)",
                kind_text(region->kind), access_text(region->access), (unsigned long long)region->length,
                *region->gpu ? ", " : "", region->gpu, region->suspended ? ", sleeps" : "");
}

void ping_tell_regions(const struct ping *ping, struct report *report) {
    struct nvlx_region_info region = {.size = sizeof region};
    report_open_list(report, "regions");
    for (size_t place = 0; !nvlx_peer_region(ping->peer, &place, &region);) {
        if (report->json)
            tell_region(&region, report);
        else
            tell_line(&region, report);
    }
    report_close(report);
}
