/* Writes metrics in Prometheus' text format. SPDX-License-Identifier: Apache-2.0 */
#include "base/exposition.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PREFIX "nvlxfer_"

static void put(struct nvlxi_exposition *e, const char *bytes, size_t length) {
    if (e->text && e->length < e->room && length <= e->room - e->length)
        memcpy(e->text + e->length, bytes, length);
    e->length += length;
}

static void put_text(struct nvlxi_exposition *e, const char *text) {
    put(e, text, strlen(text));
}

__attribute__((format(printf, 2, 3))) static void put_number(struct nvlxi_exposition *e, const char *format, ...) {
    char number[64];
    va_list arguments;
    va_start(arguments, format);
    const int length = vsnprintf(number, sizeof number, format, arguments);
    va_end(arguments);
    put(e, number, (size_t)length);
}

static void put_seconds(struct nvlxi_exposition *e, uint64_t ns) {
    put_number(e, "%" PRIu64 ".%09" PRIu64, ns / 1000000000, ns % 1000000000);
}

static void put_escaped(struct nvlxi_exposition *e, const char *value) {
    for (; *value; value++) {
        if (*value == '\n')
            put(e, "\\n", 2);
        else if (*value == '"' || *value == '\\')
            put(e, *value == '"' ? "\\\"" : "\\\\", 2);
        else
            put(e, value, 1);
    }
}

static void put_label(struct nvlxi_exposition *e, char before, const struct nvlxi_label *label) {
    put(e, &before, 1);
    put_text(e, label->name);
    put(e, "=\"", 2);
    put_escaped(e, label->value);
    put(e, "\"", 1);
}

/* "name_suffix{labels} " */
static void begin_sample(struct nvlxi_exposition *e, const char *name, const char *suffix,
                         const struct nvlxi_label *labels) {
    const struct nvlxi_label *label = labels;
    put_text(e, PREFIX);
    put_text(e, name);
    put_text(e, suffix);
    for (; label && label->name; label++)
        put_label(e, label == labels ? '{' : ',', label);
    put_text(e, label != labels ? "} " : " ");
}

void nvlxi_expose_family(struct nvlxi_exposition *e, const char *name, const char *type, const char *help) {
    put_text(e, "# HELP " PREFIX);
    put_text(e, name);
    put(e, " ", 1);
    put_text(e, help);
    put_text(e, "\n# TYPE " PREFIX);
    put_text(e, name);
    put(e, " ", 1);
    put_text(e, type);
    put(e, "\n", 1);
}

void nvlxi_expose(struct nvlxi_exposition *e, const char *name, const struct nvlxi_label *labels, uint64_t value) {
    begin_sample(e, name, "", labels);
    put_number(e, "%" PRIu64 "\n", value);
}

void nvlxi_expose_seconds(struct nvlxi_exposition *e, const char *name, const struct nvlxi_label *labels, uint64_t ns) {
    begin_sample(e, name, "", labels);
    put_seconds(e, ns);
    put(e, "\n", 1);
}

static void expose_bucket(struct nvlxi_exposition *e, const char *name, const struct nvlxi_label *label,
                          const char *bound, uint64_t count) {
    struct nvlxi_label labels[3] = {{NULL, NULL}};
    unsigned used = 0;
    if (label)
        labels[used++] = *label;
    labels[used] = (struct nvlxi_label){"le", bound};
    begin_sample(e, name, "_bucket", labels);
    put_number(e, "%" PRIu64 "\n", count);
}

/* The counts are read once: the sum of all is the last bucket, whatever is counted meanwhile. */
void nvlxi_expose_histogram(struct nvlxi_exposition *e, const char *name, const struct nvlxi_label *label,
                            const struct nvlxi_histogram *histogram) {
    const struct nvlxi_label labels[2] = {label ? *label : (struct nvlxi_label){NULL, NULL}};
    char bound[32];
    uint64_t count = 0;
    for (unsigned i = 0; i < NVLXI_METRIC_BUCKETS; i++) {
        const uint64_t ns = UINT64_C(1) << (10 + i);
        count += nvlxi_counted(&histogram->bucket[i]);
        snprintf(bound, sizeof bound, "%" PRIu64 ".%09" PRIu64, ns / 1000000000, ns % 1000000000);
        expose_bucket(e, name, label, bound, count);
    }
    count += nvlxi_counted(&histogram->bucket[NVLXI_METRIC_BUCKETS]);
    expose_bucket(e, name, label, "+Inf", count);
    begin_sample(e, name, "_sum", labels);
    put_seconds(e, nvlxi_counted(&histogram->sum_ns));
    put(e, "\n", 1);
    begin_sample(e, name, "_count", labels);
    put_number(e, "%" PRIu64 "\n", count);
}
