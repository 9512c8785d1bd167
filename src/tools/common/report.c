/* Writes what a tool tells, for people or as JSON. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "common/report.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* How many bytes the UTF-8 character has that begins there, by RFC 3629; 0: none does. */
static size_t character_length(const unsigned char *c) {
    const size_t length = c[0] < 0x80 ? 1 : c[0] < 0xc2 ? 0 : c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : c[0] < 0xf5 ? 4 : 0;
    const unsigned char least = c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80;
    const unsigned char most = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
    if (length > 1 && (c[1] < least || c[1] > most))
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

/* As a JSON string, which is UTF-8 (RFC 8259): each byte that is part of no character is U+FFFD. */
static void quote(FILE *to, const char *text) {
    const unsigned char *c = (const unsigned char *)text;
    fputc('"', to);
    while (*c) {
        const size_t length = character_length(c);
        if (!length)
            fputs("\\ufffd", to);
        else if (*c == '"' || *c == '\\')
            fprintf(to, "\\%c", *c);
        else if (*c < 0x20 || *c == 0x7f)
            fprintf(to, "\\u%04x", *c);
        else
            fwrite(c, 1, length, to);
        c += length ? length : 1;
    }
    fputc('"', to);
}

/* The first entry of an object in a list stands behind its dash. */
static void indent(const struct report *report) {
    const int above = report->depth - 1;
    const bool dash = above >= 0 && report->level[above].list && !report->level[report->depth].begun;
    for (int i = 0; i < 2 * report->depth - (dash ? 2 : 0); i++)
        fputc(' ', report->to);
    if (dash || (report->level[report->depth].list))
        fputs("- ", report->to);
}

static void begin_entry(struct report *report, const char *key) {
    FILE *to = report->to;
    if (report->opening)
        fputc('\n', to);
    report->opening = false;
    if (report->json) {
        fprintf(to, "%s\n%*s", report->level[report->depth].begun ? "," : "", 2 * report->depth + 2, "");
        if (key)
            quote(to, key);
        fputs(key ? ": " : "", to);
    } else {
        indent(report);
        for (const char *c = key ? key : ""; *c; c++)
            fputc(*c == '_' ? ' ' : *c, to);
        fputs(key ? ":" : "", to);
    }
    report->level[report->depth].begun = true;
}

static void open_level(struct report *report, const char *key, bool list) {
    if (report->json || key) {
        begin_entry(report, key);
        fputs(report->json ? (list ? "[" : "{") : "", report->to);
        report->opening = !report->json;
    }
    report->level[report->depth].begun = true;
    report->depth++;
    report->level[report->depth].list = list;
    report->level[report->depth].begun = false;
}

void report_begin(struct report *report, bool json) {
    *report = (struct report){.to = stdout, .json = json};
    if (json)
        fputc('{', report->to);
}

void report_end(struct report *report) {
    if (report->json)
        fputs("\n}\n", report->to);
}

void report_open(struct report *report, const char *key) {
    open_level(report, key, false);
}

void report_open_list(struct report *report, const char *key) {
    open_level(report, key, true);
}

void report_close(struct report *report) {
    const bool list = report->level[report->depth].list, begun = report->level[report->depth].begun;
    report->depth--;
    if (report->opening)
        fputs(" none\n", report->to);
    report->opening = false;
    if (!report->json)
        return;
    if (begun)
        fprintf(report->to, "\n%*s", 2 * report->depth + 2, "");
    fputc(list ? ']' : '}', report->to);
}

static void end_line(struct report *report) {
    if (!report->json)
        fputc('\n', report->to);
}

/* Between a key and its value. */
static void separate(struct report *report, const char *key) {
    if (!report->json && key)
        fputc(' ', report->to);
}

static void quote_format(FILE *to, const char *format, va_list arguments) {
    char *text = NULL;
    if (vasprintf(&text, format, arguments) < 0)
        text = NULL;
    if (text)
        quote(to, text);
    else
        fputs("null", to); /* no memory */
    free(text);
}

void report_text(struct report *report, const char *key, const char *format, ...) {
    va_list arguments;
    begin_entry(report, key);
    separate(report, key);
    va_start(arguments, format);
    if (report->json)
        quote_format(report->to, format, arguments);
    else
        vfprintf(report->to, format, arguments);
    va_end(arguments);
    end_line(report);
}

void report_number(struct report *report, const char *key, uint64_t value) {
    begin_entry(report, key);
    separate(report, key);
    fprintf(report->to, "%" PRIu64, value);
    end_line(report);
}

void report_bytes(struct report *report, const char *key, uint64_t value) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double shown = (double)value;
    size_t unit = 0;
    if (report->json) {
        report_number(report, key, value);
        return;
    }
    for (; shown >= 1024 && unit + 1 < sizeof units / sizeof units[0]; unit++)
        shown /= 1024;
    report_text(report, key, "%.*f %s", shown < 1000 && shown != (double)(uint64_t)shown ? 1 : 0, shown, units[unit]);
}

void report_real(struct report *report, const char *key, double value) {
    begin_entry(report, key);
    separate(report, key);
    fprintf(report->to, "%.6g", value);
    end_line(report);
}

void report_truth(struct report *report, const char *key, bool value) {
    begin_entry(report, key);
    separate(report, key);
    if (report->json)
        fputs(value ? "true" : "false", report->to);
    else
        fputs(value ? "yes" : "no", report->to);
    end_line(report);
}

void report_nothing(struct report *report, const char *key) {
    begin_entry(report, key);
    separate(report, key);
    fputs(report->json ? "null" : "-", report->to);
    end_line(report);
}
