/* nvlx_info: what libnvlxfer can do on this machine. Uses only the public header.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <nvlxfer.h>
#include <stdio.h>
#include <string.h>

static void show(const char *name, uint32_t backend) {
    int gpus;
    if (nvlx_gpu_count(backend, &gpus))
        printf("backend %s: not here: %s\n", name, nvlx_last_error());
    else
        printf("backend %s: %d GPUs\n", name, gpus);
}

static int show_choice(void) {
    struct nvlx_engine *engine;
    if (nvlx_engine_create(NULL, &engine)) {
        printf("backend auto: %s\n", nvlx_last_error());
        return 1;
    }
    printf("backend auto: takes %s\n", nvlx_backend_name(engine));
    return nvlx_engine_destroy(engine) ? 1 : 0;
}

int main(int argc, char **argv) {
    if (argc > 1) {
        FILE *to = strcmp(argv[1], "--help") ? stderr : stdout;
        fputs("usage: nvlx_info\nPrints the library's version and the backends that can run here.\n", to);
        return to == stderr ? 2 : 0;
    }
    nvlx_set_log(NVLX_LOG_ERROR, NULL, NULL);
    printf("libnvlxfer %s\n", nvlx_version());
    show("cuda", NVLX_BACKEND_CUDA);
    show("host", NVLX_BACKEND_HOST);
    return show_choice();
}
