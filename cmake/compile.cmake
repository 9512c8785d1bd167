# How every file is compiled: language versions, warnings, sanitizers.
# SPDX-License-Identifier: Apache-2.0
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_C_VISIBILITY_PRESET hidden)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# Whatever a project that takes this one in says: the sources are gnu11 and gnu++17, and each file has names of its own.
set(CMAKE_C_EXTENSIONS ON)
set(CMAKE_CXX_EXTENSIONS ON)
set(CMAKE_UNITY_BUILD OFF)

add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-Wall> $<$<COMPILE_LANGUAGE:C,CXX>:-Wextra>
                    $<$<COMPILE_LANGUAGE:C,CXX>:-Wpedantic> $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>)
if(NVLX_WERROR)
    add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-Werror> $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
endif()

# The same bytes, in whatever folders the tree and its build lie: names of files begin at the top of the tree.
set(prefixes -ffile-prefix-map=${PROJECT_SOURCE_DIR}=. -ffile-prefix-map=${PROJECT_BINARY_DIR}=./build)
list(JOIN prefixes "," prefixes_for_nvcc)
add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:${prefixes}>" "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${prefixes_for_nvcc}>")

if(NVLX_SANITIZE STREQUAL "address")
    set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=all)
    if(CMAKE_C_COMPILER_ID MATCHES "Clang") # these two are for C++, and need a runtime that C programs do not get
        list(APPEND sanitize -fno-sanitize=function,vptr)
    endif()
elseif(NVLX_SANITIZE STREQUAL "thread")
    set(sanitize -fsanitize=thread)
elseif(NVLX_SANITIZE)
    message(FATAL_ERROR "NVLX_SANITIZE is '${NVLX_SANITIZE}'; it may be address, thread or empty")
endif()
if(NVLX_FUZZ)
    if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
        message(FATAL_ERROR "NVLX_FUZZ needs clang: -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++")
    endif()
    list(APPEND sanitize -fsanitize=fuzzer-no-link)
endif()
if(sanitize)
    list(APPEND sanitize -fno-omit-frame-pointer)
    add_compile_options("$<$<COMPILE_LANGUAGE:C,CXX>:${sanitize}>")
    add_link_options(${sanitize})
endif()
