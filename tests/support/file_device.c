/* See file_device.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "file_device.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "api/engine.h"
#include "base/error.h"

struct file_faults file_faults;

/* A pipe with the base in it. */
static int export_file(struct nvlxi_device *device, const struct nvlxi_allocation *allocation, int *fd) {
    int ends[2];
    (void)device;
    usleep((useconds_t)atomic_load(&file_faults.export_us));
    if (atomic_fetch_add(&file_faults.exports, 1) + 1 == atomic_load(&file_faults.failing))
        return nvlxi_fail(NVLX_EDEVICE, "too many open files, on purpose");
    if (pipe2(ends, O_CLOEXEC))
        FAIL("pipe: %s", strerror(errno));
    EXPECT(write(ends[1], &allocation->base, sizeof allocation->base) == sizeof allocation->base);
    close(ends[1]);
    *fd = ends[0];
    return 0;
}

static int alive(struct nvlxi_device *device, const struct nvlxi_allocation *allocation) {
    int code = atomic_load(&file_faults.mute);
    if (code)
        return nvlxi_fail(code, "no word, on purpose");
    return nvlxi_device_host.alive(device, allocation);
}

static struct nvlxi_device_ops file_device;

struct nvlx_engine *make_file_engine(void) {
    struct nvlx_engine *made;
    struct nvlx_config config;
    fill_config(&config);
    file_device = nvlxi_device_host;
    file_device.export_file = export_file;
    file_device.alive = alive;
    OK(nvlxi_engine_create(&config, &file_device, &made));
    return made;
}

char *allocate_file(struct nvlx_engine *engine, size_t length) {
    void *address;
    struct nvlx_alloc_options options;
    nvlx_alloc_options_init(&options);
    options.flags = NVLX_ALLOC_VMM;
    OK(nvlx_alloc(engine, 0, length, &options, &address));
    return address;
}
