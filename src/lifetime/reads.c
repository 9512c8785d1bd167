/* Reads counts, so that nobody frees them meanwhile: see reads.h. SPDX-License-Identifier: Apache-2.0 */
#include "lifetime/reads.h"

#include <inttypes.h>
#include <utlist.h>

#include "base/error.h"
#include "transfer/op.h"

int nvlxi_waits_check_count(const struct nvlxi_transfers *transfers, uint64_t address, int *gpu) {
    const struct nvlxi_intervals *ranges = &transfers->registration->ranges;
    const uint32_t piece = nvlxi_intervals_find(ranges, address);
    uint64_t where;
    bool registered;
    if (address % NVLXI_COUNT_BYTES)
        return nvlxi_fail(NVLX_EINVAL, "a count at 0x%" PRIx64 ": it is no multiple of 8", address);
    if (nvlxi_intervals_cover(ranges, piece, address, NVLXI_COUNT_BYTES, NVLX_ACCESS_NONE, &where, &registered)) {
        if (nvlxi_place_is_host(ranges->piece[piece].place))
            return nvlxi_fail(NVLX_EINVAL, "the count at 0x%" PRIx64 " is in host memory", address);
        if (gpu)
            *gpu = nvlxi_place_device(ranges->piece[piece].place);
        return 0;
    }
    return nvlxi_registration_sleeps(transfers->registration, where)
               ? nvlxi_fail(NVLX_ESUSPENDED, "the memory of the count at 0x%" PRIx64 " is suspended", address)
               : nvlxi_fail(NVLX_ERANGE, "the count at 0x%" PRIx64 " is not registered in this engine", address);
}

int nvlxi_waits_check_count_on(const struct nvlxi_transfers *transfers, uint64_t address, int gpu) {
    int where = 0, code = nvlxi_waits_check_count(transfers, address, &where);
    return code || where == gpu
               ? code
               : nvlxi_fail(NVLX_EINVAL, "the count at 0x%" PRIx64 " is on GPU %d, and the stream on GPU %d", address,
                            where, gpu);
}

static int begin(struct nvlxi_waits *waits, struct nvlxi_read *read) {
    struct nvlxi_tables *tables = waits->transfers->context->tables;
    nvlxi_tables_read(tables);
    int code = nvlxi_waits_check_count(waits->transfers, read->address, NULL);
    if (!code) {
        pthread_mutex_lock(&waits->mutex);
        LL_PREPEND(waits->reads, read);
        pthread_mutex_unlock(&waits->mutex);
    }
    nvlxi_tables_read_end(tables);
    return code;
}

int nvlxi_read_count(struct nvlxi_waits *waits, uint64_t address, uint64_t *value) {
    const struct nvlxi_context *context = waits->transfers->context;
    struct nvlxi_read read = {.address = address};
    int code = begin(waits, &read);
    if (code)
        return code;
    code = context->ops->signal_read(context->device, address, value);
    pthread_mutex_lock(&waits->mutex);
    LL_DELETE(waits->reads, &read);
    pthread_mutex_unlock(&waits->mutex);
    return code;
}
