/* A libnvidia-ml.so.1 that says what stub.h tells. Its GPUs have links to an NVSwitch.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "tools/stubs/stub.h"

struct memory {
    unsigned long long total, free, used;
};
struct field {
    unsigned id, scope;
    long long time, latency;
    unsigned type;
    int result;
    unsigned long long value;
};

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlSystemGetDriverVersion(char *text, unsigned size);
int nvmlDeviceGetCount_v2(unsigned *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu);
int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu);
int nvmlDeviceGetName(void *gpu, char *text, unsigned size);
int nvmlDeviceGetUUID(void *gpu, char *text, unsigned size);
int nvmlDeviceGetMemoryInfo(void *gpu, struct memory *memory);
int nvmlDeviceGetMigMode(void *gpu, unsigned *now, unsigned *pending);
int nvmlDeviceGetNvLinkState(void *gpu, unsigned link, unsigned *up);
int nvmlDeviceGetNvLinkVersion(void *gpu, unsigned link, unsigned *version);
int nvmlDeviceGetNvLinkRemoteDeviceType(void *gpu, unsigned link, unsigned *type);
int nvmlDeviceGetP2PStatus(void *gpu, void *other, int what, int *status);
int nvmlDeviceGetFieldValues(void *gpu, int count, struct field *fields);

int nvmlInit_v2(void) {
    return 0;
}

int nvmlShutdown(void) {
    return 0;
}

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, "580.0.stub");
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = STUB_GPUS;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **gpu) {
    *gpu = (void *)(uintptr_t)(index + 1);
    return index < STUB_GPUS ? 0 : 2;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **gpu) {
    (void)uuid; /* whichever: the stub counts for all alike */
    *gpu = (void *)(uintptr_t)1;
    return 0;
}

int nvmlDeviceGetName(void *gpu, char *text, unsigned size) {
    snprintf(text, size, "Stub %d", (int)(uintptr_t)gpu - 1);
    return 0;
}

int nvmlDeviceGetUUID(void *gpu, char *text, unsigned size) {
    const unsigned b = 0xa0 + (unsigned)(uintptr_t)gpu - 1;
    snprintf(text, size, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b, b, b, b, b, b,
             b, b, b, b, b, b, b, b, b, b);
    return 0;
}

int nvmlDeviceGetMemoryInfo(void *gpu, struct memory *memory) {
    (void)gpu;
    *memory = (struct memory){80ull << 30, 79ull << 30, 1ull << 30};
    return 0;
}

int nvmlDeviceGetMigMode(void *gpu, unsigned *now, unsigned *pending) {
    (void)gpu;
    *now = *pending = (unsigned)stub_number("STUB_MIG", 0);
    return 0;
}

int nvmlDeviceGetNvLinkState(void *gpu, unsigned link, unsigned *up) {
    (void)gpu;
    *up = link >= (unsigned)stub_number("STUB_DOWN", 0);
    return link < (unsigned)stub_number("STUB_LINKS", 4) ? 0 : 2;
}

int nvmlDeviceGetNvLinkVersion(void *gpu, unsigned link, unsigned *version) {
    (void)gpu, (void)link;
    *version = 4;
    return 0;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(void *gpu, unsigned link, unsigned *type) {
    (void)gpu, (void)link;
    *type = 2;
    return 0;
}

int nvmlDeviceGetP2PStatus(void *gpu, void *other, int what, int *status) {
    (void)gpu, (void)other, (void)what;
    *status = stub_number("STUB_P2P", 0);
    return 0;
}

/* Each look finds STUB_TRAFFIC MiB more on each link, received and sent. */
int nvmlDeviceGetFieldValues(void *gpu, int count, struct field *fields) {
    static unsigned long long looks;
    (void)gpu;
    if (stub_number("STUB_CRASH", 0))
        abort();
    for (int i = 0; i < count; i++) {
        fields[i].result = fields[i].scope < 4 ? 0 : 2;
        fields[i].value = 1024 * ++looks * (unsigned)stub_number("STUB_TRAFFIC", 1);
    }
    return 0;
}
