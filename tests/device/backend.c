/* Which backend a program gets that asks for none, and what it is told: one line for each message of the log, and for
 * each answer. For backend.sh. SPDX-License-Identifier: Apache-2.0 */
#include <stdint.h>
#include <stdio.h>

#include "nvlxfer.h"

static void show_message(void *context, int level, const char *message) {
    (void)context;
    printf("log %d: %s\n", level, message);
}

/* Without an argument. With one, the log goes where the environment says. */
static void show_log(int argc, int level) {
    if (argc == 1)
        nvlx_set_log(level, show_message, NULL);
}

int main(int argc, char **argv) {
    struct nvlx_engine *engines[2];
    struct nvlx_region *none;
    int gpus;
    (void)argv;
    show_log(argc, NVLX_LOG_WARNING);
    for (int i = 0; i < 2; i++) {
        if (nvlx_gpu_count(NVLX_BACKEND_AUTO, &gpus) || nvlx_engine_create(NULL, &engines[i])) {
            printf("no engine: %s\n", nvlx_last_error());
            return 1;
        }
        printf("backend %s\n", nvlx_backend_name(engines[i]));
        printf("last error: \"%s\"\n", nvlx_last_error());
    }
    show_log(argc, NVLX_LOG_ERROR);
    if (nvlx_register(engines[0], (const void *)(uintptr_t)0x7f2000000000, 4096, NULL, &none))
        printf("a foreign pointer: %s\n", nvlx_last_error());
    return nvlx_engine_destroy(engines[0]) || nvlx_engine_destroy(engines[1]);
}
