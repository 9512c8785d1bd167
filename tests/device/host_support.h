/* What the tests of the host backend alone share. SPDX-License-Identifier: Apache-2.0 */
#ifndef HOST_SUPPORT_H
#define HOST_SUPPORT_H

/* cmocka.h wants these before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base.h"
#include "device/host/host.h"
#include "device_peer.h"

#define MIB (1024u * 1024u)

extern const struct nvlxi_device_ops *const ops;
extern struct party me;  /* open during each case */
extern struct peer peer; /* started by the first errand, ended with the case */

#define EXPECT(wanted, call) expect(wanted, call, #call, __LINE__)
void expect(int wanted, int code, const char *call, int line);
/* In the last error. */
void expect_words(const char *words);

#define CASE(function) cmocka_unit_test_setup_teardown(function, begin_case, end_case)
int begin_case(void **state);
int end_case(void **state);

/* An errand that must succeed in the peer. */
struct message there(struct message message);
struct nvlxi_segment_record peer_segment(uint64_t length);

/* Lines of a file of /proc/self that hold `words`. */
int lines_with(const char *path, const char *words);

#endif
