/* Launches of the copy kernels: how a list is spread over SMs, blocks and warps. The introduction is in cuda.c.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "base/base.h"
#include "base/error.h"
#include "device/cuda/cuda.h"

#define SLICE_LONGEST  (64u << 10)
#define SLICE_SHORTEST (2u << 10) /* what a warp has in flight at once */
#define SLICES_MAX     1024u

static uint32_t clamp(uint64_t value, uint64_t low, uint64_t high) {
    return (uint32_t)nvlxi_max(low, nvlxi_min(value, high));
}

static struct nvlxi_cuda_lists join(const struct nvlxi_kernel *kernel) {
    struct nvlxi_cuda_lists lists = {.count = 0};
    for (uint32_t i = 0; i < kernel->part_count; i++) {
        lists.part[i] = kernel->parts[i].list;
        lists.count += kernel->parts[i].count;
        lists.end[i] = lists.count;
    }
    return lists;
}

/* Into how many slices each fragment is cut: so many that none is longer than the longest, or that all warps have one,
 * but none is shorter than the shortest. */
static uint32_t slices_for(uint64_t average, uint32_t count, uint32_t sms) {
    const uint64_t of_long_ones = nvlxi_ceil_div(nvlxi_min(average, UINT32_MAX), SLICE_LONGEST);
    const uint64_t of_few = nvlxi_ceil_div((uint64_t)sms * NVLXI_BLOCK_WARPS_MAX, count);
    const uint64_t most = nvlxi_min(average / SLICE_SHORTEST, INT32_MAX / count);
    return clamp(nvlxi_max(of_long_ones, of_few), 1, clamp(most, 1, SLICES_MAX));
}

struct grid {
    uint32_t blocks, block_warps;
    uint32_t argument; /* the kernel's second */
};

/* So many warps' work goes to all blocks, to few warps of each, rather than to all warps of a few. One block an SM. */
static struct grid spread(uint64_t work, uint32_t sms, uint32_t argument) {
    const uint32_t block_warps = clamp(nvlxi_ceil_div(work, sms), 1, NVLXI_BLOCK_WARPS_MAX);
    return (struct grid){clamp(nvlxi_ceil_div(work, block_warps), 1, sms), block_warps, argument};
}

/* Every warp gets the same number of tiles, and all tiles are equally long, up to the last. */
static struct grid spread_by_warps(uint32_t count, uint32_t sms) {
    const uint64_t warps = (uint64_t)sms * NVLXI_BLOCK_WARPS_MAX,
                   rounds = nvlxi_ceil_div(count, warps * NVLXI_WARP_THREADS);
    const uint64_t tile = nvlxi_ceil_div(count, warps * rounds);
    return spread(nvlxi_ceil_div(count, tile), sms, (uint32_t)tile);
}

/* A graph's kernels follow each other. */
static bool may_overlap(const struct nvlxi_lane *lane, bool overlaps) {
    return overlaps && !lane->capturing && lane->device->gpus[lane->gpu].kernels.overlap;
}

/* By the driver: the runtime takes a microsecond longer for the same. */
static CUresult launch(CUfunction function, const struct grid *grid, void *first, bool overlaps, cudaStream_t stream) {
    uint32_t argument = grid->argument;
    void *arguments[] = {first, &argument};
    CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                   .value.programmaticStreamSerializationAllowed = 1};
    const CUlaunchConfig config = {.gridDimX = grid->blocks,
                                   .gridDimY = 1,
                                   .gridDimZ = 1,
                                   .blockDimX = grid->block_warps * NVLXI_WARP_THREADS,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .hStream = stream,
                                   .attrs = &attribute,
                                   .numAttrs = overlaps ? 1 : 0};
    return nvlxi_cuda_driver.cuLaunchKernelEx(&config, function, arguments, NULL);
}

int nvlxi_cuda_copy_kernel(struct nvlxi_lane *lane, const struct nvlxi_kernel *kernel) {
    const struct nvlxi_cuda_gpu *gpu = &lane->device->gpus[lane->gpu];
    const uint32_t sms = clamp(kernel->sms, 1, atomic_load(&gpu->sms));
    struct nvlxi_cuda_lists lists = join(kernel);
    struct nvlxi_cuda_entry entry;
    if (!lists.count)
        return 0;
    const uint32_t slices = slices_for(kernel->average, lists.count, sms);
    const bool in_slices = slices > 1 || kernel->rows;
    const struct grid grid =
        in_slices ? spread((uint64_t)lists.count * slices, sms, slices) : spread_by_warps(lists.count, sms);
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    CUresult error = launch(kernel->rows ? gpu->kernels.rows
                            : in_slices  ? gpu->kernels.in_slices
                                         : gpu->kernels.by_warps,
                            &grid, &lists, may_overlap(lane, kernel->overlaps), lane->stream);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "launching the copy kernel") : 0;
}

int nvlxi_cuda_copy_blocks(struct nvlxi_lane *lane, const struct nvlxi_block_kernel *kernel) {
    const struct nvlxi_cuda_gpu *gpu = &lane->device->gpus[lane->gpu];
    const uint32_t sms = clamp(kernel->sms, 1, atomic_load(&gpu->sms));
    struct nvlxi_cuda_blocks blocks = {kernel->regions,      kernel->pairs,
                                       kernel->region_count, kernel->region_count * kernel->pair_count,
                                       kernel->read,         kernel->ids};
    struct nvlxi_cuda_entry entry;
    const uint32_t slices = slices_for(kernel->average, blocks.count, sms);
    const struct grid grid =
        slices > 1 ? spread((uint64_t)blocks.count * slices, sms, slices) : spread_by_warps(blocks.count, sms);
    int code = nvlxi_cuda_enter(lane->device, lane->gpu, &entry);
    if (code)
        return code;
    CUresult error = launch(slices > 1 ? gpu->kernels.blocks_in_slices : gpu->kernels.blocks_by_warps, &grid, &blocks,
                            may_overlap(lane, kernel->overlaps), lane->stream);
    nvlxi_cuda_leave(&entry);
    return error ? nvlxi_cuda_driver_failure(error, NVLX_EDEVICE, "launching the kernel that copies blocks") : 0;
}

/* An array may begin in one allocation and end in another: both ends are looked at. */
int nvlxi_cuda_ids_check(struct nvlxi_device *device, int gpu, uint64_t address, uint64_t length) {
    struct nvlxi_cuda_attributes first, last;
    (void)device;
    int code = nvlxi_cuda_attributes(address, &first);
    if (!code)
        code = nvlxi_cuda_attributes(address + length - 1, &last);
    if (!code && (first.type != CU_MEMORYTYPE_DEVICE || last.type != CU_MEMORYTYPE_DEVICE || first.managed ||
                  first.gpu != gpu || last.gpu != gpu))
        code = nvlxi_fail(NVLX_EINVAL, "ids at 0x%" PRIx64 ": not all of them are on GPU %d", address, gpu);
    return code;
}
