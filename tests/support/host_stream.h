/* A caller's stream, on the host backend: a lane. SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_STREAM_H
#define HOST_STREAM_H

#include <stdatomic.h>

#include "device/device.h"

struct stream {
    struct nvlxi_device *device;
    struct nvlxi_lane *lane;
    struct nvlxi_event *end;
    char *slow; /* two buffers, to be copied between */
    atomic_bool go_on;
};

void open_stream(struct stream *stream);
void close_stream(struct stream *stream);
/* Queues a copy. */
void stream_copy(struct stream *stream, void *to, const void *from, size_t length);
/* Queues what takes a while: milliseconds. */
void stream_is_slow(struct stream *stream);
/* Queues a wait that ends with stream_goes_on. */
void stream_stands_still(struct stream *stream);
void stream_goes_on(struct stream *stream);
/* Waits for all that is queued. */
void stream_end(struct stream *stream);

#endif
