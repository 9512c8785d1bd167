/* How the library was built, and its limits, as one text. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "api/engine.h"
#include "descriptor/format.h"
#include "rendezvous/protocol.h"
#include "rendezvous/rendezvous.h"

/* CMake tells these: other builds need not. */
#ifndef NVLXI_BUILD_TYPE
#define NVLXI_BUILD_TYPE "unknown"
#endif
#ifndef NVLXI_BUILD_SANITIZER
#define NVLXI_BUILD_SANITIZER "none"
#endif
#ifndef NVLXI_BUILD_CUDA
#define NVLXI_BUILD_CUDA "unknown"
#endif
#ifndef NVLXI_BUILD_KERNELS
#define NVLXI_BUILD_KERNELS "unknown"
#endif

#if defined(__clang__)
#define COMPILER       "clang"
#define COMPILER_MAJOR __clang_major__
#define COMPILER_MINOR __clang_minor__
#else
#define COMPILER       "gcc"
#define COMPILER_MAJOR __GNUC__
#define COMPILER_MINOR __GNUC_MINOR__
#endif

static char text[512];

/* When the library is loaded: so there is no lock that a forked child could find held. */
__attribute__((constructor)) static void make_text(void) {
#ifdef NVLXI_WITH_CUDA
    const char *cuda = NVLXI_BUILD_CUDA, *kernels = NVLXI_BUILD_KERNELS;
#else
    const char *cuda = "none", *kernels = "none";
#endif
    snprintf(text, sizeof text,
             "version=%s protocol=%u.%u descriptor=%u.%u cuda=%s kernels=%s compiler=%s-%d.%d type=%s sanitizer=%s "
             "max_requests=%u list_memory=%u verified=%d max_connections=%u regions=%u segments=%u descriptor_bytes=%u "
             "message_bytes=%u name_bytes=%d address_bytes=%d",
             nvlx_version(), NVLXI_PROTOCOL_MAJOR, NVLXI_PROTOCOL_MINOR, NVLXI_FORMAT_MAJOR, NVLXI_FORMAT_MINOR, cuda,
             kernels, COMPILER, COMPILER_MAJOR, COMPILER_MINOR, NVLXI_BUILD_TYPE, NVLXI_BUILD_SANITIZER,
             NVLXI_REQUESTS_DEFAULT, NVLXI_LIST_MEMORY_DEFAULT, NVLXI_VERIFIED_MAX, NVLXI_CONNECTIONS_DEFAULT,
             NVLXI_REGIONS_MAX, NVLXI_SEGMENTS_MAX, NVLXI_TEXT_MAX, NVLXI_MESSAGE_MAX, NVLXI_NAME_MAX,
             NVLXI_ADDRESS_MAX);
}

const char *nvlx_build_info(void) {
    return text;
}
