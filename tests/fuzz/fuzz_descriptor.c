/* Feeds arbitrary texts to the reader of descriptors, for libFuzzer: none may crash it, and what it accepts must be
 * sound and survive a round trip. Of two texts with a NUL between, the second are changes of the first. Seeds are in
 * corpus/descriptor, words in fuzz_descriptor.dict. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "checks/descriptor_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *context, int level, const char *message) {
    (void)context;
    (void)level;
    (void)message;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    nvlx_set_log(NVLX_LOG_ERROR, ignore, NULL);
    const char *wrong = check_texts((const char *)data, size);
    if (wrong) {
        fprintf(stderr, "decoded, but: %s; the last error is '%s'\n", wrong, nvlx_last_error());
        abort();
    }
    return 0;
}
