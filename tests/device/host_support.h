/* What the tests of the host backend alone share. SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_SUPPORT_H
#define HOST_SUPPORT_H

#include "base/base.h"
#include "device/host/host.h"
#include "device_peer.h"

extern const struct nvlxi_device_ops *const ops;

/* In the last error. */
void expect_words(const char *words);

#define CASE(function) cmocka_unit_test_setup_teardown(function, begin_case, end_case)
int begin_case(void **state);
int end_case(void **state);

struct nvlxi_segment_record peer_segment(uint64_t length);

/* Lines of a file of /proc/self that hold `words`. */
int lines_with(const char *path, const char *words);

#endif
