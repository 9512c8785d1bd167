// The kernels that change counts: see signal.h. SPDX-License-Identifier: Apache-2.0
#include "device/cuda/signal.h"

namespace {

// All that its stream did before is complete. The fence lets others see that before they see the count.
__global__ void add_to_count(unsigned long long *count, unsigned long long value) {
    __threadfence_system();
    atomicAdd_system(count, value);
}

__global__ void set_count(unsigned long long *count, unsigned long long value) {
    __threadfence_system();
    atomicExch_system(count, value);
}

__device__ bool is_reached(const volatile unsigned long long *count, unsigned long long value) {
    return *count - value < 1ull << 63;
}

// What is behind it in the stream sees what came before the count.
__global__ void await_count(const unsigned long long *count, unsigned long long value, const unsigned long long *gate,
                            unsigned long long pass) {
    while (!is_reached(count, value) && !is_reached(gate, pass))
        __nanosleep(100);
    __threadfence_system();
}

// The gate is in host memory: reading it takes a microsecond, in which the count is not looked at. So it is read
// seldom.
constexpr int gate_looks = 16;

__global__ void await_paced(nvlxi_cuda_paced paced) {
    const unsigned long long awaited = paced.value + (paced.reached ? *paced.reached : 0);
    const volatile unsigned long long *gate = paced.gate;
    unsigned long long why = 0;
    for (int looks = 0; !is_reached(paced.count, awaited); looks++) {
        if (looks % gate_looks == 0 && (why = *gate))
            break;
        __nanosleep(100);
    }
    if (why && paced.mark)
        *paced.mark = why;
    if (!why && paced.reached)
        *paced.reached = awaited;
    __threadfence_system();
}

} // namespace

// What follows is the host's. The compiler that CI has of the oldest CUDA, NVRTC, is not given it.
#include "device/cuda/load.h"

cudaError_t nvlxi_cuda_load_counters(nvlxi_cuda_counters *counters) {
    cudaError_t error = nvlxi_cuda_load_kernel(reinterpret_cast<const void *>(add_to_count), &counters->add);
    if (!error)
        error = nvlxi_cuda_load_kernel(reinterpret_cast<const void *>(set_count), &counters->set);
    if (!error)
        error = nvlxi_cuda_load_kernel(reinterpret_cast<const void *>(await_count), &counters->await);
    return error ? error : nvlxi_cuda_load_kernel(reinterpret_cast<const void *>(await_paced), &counters->await_paced);
}
