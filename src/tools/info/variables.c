/* The environment variables that are read. SPDX-License-Identifier: Apache-2.0 */
#include "info/variables.h"

/* tests/source/environment.sh compares this list with the source, and with src/doc/environment.md. */
const struct variable variables[] = {
    {"NVLX_BACKEND", READER_LIBRARY, "cuda, host, or auto, the default: cuda where it can run, else host"},
    {"NVLX_HOST_GPUS", READER_LIBRARY, "how many software GPUs the host backend has: 1 to 64, by default 2"},
    {"NVLX_LOG_LEVEL", READER_LIBRARY, "0 errors, 1 warnings, the default, 2 INFO, 3 DEBUG"},
    {"NVLX_LIBRARY", READER_PYTHON, "the library that the Python package loads"},
    {"MC_TRANSFER_TIMEOUT", READER_MOONCAKE, "seconds to wait for who still uses memory: by default 30"},
    {"NVLX_MOONCAKE_FOLDER", READER_MOONCAKE, "where the socket files are made; else abstract addresses"},
    {"NVLX_CUDA", READER_SCRIPTS, "ON, OFF or AUTO: the option of CMake, for ./examples/run and ./tests/run"},
    {"CUDA_VISIBLE_DEVICES", READER_TOOLS, "which GPUs CUDA shows, and in which order"},
    {"HOME", READER_TOOLS, "nvlx_info --nixl: where the user's Python packages and .nixl.cfg are"},
    {"LD_LIBRARY_PATH", READER_TOOLS, "where the loader looks for libcuda.so.1 first"},
    {"MC_FORCE_MNNVL", READER_TOOLS, "Mooncake wants fabric handles"},
    {"NCCL_MNNVL_ENABLE", READER_TOOLS, "1: NCCL wants fabric handles"},
    {"NIXL_CONFIG_FILE", READER_TOOLS, "the file in which NIXL finds what no variable tells"},
    {"NIXL_PLUGIN_DIR", READER_TOOLS, "where NIXL looks for plugins"},
    {"NVSHMEM_CUMEM_HANDLE_TYPE", READER_TOOLS, "FABRIC: NVSHMEM wants fabric handles"},
    {"PATH", READER_TOOLS, "nvlx_info --nixl: whose python3 is in use"},
    {"PYTORCH_ALLOC_CONF", READER_TOOLS, "PyTorch's allocator, which decides how its memory can be shared"},
    {"PYTORCH_CUDA_ALLOC_CONF", READER_TOOLS, "the same, by its older name"},
    {"TF_GPU_ALLOCATOR", READER_TOOLS, "cuda_malloc_async: memory of XLA that cannot be shared"},
    {"TMPDIR", READER_TOOLS, "where nvlx_info --doctor puts its sockets, without --folder; else /tmp"},
    {"VIRTUAL_ENV", READER_TOOLS, "nvlx_info --nixl: the Python environment in use"},
    {"XLA_PYTHON_CLIENT_ALLOCATOR", READER_TOOLS, "cuda_async: memory of JAX that cannot be shared"},
    {"NVLX_NIXL_ANSWER_MS", READER_NIXL, "how long a peer may take to copy DRAM: by default 120000"},
    {"NVLX_NIXL_ANY_VERSION", READER_NIXL, "1: a NIXL that is not known is tried, which may crash"},
    {"NVLX_NIXL_CONNECTIONS", READER_NIXL, "how many peers may be connected: by default 1024"},
    {"NVLX_NIXL_CONNECT_MS", READER_NIXL, "how long a peer's process may be silent at first: by default 1000"},
    {"NVLX_NIXL_FOLDER", READER_NIXL, "where the socket file is made; else an abstract address"},
    {"NVLX_NIXL_LIST_MEMORY", READER_NIXL, "as list_memory of nvlx_config"},
    {"NVLX_NIXL_MAX_SMS", READER_NIXL, "as max_sms of nvlx_config"},
    {"NVLX_NIXL_MECHANISM", READER_NIXL, "auto, the default, engine or kernel"},
    {"NVLX_NIXL_TRACED", READER_NIXL, "1, the default: peers may reach this process's host memory"},
    {"NVLX_NIXL_WITHDRAW_MS", READER_NIXL, "how long deregister_memory waits for users: by default 10000"},
};
const size_t variable_count = sizeof variables / sizeof variables[0];

const char *reader_text(enum reader reader) {
    static const char *const texts[] = {
        "the library",          "the Python package",  "./examples/run, ./tests/run", "nvlx_info --doctor, --nixl",
        "the backend for NIXL", "Mooncake's interface"};
    return texts[reader];
}
