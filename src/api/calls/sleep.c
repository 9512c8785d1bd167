/* The exported functions by which memory sleeps and wakes. SPDX-License-Identifier: Apache-2.0 */
#include "api/engine.h"
#include "base/thread.h"
#include "lifetime/suspension.h"

/* `*engine` becomes the engine of all of them, or NULL if there are none. */
static int check_regions(struct nvlx_region *const *regions, size_t count, struct nvlx_engine **engine) {
    *engine = NULL;
    int code = count ? nvlxi_pointer_check(regions, "regions") : 0;
    for (size_t i = 0; i < count && !code; i++) {
        if (!regions[i])
            return nvlxi_fail(NVLX_EINVAL, "regions[%zu] is NULL", i);
        if ((code = nvlxi_engine_check(regions[i]->engine)))
            return code;
        if (regions[i]->engine != regions[0]->engine)
            return nvlxi_fail(NVLX_EINVAL, "regions[%zu] is of another engine than regions[0]", i);
        *engine = regions[i]->engine;
    }
    return code;
}

static int suspend(struct nvlx_region *const *regions, size_t count, int64_t timeout_ns) {
    struct nvlx_engine *engine;
    int code = check_regions(regions, count, &engine);
    if (code || !engine)
        return code;
    const struct nvlxi_suspension suspension = {
        .registration = &engine->registration, .own = nvlxi_engine_own(engine), .revocations = &engine->revocations};
    nvlxi_engine_tell_untracked(engine);
    return nvlxi_suspend(&suspension, regions, count, nvlxi_deadline(timeout_ns));
}

int nvlx_suspend(struct nvlx_region *const *regions, size_t count, int64_t timeout_ns) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, suspend(regions, count, timeout_ns));
}

static int resume(struct nvlx_region *const *regions, size_t count, void *const *addresses) {
    struct nvlx_engine *engine;
    int code = check_regions(regions, count, &engine);
    return code || !engine ? code : nvlxi_registration_resume(&engine->registration, regions, count, addresses);
}

int nvlx_resume(struct nvlx_region *const *regions, size_t count, void *const *addresses) {
    struct nvlxi_attempt call;
    nvlxi_attempt_begin(&call);
    return nvlxi_attempt_end(&call, resume(regions, count, addresses));
}
