# Finds NVTX, a header of the CUDA toolkit that needs nothing else of it. Sets NVLX_WITH_NVTX, and NVLX_NVTX_INCLUDE_DIR.
# SPDX-License-Identifier: Apache-2.0
set(NVLX_WITH_NVTX OFF)

if(NOT NVLX_NVTX MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "NVLX_NVTX is '${NVLX_NVTX}'; it may be AUTO, ON or OFF")
endif()
if(NVLX_NVTX STREQUAL "OFF")
    return()
endif()
find_path(NVLX_NVTX_INCLUDE_DIR nvtx3/nvToolsExt.h HINTS ${CUDAToolkit_INCLUDE_DIRS} PATHS /usr/local/cuda/include)
mark_as_advanced(NVLX_NVTX_INCLUDE_DIR)
if(NVLX_NVTX_INCLUDE_DIR)
    set(NVLX_WITH_NVTX ON)
elseif(NVLX_NVTX STREQUAL "ON")
    message(FATAL_ERROR "NVLX_NVTX is ON, but nvtx3/nvToolsExt.h was not found: give its folder as NVLX_NVTX_INCLUDE_DIR")
endif()
message(STATUS "Ranges for profilers (NVTX): ${NVLX_WITH_NVTX}")
