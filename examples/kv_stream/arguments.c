/* The arguments of kv_stream.c. SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "side.h"

struct kv_arguments kv_arguments;

static void usage(FILE *to) {
    fputs("usage: kv_stream [OPTION...]\n"
          "  --layers N --blocks N --block-kib N   of the request's cache (GPU: 64, 128, 256; host: 8, 20, 8)\n"
          "  --run N          blocks whose ids follow each other on both sides (32)\n"
          "  --compute US     how long prefill computes a layer (200)\n"
          "  --rounds N       (GPU: 20; host: 3)\n"
          "  --mechanism M    engine (the default), kernel or auto: what copies\n"
          "  --sms N          SMs that copy, of those that compute, with kernels (0: the library's default)\n"
          "  --hidden P       fail if less than P percent of the transfer is hidden\n"
          "  --graphs         both sides capture a pass in a CUDA graph, and launch it again and again\n"
          "  --no-wait        decode does not wait: the words are wrong\n"
          "environment: NVLX_BACKEND=cuda|host\n",
          to);
}

static void wrong_argument(const char *given, const char *what) {
    fprintf(stderr, "kv_stream: '%s' %s\n", given, what);
    usage(stderr);
    exit(1);
}

static double number(const char *given, double least, double most) {
    char *rest;
    const double value = strtod(given, &rest);
    if (rest == given || *rest || !(value >= least && value <= most)) {
        char what[80];
        snprintf(what, sizeof what, "is no number from %g to %g", least, most);
        wrong_argument(given, what);
    }
    return value;
}

static uint32_t mechanism(const char *given) {
    if (!strcmp(given, "engine"))
        return NVLX_MECHANISM_COPY_ENGINE;
    if (!strcmp(given, "kernel"))
        return NVLX_MECHANISM_KERNEL;
    if (strcmp(given, "auto"))
        wrong_argument(given, "is no mechanism: these are engine, kernel and auto");
    return NVLX_MECHANISM_AUTO;
}

void kv_read_arguments(int argc, char **argv) {
    static const struct option options[] = {{"layers", required_argument, NULL, 'l'},
                                            {"blocks", required_argument, NULL, 'b'},
                                            {"block-kib", required_argument, NULL, 'k'},
                                            {"run", required_argument, NULL, 'r'},
                                            {"compute", required_argument, NULL, 'c'},
                                            {"rounds", required_argument, NULL, 'n'},
                                            {"mechanism", required_argument, NULL, 'm'},
                                            {"sms", required_argument, NULL, 's'},
                                            {"hidden", required_argument, NULL, 'h'},
                                            {"graphs", no_argument, NULL, 'g'},
                                            {"no-wait", no_argument, NULL, 'w'},
                                            {"help", no_argument, NULL, 'u'},
                                            {0}};
    int option;
    kv_arguments.run = 32;
    kv_arguments.compute_us = 200;
    kv_arguments.mechanism = NVLX_MECHANISM_COPY_ENGINE;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'l':
            kv_arguments.layers = (int)number(optarg, 1, KV_LAYERS_MAX);
            break;
        case 'b':
            kv_arguments.blocks = (int)number(optarg, 1, KV_BLOCKS_MAX);
            break;
        case 'k':
            kv_arguments.kib = (int)number(optarg, 1, 4096);
            break;
        case 'r':
            kv_arguments.run = (int)number(optarg, 1, KV_BLOCKS_MAX);
            break;
        case 'c':
            kv_arguments.compute_us = number(optarg, 1, 1e6);
            break;
        case 'n':
            kv_arguments.rounds = (int)number(optarg, 1, KV_ROUNDS_MAX);
            break;
        case 'm':
            kv_arguments.mechanism = mechanism(optarg);
            break;
        case 's':
            kv_arguments.sms = (int)number(optarg, 0, 1024);
            break;
        case 'h':
            kv_arguments.hidden = number(optarg, 0, 100);
            break;
        case 'g':
            kv_arguments.graphs = true;
            break;
        case 'w':
            kv_arguments.no_wait = true;
            break;
        case 'u':
            usage(stdout);
            exit(0);
        default:
            usage(stderr);
            exit(1);
        }
    }
    if (optind < argc)
        wrong_argument(argv[optind], "is no option");
}
