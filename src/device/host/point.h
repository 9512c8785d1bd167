/* A point is one place in the order of one of the host backend's lanes: not done until the worker arrives there, done
 * for ever after. It can be waited for only after it has been made, so waits never form a circle.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_DEVICE_HOST_POINT_H
#define NVLXI_DEVICE_HOST_POINT_H

#include <stdbool.h>

struct nvlxi_host_point; /* counted. Its mutex is for sleeping until it is done */

/* Held once. NULL: no memory. */
struct nvlxi_host_point *nvlxi_host_point_make(void);
/* NULL is allowed in these three: it counts as done. */
struct nvlxi_host_point *nvlxi_host_point_hold(struct nvlxi_host_point *point);
void nvlxi_host_point_drop(struct nvlxi_host_point *point);
bool nvlxi_host_point_is_done(struct nvlxi_host_point *point);

void nvlxi_host_point_mark(struct nvlxi_host_point *point);
/* Sleeps until it is done. */
void nvlxi_host_point_await(struct nvlxi_host_point *point);

#endif
