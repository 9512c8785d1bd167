/* A libcuda.so.1 that says what stub.h tells. The library does not run on it: nvlx_info only asks it.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "tools/stubs/stub.h"

int cuInit(unsigned flags);
int cuDriverGetVersion(int *version);
int cuGetErrorName(int error, const char **name);
int cuDeviceGetCount(int *count);
int cuDeviceGet(int *device, int ordinal);
int cuDeviceGetName(char *name, int size, int device);
int cuDeviceGetUuid_v2(unsigned char uuid[16], int device);
int cuDeviceGetPCIBusId(char *text, int size, int device);
int cuDeviceTotalMem_v2(size_t *bytes, int device);
int cuDeviceGetAttribute(int *value, int attribute, int device);
int cuDeviceCanAccessPeer(int *can, int device, int peer);

int cuInit(unsigned flags) {
    (void)flags;
    if (stub_number("STUB_CRASH", 0))
        abort();
    return stub_number("STUB_RESULT", 0);
}

int cuDriverGetVersion(int *version) {
    *version = stub_number("STUB_VERSION", 13000);
    return 0;
}

int cuGetErrorName(int error, const char **name) {
    *name = error == 802 ? "CUDA_ERROR_SYSTEM_NOT_READY" : "CUDA_ERROR_OF_A_STUB";
    return 0;
}

int cuDeviceGetCount(int *count) {
    *count = 0;
    while (stub_visible(*count) >= 0)
        ++*count;
    return *count ? 0 : 100;
}

int cuDeviceGet(int *device, int ordinal) {
    *device = stub_visible(ordinal);
    return 0;
}

int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, (size_t)size, "Stub %d", device);
    return 0;
}

int cuDeviceGetUuid_v2(unsigned char uuid[16], int device) {
    memset(uuid, 0xa0 + device, 16);
    return 0;
}

int cuDeviceGetPCIBusId(char *text, int size, int device) {
    snprintf(text, (size_t)size, "0000:%02X:00.0", 0x10 + device);
    return 0;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    (void)device;
    *bytes = (size_t)80 << 30;
    return 0;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    switch (attribute) {
    case 16:
        *value = 132;
        return 0;
    case 20:
        *value = stub_number("STUB_MODE", 0);
        return 0;
    case 75:
        *value = 9;
        return 0;
    case 76:
        *value = 0;
        return 0;
    case 128:
        *value = stub_number("STUB_FABRIC", 0);
        return 0;
    default:
        return 1;
    }
}

int cuDeviceCanAccessPeer(int *can, int device, int peer) {
    *can = device != peer && stub_number("STUB_ACCESS", 1);
    return 0;
}
