# glog and jsoncpp: the system's, or with NVLX_STATIC_DEPS linked into the library, hidden: a program that brings other
# copies of them never meets ours. Sets NVLX_GLOG, NVLX_JSONCPP and UTHASH_INCLUDE_DIR.
# SPDX-License-Identifier: Apache-2.0
find_path(UTHASH_INCLUDE_DIR uthash.h REQUIRED)
mark_as_advanced(UTHASH_INCLUDE_DIR)

if(NOT NVLX_STATIC_DEPS)
    find_package(PkgConfig REQUIRED)
    pkg_check_modules(glog REQUIRED IMPORTED_TARGET libglog)
    pkg_check_modules(jsoncpp REQUIRED IMPORTED_TARGET jsoncpp)
    set(NVLX_GLOG PkgConfig::glog)
    set(NVLX_JSONCPP PkgConfig::jsoncpp)
    return()
endif()

# Built here: archives of distributions are not made to go into a shared library. A path in place of a URL is taken as
# well, and checked alike. Debian's source packages have the same archives.
set(NVLX_GLOG_URL https://github.com/google/glog/archive/refs/tags/v0.6.0.tar.gz CACHE STRING "Source of glog 0.6.0")
set(NVLX_JSONCPP_URL https://github.com/open-source-parsers/jsoncpp/archive/refs/tags/1.9.5.tar.gz
    CACHE STRING "Source of jsoncpp 1.9.5")
include(FetchContent)

# What is left to do is the last line that a build prints: FetchContent itself tries six times, then prints all of CMake's
# own words.
function(nvlx_cannot_fetch url why)
    message(FATAL_ERROR "Cannot get ${url}: ${why}. Without it:\n"
        "  -DNVLX_STATIC_DEPS=OFF takes the system's libraries: libgoogle-glog-dev, libjsoncpp-dev and pkg-config\n"
        "  -DNVLX_GLOG_URL=FILE and -DNVLX_JSONCPP_URL=FILE take files\n"
        "With pip: pip install --config-settings=cmake.define.NVLX_STATIC_DEPS=OFF .")
endfunction()

# A file comes once, in two tries at most. Files of the caller's, lists of places, and folders that stand for them are left
# to FetchContent.
function(nvlx_declare name url hash)
    string(TOUPPER FETCHCONTENT_SOURCE_DIR_${name} folder)
    if(url MATCHES "^[a-z]+://[^;]*$" AND NOT ${folder} AND NOT FETCHCONTENT_FULLY_DISCONNECTED)
        set(file ${CMAKE_BINARY_DIR}/_deps/${name}.tar.gz)
        set(found)
        if(EXISTS ${file})
            file(SHA256 ${file} found)
        endif()
        foreach(try RANGE 1)
            if(NOT found STREQUAL hash)
                file(DOWNLOAD ${url} ${file} STATUS status INACTIVITY_TIMEOUT 30 TIMEOUT 300)
                list(GET status 1 why)
                string(REPLACE "\"" "" why "${why}")
                file(SHA256 ${file} found)
            endif()
        endforeach()
        if(NOT found STREQUAL hash)
            list(GET status 0 code)
            file(REMOVE ${file})
            if(NOT code)
                set(why "it has the SHA256 ${found}, not ${hash}")
            endif()
            nvlx_cannot_fetch(${url} "${why}")
        endif()
        set(url ${file})
    endif()
    FetchContent_Declare(${name} URL ${url} URL_HASH SHA256=${hash})
endfunction()

# Their own projects are not asked: glog's takes a minute to find out what each Linux with gcc or clang has, jsoncpp's
# sets where all that is built goes.
function(nvlx_add_static name)
    list(TRANSFORM ARGN PREPEND ${${name}_SOURCE_DIR}/)
    add_library(${name} STATIC EXCLUDE_FROM_ALL ${ARGN})
    target_compile_options(${name} PRIVATE -w)
    set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
endfunction()

message(STATUS "Fetching ${NVLX_GLOG_URL} and ${NVLX_JSONCPP_URL}")
nvlx_declare(nvlx_glog "${NVLX_GLOG_URL}" 8a83bf982f37bb70825df71a9709fa90ea9f4447fb3c099e1d720a439d88bad6)
nvlx_declare(nvlx_jsoncpp "${NVLX_JSONCPP_URL}" f409856e5920c18d0c2fb85276e24ee607d2a09b5e7d5f0a371368903c275da2)
FetchContent_Populate(nvlx_glog)
set(made ${nvlx_glog_BINARY_DIR}/made)
set(ac_cv___attribute___noinline "__attribute__((noinline))")
set(ac_cv___attribute___noreturn "__attribute__((noreturn))")
set(ac_cv___attribute___printf_4_5 "__attribute__((__format__(__printf__, 4, 5)))")
foreach(answer cxx11_atomic cxx11_chrono cxx11_constexpr cxx11_nullptr_t cxx_using_operator have___builtin_expect
               have_glog_export have_inttypes_h have_stdint_h have_systypes_h have_u_int16_t have_uint16_t have_unistd_h)
    set(ac_cv_${answer} 1)
endforeach()
set(ac_cv_have___uint16 0)
set(ac_cv_have_libgflags 0)
set(ac_google_namespace google)
set(ac_google_start_namespace "namespace google {")
set(ac_google_end_namespace "}")
foreach(header logging raw_logging stl_logging vlog_is_on)
    configure_file(${nvlx_glog_SOURCE_DIR}/src/glog/${header}.h.in ${made}/glog/${header}.h @ONLY)
endforeach()
file(CONFIGURE OUTPUT ${made}/glog/export.h CONTENT "#define GLOG_EXPORT\n#define GLOG_NO_EXPORT\n#define GLOG_DEPRECATED\n")
set(config "#define GOOGLE_NAMESPACE google
#define _START_GOOGLE_NAMESPACE_ namespace google {
#define _END_GOOGLE_NAMESPACE_ }
#define STL_NAMESPACE std
#define SIZEOF_VOID_P ${CMAKE_SIZEOF_VOID_P}
#define GLOG_THREAD_LOCAL_STORAGE __thread\n")
foreach(has ALIGNED_STORAGE CXX11_ATOMIC CXX11_CHRONO CXX11_NULLPTR_T DLADDR DLFCN_H EXECINFO_H FCNTL GLOB_H INTTYPES_H
            LOCALTIME_R NAMESPACES PREAD PTHREAD PWD_H PWRITE RWLOCK SIGACTION SIGALTSTACK SNPRINTF STDINT_H SYMBOLIZE
            SYSCALL_H SYSLOG_H SYS_STAT_H SYS_SYSCALL_H SYS_TIME_H SYS_TYPES_H SYS_UTSNAME_H SYS_WAIT_H UCONTEXT_H
            UNISTD_H UNWIND_H USING_OPERATOR _UNWIND_BACKTRACE __ATTRIBUTE__ __BUILTIN_EXPECT
            __SYNC_VAL_COMPARE_AND_SWAP)
    string(APPEND config "#define HAVE_${has} 1\n")
endforeach()
file(CONFIGURE OUTPUT ${made}/config.h CONTENT "${config}")
nvlx_add_static(nvlx_glog src/demangle.cc src/logging.cc src/raw_logging.cc src/signalhandler.cc src/symbolize.cc
                src/utilities.cc src/vlog_is_on.cc)
target_include_directories(nvlx_glog SYSTEM PUBLIC ${made} PRIVATE ${nvlx_glog_SOURCE_DIR}/src)
target_link_libraries(nvlx_glog PRIVATE Threads::Threads)
set(NVLX_GLOG nvlx_glog)

FetchContent_Populate(nvlx_jsoncpp)
nvlx_add_static(nvlx_jsoncpp src/lib_json/json_reader.cpp src/lib_json/json_value.cpp src/lib_json/json_writer.cpp)
target_include_directories(nvlx_jsoncpp SYSTEM PUBLIC ${nvlx_jsoncpp_SOURCE_DIR}/include)
set(NVLX_JSONCPP nvlx_jsoncpp)

# Hides what the archives have, and leads calls of glibc that are too new to old_glibc.c. Before glibc 2.34, threads and
# dlopen were libraries of their own: what is named here is loaded there, and is empty on newer systems.
function(nvlx_link_for_old_systems target)
    set(source ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/old_glibc.c)
    file(STRINGS ${source} calls REGEX "^OLD\\(|^(int|void) __wrap_.*{$")
    foreach(call IN LISTS calls)
        string(REGEX REPLACE "^(OLD\\(|(int|void) __wrap_)([A-Za-z0-9_]+).*" "\\3" name "${call}")
        target_link_options(${target} PRIVATE LINKER:--wrap=${name})
    endforeach()
    target_sources(${target} PRIVATE ${source})
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-fno-lto;-fexceptions")
    target_link_options(${target} PRIVATE LINKER:--exclude-libs,ALL)
    target_link_libraries(${target} PRIVATE -Wl,--push-state,--no-as-needed -l:libpthread.so.0 -l:libdl.so.2
                                            -l:librt.so.1 -Wl,--pop-state)
endfunction()
