/* nvlx_ping: connects, and chooses what to read. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "ping/ping.h"

int ping_fail(const char *what, int code) {
    fprintf(stderr, "nvlx_ping: %s: %s\n", what, *nvlx_last_error() ? nvlx_last_error() : nvlx_strerror(code));
    return code;
}

/* An engine here. The only argument that it can refuse is --gpu. */
static int make_engine(struct ping *ping) {
    struct nvlx_config config;
    nvlx_config_init(&config);
    config.gpus = &ping->gpu;
    config.gpu_count = 1;
    int code = nvlx_engine_create(&config, &ping->engine);
    if (!code)
        return PING_DONE;
    ping_fail(code == NVLX_EINVAL ? "--gpu" : "no engine can be made here", code);
    if (code == NVLX_EINVAL)
        return PING_USAGE;
    fputs("nvlx_ping: nvlx_info --doctor says more\n", stderr);
    return PING_NO_ENGINE;
}

int ping_connect(struct ping *ping) {
    int code = make_engine(ping);
    if (code)
        return code;
    const uint64_t before = clock_now_ns();
    if ((code = nvlx_connect(ping->engine, ping->address, ping->timeout_ns, &ping->peer))) {
        ping_fail(ping->address, code);
        if (code == NVLX_EINVAL) /* it is no address */
            return PING_USAGE;
        fprintf(stderr, "nvlx_ping: nvlx_info --doctor --peer %s says more\n", ping->address);
        return PING_UNREACHED;
    }
    ping->connect_ms = (double)(clock_now_ns() - before) / 1e6;
    ping->info.size = sizeof ping->info;
    code = nvlx_peer_get_info(ping->peer, &ping->info);
    return code ? ping_fail("nvlx_peer_get_info", code), PING_UNREACHED : PING_DONE;
}

static bool may_be_read(const struct nvlx_region_info *region) {
    return (region->access & NVLX_ACCESS_READ) && region->length && !region->suspended;
}

static int choose_named(struct ping *ping) {
    int code = nvlx_peer_region_by_name(ping->peer, ping->region, &ping->read);
    if (code)
        return ping_fail("--region", code), PING_UNREAD;
    if (may_be_read(&ping->read))
        return PING_DONE;
    fprintf(stderr, "nvlx_ping: region \"%s\" cannot be read: it %s\n", ping->region,
            ping->read.suspended ? "sleeps"
            : ping->read.length  ? "does not grant reading"
                                 : "has no bytes");
    ping->read.length = 0;
    return PING_UNREAD;
}

static void choose_largest(struct ping *ping) {
    struct nvlx_region_info region = {.size = sizeof region};
    for (size_t place = 0; !nvlx_peer_region(ping->peer, &place, &region);)
        if (may_be_read(&region) && region.length > ping->read.length)
            ping->read = region;
}

static int choose_written(struct ping *ping) {
    int code = nvlx_peer_region_by_name(ping->peer, ping->write, &ping->written);
    if (code)
        return ping_fail("--write", code), PING_UNREAD;
    if ((ping->written.access & NVLX_ACCESS_READ_WRITE) == NVLX_ACCESS_READ_WRITE && ping->written.length)
        return PING_DONE;
    fprintf(stderr, "nvlx_ping: region \"%s\" does not grant reading and writing\n", ping->write);
    ping->written.length = 0;
    return PING_UNREAD;
}

int ping_choose(struct ping *ping) {
    struct nvlx_region *own;
    ping->read.size = ping->written.size = sizeof ping->read;
    int code = ping->region ? choose_named(ping) : PING_DONE;
    if (!ping->region)
        choose_largest(ping);
    if (!code && ping->write)
        code = choose_written(ping);
    const uint64_t most = ping->read.length > ping->written.length ? ping->read.length : ping->written.length;
    if (most < ping->bytes)
        ping->bytes = most;
    if (code || !ping->bytes)
        return code;
    if ((code = nvlx_alloc(ping->engine, ping->gpu, ping->bytes, NULL, &ping->memory)))
        return ping_fail("nvlx_alloc", code), PING_UNREAD;
    code = nvlx_register(ping->engine, ping->memory, ping->bytes, NULL, &own);
    return code ? ping_fail("nvlx_register", code), PING_UNREAD : PING_DONE;
}
