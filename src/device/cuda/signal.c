/* Signals, and waits for them. The introduction is in cuda.c.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Stream values set and await counts of cudaMalloc memory and of chunks, own and imported. They refuse memory of pools
 * (measured with driver 580: CUDA_ERROR_INVALID_VALUE): there a kernel of one thread sets, and no stream waits. A
 * kernel also adds, which stream values do not do. A wait for a count of a peer's is a kernel too: no other wait could
 * be given up without changing the count, which others wait for. So is a wait of a graph, which may run at any time: it
 * can be given up for good. */
#include "device/cuda/signal.h"

#include "base/error.h"
#include "device/cuda/cuda.h"

/* Only chunks can be mapped to be read alone, or for other GPUs. Mappings of cudaMalloc memory can always be written
 * (measured): cuMemGetAccess is not asked about them. When it was, counts there were refused (seen with driver 580). */
static bool is_writable(uint64_t address, int gpu, const struct nvlxi_cuda_attributes *attributes) {
    const CUmemLocation location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gpu};
    unsigned long long access;
    if (attributes->legacy) /* own */
        return attributes->gpu == gpu;
    if (attributes->pool || !nvlxi_cuda_vmm_is_chunk(address))
        return true;
    return !nvlxi_cuda_driver.cuMemGetAccess(&access, &location, address) &&
           access == CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
}

static int refuse_count(uint64_t address, const char *why) {
    return nvlxi_fail(NVLX_EDEVICE, "a count at 0x%llx: %s", (unsigned long long)address, why);
}

static int find_count(uint64_t address, struct nvlxi_cuda_attributes *attributes) {
    if (address % sizeof address)
        return refuse_count(address, "it is no multiple of 8");
    int code = nvlxi_cuda_attributes(address, attributes);
    if (!code && (attributes->type != CU_MEMORYTYPE_DEVICE || attributes->managed))
        code = refuse_count(address, "it is not memory of a GPU");
    return code;
}

/* Nobody else checks the address that a kernel gets: one that it must not write costs the context. */
static int check_writable(uint64_t address, int gpu) {
    struct nvlxi_cuda_attributes attributes;
    int code = find_count(address, &attributes);
    if (!code && !is_writable(address, gpu, &attributes))
        code = refuse_count(address, "it lies in memory that the GPU may only read, or not use");
    return code;
}

/* The GPU's context is current. */
static int launch_one_thread(const struct nvlxi_lane *lane, struct CUfunc_st *kernel, void **arguments) {
    const CUlaunchConfig config = {.gridDimX = 1,
                                   .gridDimY = 1,
                                   .gridDimZ = 1,
                                   .blockDimX = 1,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .hStream = lane->stream};
    CUresult error = nvlxi_cuda_driver.cuLaunchKernelEx(&config, kernel, arguments, NULL);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "launching a kernel of signals") : 0;
}

static int check_loaded(const struct nvlxi_lane *lane) {
    return atomic_load(&lane->device->gpus[lane->gpu].sms)
               ? 0
               : nvlxi_fail(NVLX_ENOTSUP, "GPU %d has no kernels of signals, or they are being loaded", lane->gpu);
}

static int signal_by_kernel(const struct nvlxi_lane *lane, const struct nvlxi_signal *signal) {
    const struct nvlxi_cuda_counters *counters = &lane->device->gpus[lane->gpu].counters;
    uint64_t address = signal->address, value = signal->value;
    void *arguments[] = {&address, &value};
    int code = check_writable(address, lane->gpu);
    if (!code)
        code = check_loaded(lane);
    return code ? code : launch_one_thread(lane, signal->add ? counters->add : counters->set, arguments);
}

/* A stream that captures is not asked for what it may refuse only when the graph runs. */
static bool takes_a_kernel(const struct nvlxi_lane *lane, const struct nvlxi_signal *signal) {
    struct nvlxi_cuda_attributes attributes;
    return signal->add || (lane->capturing && (nvlxi_cuda_attributes(signal->address, &attributes) || attributes.pool));
}

int nvlxi_cuda_signal(struct nvlxi_lane *lane, const struct nvlxi_signal *signal) {
    struct nvlxi_cuda_entry entry;
    CUresult error = CUDA_ERROR_INVALID_VALUE;
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    if (!takes_a_kernel(lane, signal))
        error = nvlxi_cuda_driver.cuStreamWriteValue64(lane->stream, signal->address, signal->value,
                                                       CU_STREAM_WRITE_VALUE_DEFAULT);
    if (error == CUDA_ERROR_INVALID_VALUE)
        code = signal_by_kernel(lane, signal);
    else if (error)
        code = nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "queueing a signal");
    nvlxi_cuda_leave(&entry);
    return code;
}

/* What was refused as an invalid value. */
static int refuse_wait(uint64_t address) {
    struct nvlxi_cuda_attributes attributes;
    int code = find_count(address, &attributes);
    if (code)
        return code;
    if (attributes.pool)
        return nvlxi_fail(NVLX_ENOTSUP, "a stream cannot wait for the count at 0x%llx: it lies in memory of a pool",
                          (unsigned long long)address);
    return nvlxi_cuda_driver_failure(CUDA_ERROR_INVALID_VALUE, NVLX_EDEVICE, "queueing a wait for a signal");
}

/* GEQ compares as nvlxi_signal_reached does. */
int nvlxi_cuda_await(struct nvlxi_lane *lane, uint64_t address, uint64_t value) {
    struct nvlxi_cuda_entry entry;
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    CUresult error = nvlxi_cuda_driver.cuStreamWaitValue64(lane->stream, address, value, CU_STREAM_WAIT_VALUE_GEQ);
    if (error == CUDA_ERROR_INVALID_VALUE)
        code = refuse_wait(address);
    else if (error)
        code = nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "queueing a wait for a signal");
    nvlxi_cuda_leave(&entry);
    return code;
}

/* Nobody else checks the addresses that the kernel gets. */
int nvlxi_cuda_await_gated(struct nvlxi_lane *lane, const struct nvlxi_gated *gated) {
    struct nvlxi_cuda_attributes attributes;
    struct nvlxi_cuda_entry entry;
    struct nvlxi_gated copy = *gated;
    void *arguments[] = {&copy.address, &copy.value, &copy.gate, &copy.pass};
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    code = find_count(gated->address, &attributes);
    if (!code)
        code = find_count(gated->gate, &attributes);
    if (!code)
        code = check_loaded(lane);
    if (!code)
        code = launch_one_thread(lane, lane->device->gpus[lane->gpu].counters.await, arguments);
    nvlxi_cuda_leave(&entry);
    return code;
}

/* What it writes: that of a count which is 0 is none. */
static int check_written(uint64_t address, int gpu) {
    return address ? check_writable(address, gpu) : 0;
}

int nvlxi_cuda_await_paced(struct nvlxi_lane *lane, const struct nvlxi_paced *paced) {
    struct nvlxi_cuda_attributes attributes;
    struct nvlxi_cuda_entry entry;
    struct nvlxi_cuda_paced copy = {(const void *)(uintptr_t)paced->address, paced->value,
                                    (void *)(uintptr_t)paced->reached, (const void *)paced->gate,
                                    (void *)(uintptr_t)paced->mark};
    void *arguments[] = {&copy};
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    code = find_count(paced->address, &attributes);
    if (!code)
        code = check_written(paced->reached, lane->gpu);
    if (!code)
        code = check_written(paced->mark, lane->gpu);
    if (!code)
        code = check_loaded(lane);
    if (!code)
        code = launch_one_thread(lane, lane->device->gpus[lane->gpu].counters.await_paced, arguments);
    nvlxi_cuda_leave(&entry);
    return code;
}

int nvlxi_cuda_signal_read(struct nvlxi_device *device, uint64_t address, uint64_t *value) {
    struct nvlxi_cuda_attributes attributes;
    int code = find_count(address, &attributes);
    return code ? code : nvlxi_cuda_memcpy(device, value, (const void *)(uintptr_t)address, sizeof *value);
}
