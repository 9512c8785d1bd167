# Finds the CUDA toolkit. Sets NVLX_WITH_CUDA, and NVLX_CUDA_LIBRARIES to what the cuda backend links: the runtime
# statically, and never libcuda, so that the library loads on a machine without a driver.
# SPDX-License-Identifier: Apache-2.0
set(NVLX_CUDA_MINIMUM 12.8)
set(NVLX_WITH_CUDA OFF)
set(NVLX_CUDA_LIBRARIES)

if(NOT NVLX_CUDA MATCHES "^(AUTO|ON|OFF)$")
    message(FATAL_ERROR "NVLX_CUDA is '${NVLX_CUDA}'; it may be AUTO, ON or OFF")
endif()
if(NVLX_CUDA STREQUAL "OFF")
    message(STATUS "The cuda backend: off, as NVLX_CUDA says")
    return()
endif()

if(CMAKE_CUDA_COMPILER)
    execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version RESULT_VARIABLE failure OUTPUT_QUIET ERROR_QUIET)
    if(failure)
        message(FATAL_ERROR "CMAKE_CUDA_COMPILER is '${CMAKE_CUDA_COMPILER}', which does not run (${failure}): "
                            "give the path of nvcc, or leave it out")
    endif()
endif()
find_package(CUDAToolkit QUIET)
if(NOT CUDAToolkit_FOUND OR NOT CUDAToolkit_NVCC_EXECUTABLE)
    set(problem "no CUDA toolkit was found (nvcc on PATH, or in /usr/local/cuda)")
elseif(CUDAToolkit_VERSION VERSION_LESS NVLX_CUDA_MINIMUM)
    set(problem "the CUDA toolkit is ${CUDAToolkit_VERSION}, older than ${NVLX_CUDA_MINIMUM}")
endif()
if(problem AND NVLX_CUDA STREQUAL "ON")
    message(FATAL_ERROR "NVLX_CUDA is ON, but ${problem}")
elseif(problem)
    message(STATUS "The cuda backend: not built, since ${problem}")
    return()
endif()

if(NVLX_CUDA_SOURCES MATCHES "\\.cu(;|$)")
    if(NOT CMAKE_CUDA_COMPILER)
        set(CMAKE_CUDA_COMPILER ${CUDAToolkit_NVCC_EXECUTABLE})
    endif()
    # Machine code for each GPU with NVLink and the common ones without that this nvcc knows, and PTX of the newest for
    # those to come.
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --list-gpu-code RESULT_VARIABLE failure OUTPUT_VARIABLE known
                        ERROR_QUIET)
        if(failure)
            message(FATAL_ERROR "'${CMAKE_CUDA_COMPILER} --list-gpu-code' does not run (${failure}): "
                                "give nvcc as CMAKE_CUDA_COMPILER, or set CMAKE_CUDA_ARCHITECTURES")
        endif()
        foreach(architecture 80-real 86-real 89-real 90-real 100-real 120)
            string(REGEX MATCH "^[0-9]+" number ${architecture})
            if(known MATCHES "sm_${number}\n")
                list(APPEND CMAKE_CUDA_ARCHITECTURES ${architecture})
            endif()
        endforeach()
    endif()
    set(CMAKE_CUDA_STANDARD 17)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    enable_language(CUDA)
    message(STATUS "Kernels for ${CMAKE_CUDA_ARCHITECTURES}")
endif()

set(NVLX_WITH_CUDA ON)
set(NVLX_CUDA_LIBRARIES CUDA::cudart_static)
message(STATUS "The cuda backend: with CUDA ${CUDAToolkit_VERSION}")
