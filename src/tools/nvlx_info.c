/* nvlx_info: what libnvlxfer is and can do on this machine. Uses only the public header.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#include <getopt.h>
#include <nvlxfer.h>
#include <stdlib.h>
#include <string.h>

#include "common/output.h"
#include "doctor/doctor.h"
#include "info/info.h"
#include "info/nixl.h"

static const char help[] =
    "usage: nvlx_info [--json]\n"
    "       nvlx_info --doctor [--peer ADDRESS] [--folder FOLDER] [--check NAME[,NAME...]] [--json]\n"
    "       nvlx_info --nixl [FOLDER...] [--json]\n"
    "\n"
    "Tells about the library, the driver, GPUs and their links, backends, which kinds of memory can be shared on GPU "
    "0,\n"
    "limits, and environment variables. With --doctor it tries what can be wrong, and tells what to do.\n"
    "With --nixl it tells where NIXL finds the plugin NVLX, and why not.\n"
    "\n"
    "  --doctor           tries each thing that can be wrong, with processes of its own\n"
    "  --peer ADDRESS     with --doctor: also the engine that serves at ADDRESS\n"
    "  --folder FOLDER    with --doctor: where the sockets of engines shall be; default $TMPDIR, else /tmp\n"
    "  --check NAMES      with --doctor: only these checks, with commas between them\n"
    "  --checks           lists all checks\n"
    "  --nixl             looks for NIXL in the packages of the Python in use, or in each FOLDER: of packages, of an\n"
    "                     environment, of libnixl.so, of plugins. Tries to load the plugin from where NIXL looks\n"
    "  --json             as one JSON object\n"
    "  --version          the library's version\n"
    "  -h, --help         this text\n"
    "\n"
    "exit code: 0; 1 if no backend runs, with --doctor if there is a fault, with --nixl if NIXL does not load the "
    "plugin;\n"
    "           2 for a wrong argument; 3 if the doctor itself cannot work; 4 if stdout cannot be written\n";

enum { DOCTOR = 256, PEER, FOLDER, CHECK, CHECKS, NIXL, JSON, VERSION };

static const struct option options[] = {{"doctor", no_argument, NULL, DOCTOR},
                                        {"peer", required_argument, NULL, PEER},
                                        {"folder", required_argument, NULL, FOLDER},
                                        {"check", required_argument, NULL, CHECK},
                                        {"checks", no_argument, NULL, CHECKS},
                                        {"nixl", no_argument, NULL, NIXL},
                                        {"json", no_argument, NULL, JSON},
                                        {"version", no_argument, NULL, VERSION},
                                        {"help", no_argument, NULL, 'h'},
                                        {0}};

static int tell_all(bool json) {
    static struct driver driver;
    static struct nvml nvml;
    struct report report;
    nvlx_set_log(NVLX_LOG_ERROR, NULL, NULL);
    nvml_look(&nvml);
    driver_look(&driver);
    report_begin(&report, json);
    info_library(&report);
    info_driver(&report, &driver, &nvml);
    info_gpus(&report, &driver, &nvml);
    const int failed = info_backends(&report);
    info_limits(&report);
    info_environment(&report);
    report_end(&report);
    nvml_close(&nvml);
    return failed;
}

static int refuse(const char *what, const char *argument) {
    fprintf(stderr, "nvlx_info: %s '%s'\ntry: nvlx_info --help\n", what, argument);
    return 2;
}

struct asked {
    bool doctor, nixl;
};

/* Goes on if -1 is returned, else this is the exit code. */
static int take_option(int option, struct doctor *doctor, struct asked *asked) {
    switch (option) {
    case DOCTOR:
        asked->doctor = true;
        return -1;
    case NIXL:
        asked->nixl = true;
        return -1;
    case PEER:
        doctor->peer = optarg;
        return -1;
    case FOLDER:
        doctor->folder = optarg;
        return *optarg ? -1 : refuse("--folder cannot be", optarg);
    case CHECK:
        doctor->only = optarg;
        return -1;
    case JSON:
        doctor->json = true;
        return -1;
    case CHECKS:
        doctor_list();
        return 0;
    case VERSION:
        printf("nvlx_info of libnvlxfer %s\n", nvlx_version());
        return 0;
    case 'h':
        fputs(help, stdout);
        return 0;
    default: /* getopt_long has named it */
        fputs("try: nvlx_info --help\n", stderr);
        return 2;
    }
}

int main(int argc, char **argv) {
    const char *folder = getenv("TMPDIR"), *backend = getenv("NVLX_BACKEND");
    struct doctor doctor = {.host = backend && !strcmp(backend, "host")};
    struct asked asked = {.doctor = false};
    int option, code;
    output_watch("nvlx_info", 4);
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1)
        if ((code = take_option(option, &doctor, &asked)) >= 0)
            return code;
    if (asked.nixl && asked.doctor)
        return refuse("--nixl cannot be with", "--doctor");
    if (optind < argc && !asked.nixl)
        return refuse("unexpected argument", argv[optind]);
    if (!asked.doctor && (doctor.peer || doctor.folder || doctor.only))
        return refuse("--peer, --folder and --check need the option", "--doctor");
    if (!asked.doctor)
        return asked.nixl ? info_nixl(argv + optind, (size_t)(argc - optind), doctor.json) : tell_all(doctor.json);
    if (!doctor.folder)
        doctor.folder = folder && *folder ? folder : "/tmp";
    return doctor_run(&doctor);
}
