/* The driver's calls for chunks: see cuda_chunks.h. SPDX-License-Identifier: Apache-2.0 */
#include "cuda_chunks.h"

#include "cuda_support.h"

struct chunk_driver driver;

void driver_at(const char *file, int line, CUresult error, const char *call) {
    if (error)
        fail_at(file, line, "%s: %d", call, (int)error);
}

void load_driver(void) {
    driver_function("cuMemCreate", 10020, (void **)&driver.create);
    driver_function("cuMemRelease", 10020, (void **)&driver.release);
    driver_function("cuMemAddressReserve", 10020, (void **)&driver.reserve);
    driver_function("cuMemAddressFree", 10020, (void **)&driver.address_free);
    driver_function("cuMemMap", 10020, (void **)&driver.map);
    driver_function("cuMemUnmap", 10020, (void **)&driver.unmap);
    driver_function("cuMemSetAccess", 10020, (void **)&driver.set_access);
    driver_function("cuMemRetainAllocationHandle", 11000, (void **)&driver.retain);
    driver_function("cuMemExportToShareableHandle", 10020, (void **)&driver.export_handle);
    driver_function("cuMemImportFromShareableHandle", 10020, (void **)&driver.import_handle);
}
