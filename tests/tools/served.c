/* An engine that serves, for ping.sh: a region of each kind of access. It prints "ready". To each line it answers how
 * many bytes of its memory have changed; to "spoil" it first changes one, and tells nobody. It ends with its input.
 * With a second argument it grants nobody to read, and does not tell its counts. SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvlxfer.h"

#define REGIONS 3

static const struct {
    const char *name;
    size_t length;
    uint32_t flags, access;
} shared[REGIONS] = {{"weights", 1 << 20, 0, NVLX_ACCESS_READ},
                     {"cache", 2 << 20, NVLX_ALLOC_VMM, NVLX_ACCESS_READ_WRITE},
                     {"inbox", 4096, 0, NVLX_ACCESS_WRITE}};

static struct nvlx_engine *engine;
static unsigned char *memory[REGIONS], bytes[2 << 20];

static void check(int code, const char *what) {
    if (!code)
        return;
    printf("%s: %s\n", what, nvlx_last_error());
    exit(1);
}

static unsigned char byte_of(size_t region, size_t i) {
    return (unsigned char)(region * 50 + i * 3 + i / 256);
}

static void share(size_t region, bool readable) {
    struct nvlx_alloc_options alloc;
    struct nvlx_region_options options;
    struct nvlx_region *made;
    const size_t length = shared[region].length;
    void *address;
    nvlx_alloc_options_init(&alloc);
    alloc.flags = shared[region].flags;
    nvlx_region_options_init(&options);
    options.name = shared[region].name;
    options.access = readable ? shared[region].access : NVLX_ACCESS_WRITE;
    check(nvlx_alloc(engine, 0, length, &alloc, &address), "nvlx_alloc");
    memory[region] = address;
    for (size_t i = 0; i < length; i++)
        bytes[i] = byte_of(region, i);
    check(nvlx_memcpy(engine, address, bytes, length), "nvlx_memcpy");
    check(nvlx_register(engine, address, length, &options, &made), "nvlx_register");
    if (region == 0)
        check(nvlx_region_set_digest(made, NULL), "nvlx_region_set_digest");
}

static size_t count_changed(void) {
    size_t changed = 0;
    for (size_t region = 0; region < REGIONS; region++) {
        check(nvlx_memcpy(engine, bytes, memory[region], shared[region].length), "nvlx_memcpy");
        for (size_t i = 0; i < shared[region].length; i++)
            changed += bytes[i] != byte_of(region, i);
    }
    return changed;
}

int main(int argc, char **argv) {
    static const int gpu = 0;
    struct nvlx_config config;
    struct nvlx_serve_options options;
    char line[32];
    nvlx_config_init(&config);
    nvlx_serve_options_init(&options);
    options.stats = argc < 3;
    config.gpus = &gpu;
    config.gpu_count = 1;
    check(nvlx_engine_create(&config, &engine), "nvlx_engine_create");
    for (size_t region = 0; region < REGIONS; region++)
        share(region, argc < 3);
    check(nvlx_serve(engine, argc > 1 ? argv[1] : "", &options), "nvlx_serve");
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "spoil\n"))
            check(nvlx_memcpy(engine, memory[0] + 77, "?", 1), "nvlx_memcpy");
        printf("%zu bytes changed\n", count_changed());
    }
    return nvlx_engine_destroy(engine) ? 1 : 0;
}
