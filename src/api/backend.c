/* Which backend an engine runs on. SPDX-License-Identifier: Apache-2.0 */
#include "api/backend.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "base/utf8.h"
#ifdef NVLXI_WITH_NVTX
#include "device/cuda/nvtx.h"
#endif

static int find_cuda(const struct nvlxi_device_ops **ops) {
#ifdef NVLXI_WITH_CUDA
    int gpus;
    *ops = &nvlxi_device_cuda;
    return nvlxi_device_cuda.count(&gpus);
#else
    (void)ops;
    return nvlxi_fail(NVLX_EBACKEND, "this library was built without the cuda backend");
#endif
}

static int find_host(const struct nvlxi_device_ops **ops) {
    int gpus;
    *ops = &nvlxi_device_host;
    return nvlxi_device_host.count(&gpus);
}

/* Software GPUs are for tests: a program that meant others must not find out by its speed. */
static void warn_once(const char *why) {
    static atomic_flag warned = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&warned))
        nvlxi_log(NVLX_LOG_WARNING,
                  "software GPUs are used (the host backend), because the cuda backend is not available: %s. If that "
                  "is meant, set NVLX_BACKEND=host, or config.backend",
                  why);
}

static int find_auto(const struct nvlxi_device_ops **ops) {
    struct nvlxi_attempt cuda;
    nvlxi_attempt_begin(&cuda);
    int code = find_cuda(ops);
    nvlxi_attempt_end(&cuda, 0);
    if (!code)
        return 0;
    code = find_host(ops);
    if (!code)
        warn_once(cuda.text);
    return code;
}

static int take_environment(uint32_t *backend) {
    const char *name = getenv("NVLX_BACKEND");
    if (!name || !*name || !strcmp(name, "auto"))
        return 0;
    if (strcmp(name, "cuda") && strcmp(name, "host"))
        return nvlxi_fail(NVLX_EBACKEND, "NVLX_BACKEND is \"%.*s\": it must be auto, cuda or host",
                          nvlxi_text_cut(name, 40), name);
    *backend = strcmp(name, "cuda") ? NVLX_BACKEND_HOST : NVLX_BACKEND_CUDA;
    return 0;
}

int nvlxi_backend_find(uint32_t backend, const struct nvlxi_device_ops **ops) {
    int code = backend == NVLX_BACKEND_AUTO ? take_environment(&backend) : 0;
    if (code)
        return code;
    switch (backend) {
    case NVLX_BACKEND_AUTO:
        return find_auto(ops);
    case NVLX_BACKEND_CUDA:
        return find_cuda(ops);
    case NVLX_BACKEND_HOST:
        return find_host(ops);
    default:
        return nvlxi_fail(NVLX_EINVAL, "backend %u is not one of NVLX_BACKEND_...", (unsigned)backend);
    }
}

void nvlxi_backend_trace(void) {
#ifdef NVLXI_WITH_NVTX
    nvlxi_nvtx_open();
#endif
}
