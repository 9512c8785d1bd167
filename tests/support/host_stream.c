/* A caller's stream on the host backend: see host_stream.h. SPDX-License-Identifier: Apache-2.0 */
#include "host_stream.h"

#include <stdlib.h>
#include <unistd.h>

#include "device/host/host.h"
#include "support.h"

#define SLOW        (16 * MIB)
#define SLOW_COPIES 8

void open_stream(struct stream *stream) {
    const int zero = 0;
    OK(nvlxi_device_host.open(&zero, 1, &stream->device));
    OK(nvlxi_device_host.lane_create(stream->device, 0, 0, &stream->lane));
    OK(nvlxi_device_host.event_create(stream->device, 0, &stream->end));
    stream->slow = calloc(2, SLOW);
    EXPECT(stream->slow != NULL);
}

void close_stream(struct stream *stream) {
    nvlxi_device_host.event_destroy(stream->end);
    nvlxi_device_host.lane_destroy(stream->lane);
    nvlxi_device_host.close(stream->device);
    free(stream->slow);
}

void stream_copy(struct stream *stream, void *to, const void *from, size_t length) {
    struct nvlxi_copy copy = {
        .destination = (uint64_t)(uintptr_t)to, .source = (uint64_t)(uintptr_t)from, .length = length};
    OK(nvlxi_device_host.copy(stream->lane, &copy));
}

void stream_is_slow(struct stream *stream) {
    for (int i = 0; i < SLOW_COPIES; i++)
        stream_copy(stream, stream->slow + (i % 2 ? SLOW : 0), stream->slow + (i % 2 ? 0 : SLOW), SLOW);
}

void stream_stands_still(struct stream *stream) {
    atomic_store(&stream->go_on, false);
    OK(nvlxi_host_lane_hold(stream->lane, &stream->go_on));
}

void stream_goes_on(struct stream *stream) {
    atomic_store(&stream->go_on, true);
}

void stream_end(struct stream *stream) {
    int code;
    OK(nvlxi_device_host.event_record(stream->lane, stream->end));
    while ((code = nvlxi_device_host.event_query(stream->end)) == NVLX_EAGAIN)
        usleep(100);
    OK(code);
}
