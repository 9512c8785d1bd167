/* Compiles the kernels of a .cu file with NVRTC, the compiler of a CUDA release as a library: what can be had of it
 * without the release's toolkit. Usage: nvrtc FILE CUBIN OPTION...
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * NVRTC knows only device code, so the file is read up to the end of its first unnamed namespace: its host functions
 * are below. */
#include <nvrtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const header_names[] = {"cuda_runtime_api.h", "stdbool.h", "stddef.h", "string.h", "stdint.h"};
static const char *const headers[] = {"", "", "", "",
                                      "typedef unsigned char uint8_t;\ntypedef unsigned short uint16_t;\n"
                                      "typedef unsigned int uint32_t;\ntypedef unsigned long uint64_t;\n"
                                      "typedef int int32_t;\ntypedef long int64_t;\ntypedef unsigned long "
                                      "uintptr_t;\n#define UINT64_C(value) value##UL\n"};

static void check(nvrtcResult result, const char *what) {
    if (result) {
        fprintf(stderr, "nvrtc: %s: %s\n", what, nvrtcGetErrorString(result));
        exit(1);
    }
}

static const char *read_device_code(const char *name) {
    static const char begin[] = "\nnamespace {\n", end[] = "\n} // namespace\n";
    static char text[1 << 20];
    FILE *file = fopen(name, "r");
    size_t length = file ? fread(text, 1, sizeof text - 1, file) : 0;
    char *first = length ? strstr(text, begin) : NULL, *last = first ? strstr(first, end) : NULL;
    if (!last) {
        fprintf(stderr, "nvrtc: cannot find the device code of %s\n", name);
        exit(1);
    }
    fclose(file);
    memset(first + 1, ' ', strlen(begin) - 2);
    last[1] = '\0';
    return text;
}

static void show_log(nvrtcProgram program) {
    size_t size;
    check(nvrtcGetProgramLogSize(program, &size), "log");
    char *log = calloc(1, size + 1);
    if (log && !nvrtcGetProgramLog(program, log))
        fputs(log, stderr);
    free(log);
}

static void write_machine_code(nvrtcProgram program, const char *name) {
    size_t size;
    check(nvrtcGetCUBINSize(program, &size), "machine code");
    char *code = malloc(size);
    FILE *file = fopen(name, "w");
    if (!code || !file || nvrtcGetCUBIN(program, code) || fwrite(code, 1, size, file) != size || fclose(file)) {
        fprintf(stderr, "nvrtc: cannot write %s\n", name);
        exit(1);
    }
    free(code);
}

int main(int argc, char **argv) {
    nvrtcProgram program;
    int major, minor;
    if (argc < 3)
        return 2;
    check(nvrtcVersion(&major, &minor), "version");
    check(nvrtcCreateProgram(&program, read_device_code(argv[1]), argv[1], 5, headers, header_names), argv[1]);
    nvrtcResult result = nvrtcCompileProgram(program, argc - 3, (const char *const *)argv + 3);
    show_log(program);
    check(result, argv[1]);
    write_machine_code(program, argv[2]);
    check(nvrtcDestroyProgram(&program), "end");
    printf("%s is compiled by NVRTC %d.%d\n", argv[1], major, minor);
    return 0;
}
