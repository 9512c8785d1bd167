/* nvlx_ping: visits an engine that serves, as a stranger does. Uses only the public header.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/output.h"
#include "ping/ping.h"

static const char help[] =
    "usage: nvlx_ping [OPTION...] ADDRESS\n"
    "Connects to the engine that serves at ADDRESS, the path of a socket or \"@name\". Tells who it is, what it "
    "shares, how\n"
    "long a small read takes, and how fast each mechanism reads into memory of this process. NVLink's counters tell "
    "the\n"
    "path, where NVML has them. Nothing is written to the peer, unless --write says so.\n"
    "\n"
    "  --region NAME    reads this region; default: the largest that grants reading\n"
    "  --write NAME     also writes this region: with the bytes that were just read there\n"
    "  --bytes N        of a transfer, at most; K, M or G may follow. Default: 64M\n"
    "  --gpu N          of this process; default: 0\n"
    "  --timeout S      seconds to wait for a server; default: 5\n"
    "  --list           tells who and what it is, and measures nothing\n"
    "  --stats          writes only its counts, as Prometheus reads them, where it allows that (serve_options.stats)\n"
    "  --json           as one JSON object\n"
    "  --version        the library's version\n"
    "  -h, --help       this text\n"
    "\n"
    "exit code: 0; 1 if the engine cannot be reached; 2 for a wrong argument; 3 if its memory cannot be moved,\n"
    "           or its counts are not told;"
    " 4 if bytes are not those of the digest that it told;\n"
    "           5 if no engine can be made here; 6 if stdout cannot be written\n";

enum { REGION = 256, WRITE, BYTES, GPU, TIMEOUT, LIST, STATS, JSON, VERSION };

static const struct option options[] = {{"region", required_argument, NULL, REGION},
                                        {"write", required_argument, NULL, WRITE},
                                        {"bytes", required_argument, NULL, BYTES},
                                        {"gpu", required_argument, NULL, GPU},
                                        {"timeout", required_argument, NULL, TIMEOUT},
                                        {"list", no_argument, NULL, LIST},
                                        {"stats", no_argument, NULL, STATS},
                                        {"json", no_argument, NULL, JSON},
                                        {"version", no_argument, NULL, VERSION},
                                        {"help", no_argument, NULL, 'h'},
                                        {0}};

#define STATS_NS INT64_C(1000000000) /* to answer, at least: --timeout is to wait for a server */

enum ask { ASK_ALL, ASK_LIST, ASK_STATS };

static int refuse(const char *what, const char *argument) {
    fprintf(stderr, "nvlx_ping: %s '%s'\ntry: nvlx_ping --help\n", what, argument);
    return PING_USAGE;
}

/* A whole number, perhaps with a unit, from `least` to `most`. */
static bool take_number(const char *text, bool unit, uint64_t least, uint64_t most, uint64_t *number) {
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (text[0] < '0' || text[0] > '9' || errno)
        return false;
    if (unit && (*end == 'K' || *end == 'M' || *end == 'G'))
        shift = *end == 'K' ? 10 : *end == 'M' ? 20 : 30, end++;
    if (*end || value > most >> shift || value << shift < least)
        return false;
    *number = value << shift;
    return true;
}

/* Goes on if -1 is returned, else this is the exit code. */
static int take_option(int option, struct ping *ping, enum ask *ask) {
    uint64_t number = 0;
    switch (option) {
    case REGION:
        ping->region = optarg;
        return -1;
    case WRITE:
        ping->write = optarg;
        return -1;
    case BYTES:
        return take_number(optarg, true, 1, UINT64_MAX, &ping->bytes) ? -1 : refuse("--bytes cannot be", optarg);
    case GPU:
        if (!take_number(optarg, false, 0, 1023, &number))
            return refuse("--gpu cannot be", optarg);
        ping->gpu = (int)number;
        return -1;
    case TIMEOUT:
        if (!take_number(optarg, false, 0, 1000000, &number))
            return refuse("--timeout cannot be", optarg);
        ping->timeout_ns = (int64_t)number * 1000000000;
        return -1;
    case LIST:
        *ask = ASK_LIST;
        return -1;
    case STATS:
        *ask = ASK_STATS;
        return -1;
    case JSON:
        ping->json = true;
        return -1;
    case VERSION:
        printf("nvlx_ping of libnvlxfer %s\n", nvlx_version());
        return PING_DONE;
    case 'h':
        fputs(help, stdout);
        return PING_DONE;
    default: /* getopt_long has named it */
        fputs("try: nvlx_ping --help\n", stderr);
        return PING_USAGE;
    }
}

static int tell(struct ping *ping, enum ask ask, struct links *links) {
    struct report report;
    int code = PING_DONE;
    report_begin(&report, ping->json);
    ping_tell_peer(ping, &report);
    ping_tell_regions(ping, &report);
    if (ask == ASK_ALL && !(code = ping_choose(ping)))
        code = ping_measure(ping, links, &report);
    report_end(&report);
    return code;
}

static int tell_stats(struct ping *ping) {
    char *text;
    size_t length;
    int code = nvlx_peer_stats(ping->peer, ping->timeout_ns > STATS_NS ? ping->timeout_ns : STATS_NS, &text, &length);
    if (code)
        return ping_fail("--stats", code), PING_UNREAD;
    fwrite(text, 1, length, stdout);
    nvlx_text_free(text);
    return PING_DONE;
}

static int visit(struct ping *ping, enum ask ask) {
    struct links links = {.to = -1, .from = -1};
    if (ask == ASK_ALL)
        links_start(&links, ping->gpu);
    int code = ping_connect(ping);
    if (!code)
        code = ask == ASK_STATS ? tell_stats(ping) : tell(ping, ask, &links);
    links_end(&links);
    if (ping->engine)
        nvlx_engine_destroy(ping->engine);
    return code;
}

int main(int argc, char **argv) {
    struct ping ping = {.bytes = UINT64_C(64) << 20, .timeout_ns = INT64_C(5000000000)};
    enum ask ask = ASK_ALL;
    int option, code;
    output_watch("nvlx_ping", PING_UNWRITTEN);
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1)
        if ((code = take_option(option, &ping, &ask)) >= 0)
            return code;
    if (optind == argc)
        return refuse("no address is given, such as", "@name");
    if (optind + 1 < argc)
        return refuse("unexpected argument", argv[optind + 1]);
    ping.address = argv[optind];
    nvlx_set_log(NVLX_LOG_ERROR, NULL, NULL);
    return visit(&ping, ask);
}
