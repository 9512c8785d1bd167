/* A libcuda.so.1 that does not work: of the version that FAKE_DRIVER_VERSION says, with no GPU that would answer.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

enum { CUDA_ERROR_UNKNOWN = 999 };

int cuInit(unsigned flags);
int cuInit(unsigned flags) {
    (void)flags;
    return CUDA_ERROR_UNKNOWN;
}

int cuDriverGetVersion(int *version);
int cuDriverGetVersion(int *version) {
    const char *text = getenv("FAKE_DRIVER_VERSION");
    *version = text ? atoi(text) : 0;
    return 0;
}
