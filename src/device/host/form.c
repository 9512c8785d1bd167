/* Which rows copy engines take, whatever memory they are in. SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "base/error.h"
#include "device/host/host.h"

static bool has_legal_form(const struct nvlxi_rows *rows) {
    const uint64_t low = nvlxi_min(rows->destination_pitch, rows->source_pitch),
                   high = nvlxi_max(rows->destination_pitch, rows->source_pitch);
    return rows->length && rows->count && rows->count <= NVLXI_ROWS_MAX &&
           (rows->count == 1 || (low >= rows->length && high <= NVLXI_PITCH_MAX));
}

static bool has_legal_times(const struct nvlxi_grid *grid) {
    return grid->times == 1 ||
           (grid->times <= NVLXI_TIMES_MAX && grid->rows.count > 1 &&
            nvlxi_grid_is_even(grid->rows.count, grid->rows.destination_pitch, grid->destination_step) &&
            nvlxi_grid_is_even(grid->rows.count, grid->rows.source_pitch, grid->source_step));
}

int nvlxi_host_check_form(const struct nvlxi_grid *grid) {
    const struct nvlxi_rows *rows = &grid->rows;
    return has_legal_form(rows) && has_legal_times(grid)
               ? 0
               : nvlxi_fail(NVLX_EDEVICE,
                            "%" PRIu64 " rows of %" PRIu64 " bytes with pitches %" PRIu64 " and %" PRIu64 ", %" PRIu64
                            " times, are not for one copy by an engine",
                            rows->count, rows->length, rows->destination_pitch, rows->source_pitch, grid->times);
}
