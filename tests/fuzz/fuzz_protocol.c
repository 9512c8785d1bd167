/* Feeds arbitrary streams to the readers of messages, for libFuzzer: none may crash them, and what they accept must be
 * sound and survive a round trip. The first byte says which side sent it. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "checks/protocol_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *context, int level, const char *message) {
    (void)context;
    (void)level;
    (void)message;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    nvlx_set_log(NVLX_LOG_ERROR, ignore, NULL);
    if (!size)
        return 0;
    uint8_t *copy = malloc(size); /* of just this size, so that reading beyond it is seen */
    if (!copy)
        return 0;
    memcpy(copy, data + 1, size - 1);
    const char *wrong = check_stream(copy, size - 1, data[0] & 1);
    if (wrong) {
        fprintf(stderr, "accepted, but: %s; the last error is '%s'\n", wrong, nvlx_last_error());
        abort();
    }
    free(copy);
    return 0;
}
