/* nvlx_info: the library itself, its limits, the environment. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <nvlxfer.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "info/info.h"
#include "info/variables.h"

/* Which words of nvlx_build_info are limits. */
static bool is_limit(const char *key) {
    static const char *const limits[] = {"max_requests", "list_memory",  "verified",         "max_connections",
                                         "regions",      "segments",     "descriptor_bytes", "message_bytes",
                                         "name_bytes",   "address_bytes"};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (!strcmp(key, limits[i]))
            return true;
    return false;
}

static void tell_build(struct report *report, bool limits) {
    char *const text = strdup(nvlx_build_info()), *rest = text, *word;
    while ((word = strsep(&rest, " "))) {
        char *value = strchr(word, '=');
        if (!value)
            continue;
        *value++ = '\0';
        if (is_limit(word) != limits)
            continue;
        if (limits)
            report_number(report, word, strtoull(value, NULL, 10));
        else
            report_text(report, word, "%s", value);
    }
    free(text);
}

static const char *library_path(void) {
    static char path[4096];
    const char *(*function)(void) = nvlx_version;
    Dl_info info;
    void *address;
    memcpy(&address, &function, sizeof address);
    if (!dladdr(address, &info) || !info.dli_fname)
        return "unknown";
    return realpath(info.dli_fname, path) ? path : info.dli_fname;
}

void info_library(struct report *report) {
    report_text(report, "version", "%s", nvlx_version());
    report_text(report, "library", "%s", library_path());
    report_open(report, "build");
    tell_build(report, false);
    report_close(report);
}

static void tell_process_limit(struct report *report, const char *key, int resource) {
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)resource, &limit))
        report_nothing(report, key);
    else if (limit.rlim_cur == RLIM_INFINITY)
        report_text(report, key, "unlimited");
    else
        report_number(report, key, limit.rlim_cur);
}

void info_limits(struct report *report) {
    report_open(report, "limits");
    tell_build(report, true);
    tell_process_limit(report, "open_files", RLIMIT_NOFILE);
    tell_process_limit(report, "locked_memory", RLIMIT_MEMLOCK);
    tell_process_limit(report, "address_space", RLIMIT_AS);
    tell_process_limit(report, "processes", RLIMIT_NPROC);
    report_close(report);
}

static void tell_variable(struct report *report, const struct variable *variable, const char *value) {
    report_open(report, NULL);
    report_text(report, "name", "%s", variable->name);
    if (value)
        report_text(report, "value", "%s", value);
    else
        report_nothing(report, "value");
    report_text(report, "meaning", "%s", variable->meaning);
    report_text(report, "read_by", "%s", reader_text(variable->reader));
    report_close(report);
}

void info_environment(struct report *report) {
    report_open_list(report, "environment");
    for (size_t i = 0; i < variable_count; i++) {
        const char *value = getenv(variables[i].name);
        if (report->json)
            tell_variable(report, &variables[i], value);
        else
            report_text(report, NULL, "%s%s%s (%s; read by %s)", variables[i].name, value ? "=" : " is not set",
                        value ? value : "", variables[i].meaning, reader_text(variables[i].reader));
    }
    report_close(report);
}
