/* What the tests of the host backend alone share: see host_support.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "host_support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CASE_SECONDS 120

const struct nvlxi_device_ops *const ops = &nvlxi_device_host;

void expect_words(const char *words) {
    if (!strstr(nvlx_last_error(), words))
        FAIL("the last error is '%s', without '%s'", nvlx_last_error(), words);
}

int begin_case(void **state) {
    (void)state;
    watchdog(CASE_SECONDS);
    unsetenv("NVLX_HOST_GPUS");
    OK(party_open(ops, &me));
    return 0;
}

int end_case(void **state) {
    (void)state;
    peer_kill();
    ops->close(me.device);
    return 0;
}

struct nvlxi_segment_record peer_segment(uint64_t length) {
    struct message m = there((struct message){.errand = ERRAND_ALLOC, .length = length});
    m.errand = ERRAND_EXPORT;
    return there(m).record;
}

int lines_with(const char *path, const char *words) {
    char line[1024];
    int count = 0;
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof line, file))
        count += strstr(line, words) != NULL;
    fclose(file);
    return count;
}
