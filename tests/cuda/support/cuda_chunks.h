/* The driver's calls for chunks of virtual-memory management, for the tests that map them as engines do.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef CUDA_CHUNKS_H
#define CUDA_CHUNKS_H

#include <cuda.h>
#include <cudaTypedefs.h>

struct chunk_driver {
    PFN_cuMemCreate_v10020 create;
    PFN_cuMemRelease_v10020 release;
    PFN_cuMemAddressReserve_v10020 reserve;
    PFN_cuMemAddressFree_v10020 address_free;
    PFN_cuMemMap_v10020 map;
    PFN_cuMemUnmap_v10020 unmap;
    PFN_cuMemSetAccess_v10020 set_access;
    PFN_cuMemRetainAllocationHandle_v11000 retain;
    PFN_cuMemExportToShareableHandle_v10020 export_handle;
    PFN_cuMemImportFromShareableHandle_v10020 import_handle;
};
extern struct chunk_driver driver;

void load_driver(void);

#define DRIVER(call) driver_at(__FILE__, __LINE__, (call), #call)
void driver_at(const char *file, int line, CUresult error, const char *call);

#endif
