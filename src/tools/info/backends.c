/* nvlx_info: what the library can do here. SPDX-License-Identifier: Apache-2.0 */
#include <nvlxfer.h>
#include <stddef.h>

#include "common/kind.h"
#include "info/info.h"

static void tell_backend(struct report *report, const char *name, uint32_t backend) {
    int gpus;
    report_open(report, NULL);
    report_text(report, "name", "%s", name);
    if (nvlx_gpu_count(backend, &gpus))
        report_text(report, "why_not", "%s", nvlx_last_error());
    else
        report_number(report, "gpus", (uint64_t)gpus);
    report_close(report);
}

/* Allocates a little, registers it, and has it exported. NULL: all that worked. */
static const char *why_not_shared(struct nvlx_engine *engine, uint32_t flags) {
    const size_t length = 4096;
    struct nvlx_alloc_options options;
    struct nvlx_region *region;
    void *memory;
    nvlx_alloc_options_init(&options);
    options.flags = flags;
    if (nvlx_alloc(engine, 0, length, &options, &memory))
        return nvlx_last_error();
    int code = nvlx_register(engine, memory, length, NULL, &region);
    if (!code)
        nvlx_unregister(region, 0);
    nvlx_free(engine, memory);
    return code ? nvlx_last_error() : NULL;
}

static void tell_kinds(struct report *report, struct nvlx_engine *engine) {
    static const struct {
        uint32_t kind, flags;
    } kinds[] = {{NVLX_KIND_CUDA_MALLOC, 0},
                 {NVLX_KIND_VMM, NVLX_ALLOC_VMM},
                 {NVLX_KIND_POOL, NVLX_ALLOC_POOL},
                 {NVLX_KIND_HOST, NVLX_ALLOC_HOST}};
    report_open_list(report, "memory");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        const char *why = why_not_shared(engine, kinds[i].flags);
        report_open(report, NULL);
        report_text(report, "kind", "%s", kind_text(kinds[i].kind));
        report_truth(report, "works", !why);
        if (why)
            report_text(report, "why_not", "%s", why);
        report_close(report);
    }
    report_close(report);
}

int info_backends(struct report *report) {
    const int gpu = 0;
    struct nvlx_config config;
    struct nvlx_engine *engine;
    report_open_list(report, "backends");
    tell_backend(report, "cuda", NVLX_BACKEND_CUDA);
    tell_backend(report, "host", NVLX_BACKEND_HOST);
    report_close(report);
    nvlx_config_init(&config);
    config.gpus = &gpu;
    config.gpu_count = 1;
    if (nvlx_engine_create(&config, &engine)) {
        report_nothing(report, "backend");
        report_text(report, "why_not", "%s", nvlx_last_error());
        report_open_list(report, "memory"); /* no kind of it can be had */
        report_close(report);
        return 1;
    }
    report_text(report, "backend", "%s", nvlx_backend_name(engine));
    tell_kinds(report, engine);
    return nvlx_engine_destroy(engine) ? 1 : 0;
}
