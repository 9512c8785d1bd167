/* Changes and awaits counts of signals: see count.h. SPDX-License-Identifier: Apache-2.0 */
#include "device/host/count.h"

#include <unistd.h>

#include "device/host/host.h"
#include "device/host/memory.h"

#define PEEK_US 50 /* between two looks at a count */

static uint64_t *count_at(uint64_t address) {
    return nvlxi_host_pointer(address);
}

static uint64_t read_count(uint64_t address) {
    return __atomic_load_n(count_at(address), __ATOMIC_ACQUIRE);
}

void nvlxi_host_count_change(const struct nvlxi_signal *signal) {
    if (signal->add)
        __atomic_fetch_add(count_at(signal->address), signal->value, __ATOMIC_ACQ_REL);
    else
        __atomic_store_n(count_at(signal->address), signal->value, __ATOMIC_RELEASE);
}

void nvlxi_host_count_await(const struct nvlxi_gated *gated) {
    while (!nvlxi_signal_reached(read_count(gated->address), gated->value) &&
           !nvlxi_signal_reached(read_count(gated->gate), gated->pass))
        usleep(PEEK_US);
}

void nvlxi_host_count_pace(const struct nvlxi_paced *paced) {
    const uint64_t awaited = paced->value + (paced->reached ? read_count(paced->reached) : 0);
    uint64_t why = 0;
    while (!nvlxi_signal_reached(read_count(paced->address), awaited) &&
           !(why = __atomic_load_n(paced->gate, __ATOMIC_ACQUIRE)))
        usleep(PEEK_US);
    if (why && paced->mark)
        __atomic_store_n(count_at(paced->mark), why, __ATOMIC_RELEASE);
    if (!why && paced->reached)
        __atomic_store_n(count_at(paced->reached), awaited, __ATOMIC_RELEASE);
}

int nvlxi_host_signal_read(struct nvlxi_device *device, uint64_t address, uint64_t *value) {
    (void)device;
    int code = nvlxi_host_check_count(NVLXI_ANY_GPU, address, NVLXI_HOST_READ);
    if (!code)
        *value = read_count(address);
    return code;
}
