/* Runs the checks, each in a process of its own, and tells what they found. SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor.h"

#include <errno.h>
#include <nvlxfer.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/report.h"

static const struct check *const chapters[] = {checks_of_gpus,   checks_of_links,   checks_of_machine,
                                               checks_of_limits, checks_of_sharing, checks_of_neighbours,
                                               checks_of_peer};
static const char *const verdict_texts[] = {"ok", "risk", "FAULT", "skipped"};
static const char *const verdict_words[] = {"ok", "risk", "fault", "skipped"};

void found(struct finding *finding, enum verdict verdict, const char *format, ...) {
    va_list arguments;
    finding->verdict = verdict;
    va_start(arguments, format);
    vsnprintf(finding->came, sizeof finding->came, format, arguments);
    va_end(arguments);
}

void do_this(struct finding *finding, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(finding->remedy, sizeof finding->remedy, format, arguments);
    va_end(arguments);
}

/* Behind what is there; what does not fit is cut. */
static void append(char *text, size_t size, const char *more) {
    const size_t length = strlen(text);
    snprintf(text + length, size - length, "%s%s", length ? "; " : "", more);
}

void fault_also(struct finding *finding, const char *remedy, const char *format, ...) {
    char came[sizeof finding->came];
    va_list arguments;
    finding->verdict = VERDICT_FAULT;
    va_start(arguments, format);
    vsnprintf(came, sizeof came, format, arguments);
    va_end(arguments);
    append(finding->came, sizeof finding->came, came);
    append(finding->remedy, sizeof finding->remedy, remedy);
}

/* ---- One check ------------------------------------------------------------------------------------------ */

static void run_here(const struct doctor *doctor, const struct check *check, int to) {
    struct finding finding = {.verdict = VERDICT_OK};
    setpgid(0, 0); /* so that all that it starts can be ended with it */
    nvlx_set_log(NVLX_LOG_ERROR, NULL, NULL);
    check->run(doctor, &finding);
    ssize_t written = write(to, &finding, sizeof finding); /* less than a pipe holds */
    _exit(written == (ssize_t)sizeof finding ? 0 : 1);
}

static void await(pid_t child, int from, struct finding *finding) {
    char died[128];
    if (child_await(child, from, finding, sizeof *finding, died, sizeof died))
        return;
    memset(finding, 0, sizeof *finding);
    found(finding, VERDICT_FAULT, "%s", died);
    do_this(finding, "look at the kernel's log (dmesg) for messages of the driver (Xid), and report this");
}

static int run_check(const struct doctor *doctor, const struct check *check, struct finding *finding) {
    int ends[2];
    *finding = (struct finding){.verdict = VERDICT_SKIPPED};
    if (check->cuda && doctor->host) {
        found(finding, VERDICT_SKIPPED, "NVLX_BACKEND is host: no GPU is used");
        return 0;
    }
    if (pipe(ends))
        return -1;
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        run_here(doctor, check, ends[1]);
    }
    close(ends[1]);
    if (child > 0) {
        setpgid(child, child);
        await(child, ends[0], finding);
    }
    close(ends[0]);
    return child < 0 ? -1 : 0;
}

/* ---- All of them ---------------------------------------------------------------------------------------- */

static bool is_listed(const char *list, const char *name) {
    const size_t length = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, name, length) && (at[length] == ',' || at[length] == '\0'))
            return true;
    return false;
}

static const struct check *check_at(size_t index) {
    for (size_t i = 0; i < sizeof chapters / sizeof chapters[0]; i++)
        for (const struct check *check = chapters[i]; check->name; check++)
            if (index-- == 0)
                return check;
    return NULL;
}

/* The check whose name stands there, up to a comma or the end; or NULL. */
static const struct check *find_check(const char *name) {
    const size_t length = strcspn(name, ",");
    const struct check *check;
    for (size_t i = 0; (check = check_at(i)); i++)
        if (strlen(check->name) == length && !strncmp(check->name, name, length))
            return check;
    return NULL;
}

static bool names_are_known(const char *only) {
    for (const char *at = only; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        if (find_check(at))
            continue;
        fprintf(stderr, "nvlx_info: there is no check '%.*s': see nvlx_info --checks\n", (int)strcspn(at, ","), at);
        return false;
    }
    return true;
}

/* A text in lines below its word, none longer than 100 characters where a blank lets it. */
static void print_text(const char *word, const char *text) {
    const size_t width = 100;
    for (bool first = true; *text; first = false) {
        size_t length = strlen(text);
        if (length > width) {
            length = width;
            while (length && text[length] != ' ')
                length--;
            length = length ? length : width;
        }
        printf("    %-6s %.*s\n", first ? word : "", (int)length, text);
        text += length + (text[length] == ' ' ? 1 : 0);
    }
}

static void print_finding(const struct check *check, const struct finding *finding) {
    if (finding->verdict == VERDICT_SKIPPED) {
        printf("%-8s %s: %s\n", verdict_texts[finding->verdict], check->name, finding->came);
        return;
    }
    printf("%-8s %s\n", verdict_texts[finding->verdict], check->name);
    print_text("tried", check->tried);
    print_text("came", finding->came);
    print_text("do", finding->remedy);
}

static void report_finding(struct report *report, const struct check *check, const struct finding *finding) {
    report_open(report, NULL);
    report_text(report, "check", "%s", check->name);
    report_text(report, "verdict", "%s", verdict_words[finding->verdict]);
    report_text(report, "tried", "%s", check->tried);
    report_text(report, "came", "%s", finding->came);
    report_text(report, "remedy", "%s", finding->remedy);
    report_close(report);
}

bool looks_at(const struct doctor *doctor, const char *check) {
    return !doctor->only || is_listed(doctor->only, check);
}

static int run_all(const struct doctor *doctor, struct report *report, unsigned counts[4]) {
    const struct check *check;
    for (size_t i = 0; (check = check_at(i)); i++) {
        struct finding finding;
        if (!looks_at(doctor, check->name))
            continue;
        if (run_check(doctor, check, &finding)) {
            fprintf(stderr, "nvlx_info: no process for the check %s: %s\n", check->name, strerror(errno));
            return -1;
        }
        counts[finding.verdict]++;
        if (doctor->json)
            report_finding(report, check, &finding);
        else
            print_finding(check, &finding);
    }
    return 0;
}

int doctor_run(struct doctor *doctor) {
    unsigned counts[4] = {0};
    struct report report;
    if (!names_are_known(doctor->only))
        return 2;
    if (!doctor->host && !(doctor->facts = facts_ask())) {
        fprintf(stderr, "nvlx_info: no process for the driver: %s\n", strerror(errno));
        return 3;
    }
    if (doctor->json) {
        report_begin(&report, true);
        report_open_list(&report, "checks");
    }
    if (run_all(doctor, &report, counts))
        return 3;
    if (doctor->json) {
        report_close(&report);
        report_number(&report, "faults", counts[VERDICT_FAULT]);
        report_number(&report, "risks", counts[VERDICT_RISK]);
        report_end(&report);
    } else {
        printf("%u fault%s, %u risk%s, %u ok, %u skipped\n", counts[VERDICT_FAULT],
               counts[VERDICT_FAULT] == 1 ? "" : "s", counts[VERDICT_RISK], counts[VERDICT_RISK] == 1 ? "" : "s",
               counts[VERDICT_OK], counts[VERDICT_SKIPPED]);
    }
    return counts[VERDICT_FAULT] ? 1 : 0;
}

void doctor_list(void) {
    const struct check *check;
    for (size_t i = 0; (check = check_at(i)); i++)
        printf("%-18s %s\n", check->name, check->tried);
}
