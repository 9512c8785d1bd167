/* A visit to a served engine. SPDX-License-Identifier: Apache-2.0 */
#include "doctor/visit.h"

#include <stdio.h>
#include <string.h>

#define READ_NS  INT64_C(20000000000)
#define READ_MAX 65536

static int say(struct visit *visit, int code, const char *what) {
    visit->code = code;
    snprintf(visit->text, sizeof visit->text, "%s: %s", what,
             *nvlx_last_error() ? nvlx_last_error() : nvlx_strerror(code));
    return code;
}

int visit_begin(struct visit *visit, const char *address) {
    const int gpu = 0;
    struct nvlx_config config;
    int code;
    memset(visit, 0, sizeof *visit);
    nvlx_config_init(&config);
    config.gpus = &gpu;
    config.gpu_count = 1;
    if ((code = nvlx_engine_create(&config, &visit->engine)))
        return say(visit, code, "nvlx_engine_create");
    if ((code = nvlx_connect(visit->engine, address, 0, &visit->peer)))
        return say(visit, code, "nvlx_connect");
    visit->info.size = sizeof visit->info;
    code = nvlx_peer_get_info(visit->peer, &visit->info);
    return code ? say(visit, code, "nvlx_peer_get_info") : 0;
}

static int read_into(struct visit *visit, struct nvlx_op *op) {
    struct nvlx_request *request;
    struct nvlx_region *own;
    int code = nvlx_register(visit->engine, op->local, op->length, NULL, &own);
    if (code)
        return say(visit, code, "nvlx_register");
    code = nvlx_transfer(visit->engine, op, 1, NULL, &request);
    if (code)
        say(visit, code, "nvlx_transfer");
    else if ((code = nvlx_wait(request, READ_NS)))
        say(visit, code, "nvlx_wait");
    else
        nvlx_request_free(request);
    return code;
}

int visit_read(struct visit *visit, const struct nvlx_region_info *region) {
    struct nvlx_op op = {.opcode = NVLX_OP_READ, .peer = visit->peer, .remote = region->address};
    op.length = region->length < READ_MAX ? region->length : READ_MAX;
    int code = nvlx_alloc(visit->engine, 0, op.length, NULL, &op.local);
    return code ? say(visit, code, "nvlx_alloc") : read_into(visit, &op);
}

void visit_end(struct visit *visit) {
    if (visit->engine)
        nvlx_engine_destroy(visit->engine); /* with all that is open */
}
