/* A strict reader of Prometheus' text format: see exposition_check.h. SPDX-License-Identifier: Apache-2.0 */
#include "exposition_check.h"

#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX       "nvlxfer_"
#define FAMILIES_MAX 100
#define SAMPLES_MAX  8192

struct reading {
    char fault[300];
    const char *families[FAMILIES_MAX];
    size_t family_lengths[FAMILIES_MAX], family_count;
    const char *samples[SAMPLES_MAX]; /* lines: what stands before the value tells them apart */
    size_t sample_lengths[SAMPLES_MAX], sample_count;
    const char *family; /* the name of the one that is being read */
    size_t family_length;
    char type;                  /* c, g or h; 0: none yet */
    double bucket, last_bucket; /* of a histogram's series: bound, and value, of its last bucket; bound -1: none yet */
    bool infinite, summed;      /* that bucket was the last one; its sum has come */
};

static bool fail(struct reading *r, const char *what, const char *line) {
    snprintf(r->fault, sizeof r->fault, "%s: %.*s", what, (int)strcspn(line, "\n"), line);
    return false;
}

static size_t name_length(const char *text) {
    size_t length = 0;
    while (islower((unsigned char)text[length]) || isdigit((unsigned char)text[length]) || text[length] == '_')
        length++;
    return length;
}

static bool ends_with(const char *text, size_t length, const char *end) {
    return length >= strlen(end) && memcmp(text + length - strlen(end), end, strlen(end)) == 0;
}

static bool begins_with(const char *text, const char *begin) {
    return strncmp(text, begin, strlen(begin)) == 0;
}

static bool read_help(struct reading *r, const char *line) {
    const char *name = line + strlen("# HELP ");
    const size_t length = name_length(name);
    if (r->bucket >= 0)
        return fail(r, "a histogram without a count before", line);
    if (!begins_with(name, PREFIX) || name[length] != ' ' || strcspn(name, "\n") < length + 4)
        return fail(r, "a HELP without a name of ours, or a text", line);
    for (size_t i = 0; i < r->family_count; i++)
        if (r->family_lengths[i] == length && memcmp(r->families[i], name, length) == 0)
            return fail(r, "a family comes twice", line);
    if (r->family_count == FAMILIES_MAX)
        return fail(r, "more families than the check has room for", line);
    r->families[r->family_count] = r->family = name;
    r->family_lengths[r->family_count++] = r->family_length = length;
    r->type = 0;
    return true;
}

static bool read_type(struct reading *r, const char *line) {
    const char *name = line + strlen("# TYPE "), *type = name + name_length(name) + 1;
    if (!r->family || r->type || name_length(name) != r->family_length || memcmp(name, r->family, r->family_length) ||
        type[-1] != ' ')
        return fail(r, "a TYPE that does not follow its HELP", line);
    if (!begins_with(type, "counter\n") && !begins_with(type, "gauge\n") && !begins_with(type, "histogram\n"))
        return fail(r, "a type that we do not use", line);
    r->type = *type;
    if ((r->type == 'c') != ends_with(name, r->family_length, "_total"))
        return fail(r, "counters end with _total, and nothing else does", line);
    return true;
}

/* Reads {name="value",...}; returns what follows, or NULL. `le` becomes the value of that label, if there is one. */
static const char *read_labels(struct reading *r, const char *at, const char *line, const char **le) {
    do {
        const char *name = ++at;
        at += name_length(at);
        if (at == name || isdigit((unsigned char)*name) || !begins_with(at, "=\""))
            return fail(r, "a label that is not name=\"", line), NULL;
        at += 2;
        if (begins_with(name, "le="))
            *le = at;
        for (; *at != '"'; at++) {
            if (*at == '\\' && (at[1] == 'n' || at[1] == '"' || at[1] == '\\'))
                at++;
            else if (*at == '\\' || *at == '\n' || !*at)
                return fail(r, "a label value that is not escaped", line), NULL;
        }
        at++;
    } while (*at == ',');
    if (*at != '}')
        return fail(r, "labels without an end", line), NULL;
    return at + 1;
}

static bool read_bucket(struct reading *r, const char *le, double value, const char *line) {
    char *end;
    if (!le || r->infinite)
        return fail(r, "a bucket without le, or behind the last one", line);
    r->infinite = begins_with(le, "+Inf\"");
    const double bound = r->infinite ? HUGE_VAL : strtod(le, &end);
    if (!r->infinite && (*end != '"' || !isdigit((unsigned char)*le)))
        return fail(r, "a bound that is no number", line);
    if (r->bucket >= 0 && (bound <= r->bucket || value < r->last_bucket))
        return fail(r, "buckets that do not ascend", line);
    r->bucket = bound;
    r->last_bucket = value;
    return true;
}

static bool read_count(struct reading *r, double value, const char *line) {
    if (!r->summed || value != r->last_bucket)
        return fail(r, "a count before the sum, or that is not the last bucket", line);
    r->bucket = -1;
    r->infinite = r->summed = false;
    return true;
}

/* What a family may have behind its name. */
static bool read_suffix(struct reading *r, const char *suffix, size_t length, const char *le, double value,
                        const char *line) {
    if (r->type != 'h')
        return length == 0 && !le ? true : fail(r, "a sample of another name than its family", line);
    if (length == 7 && begins_with(suffix, "_bucket"))
        return read_bucket(r, le, value, line);
    if (!r->infinite || le)
        return fail(r, "a histogram's sum or count before its last bucket, or with le", line);
    if (length == 6 && begins_with(suffix, "_count"))
        return read_count(r, value, line);
    if (length != 4 || !begins_with(suffix, "_sum") || r->summed)
        return fail(r, "a sample that no histogram has, or has once", line);
    r->summed = true;
    return true;
}

static bool read_sample(struct reading *r, const char *line) {
    const char *at = line + name_length(line), *le = NULL;
    const size_t length = (size_t)(at - line);
    char *end;
    if (!r->type || length < r->family_length || memcmp(line, r->family, r->family_length))
        return fail(r, "a sample outside of its family", line);
    if (*at == '{' && !(at = read_labels(r, at, line, &le)))
        return false;
    if (*at != ' ' || !isdigit((unsigned char)at[1]))
        return fail(r, "no value", line);
    const double value = strtod(at + 1, &end);
    if (*end != '\n')
        return fail(r, "something behind the value", line);
    for (size_t i = 0; i < r->sample_count; i++)
        if (r->sample_lengths[i] == (size_t)(at - line) && memcmp(r->samples[i], line, (size_t)(at - line)) == 0)
            return fail(r, "a sample comes twice", line);
    if (r->sample_count == SAMPLES_MAX)
        return fail(r, "more samples than the check has room for", line);
    r->samples[r->sample_count] = line;
    r->sample_lengths[r->sample_count++] = (size_t)(at - line);
    return read_suffix(r, line + r->family_length, length - r->family_length, le, value, line);
}

const char *check_exposition(const char *text) {
    static struct reading reading;
    reading = (struct reading){.bucket = -1};
    if (!*text || text[strlen(text) - 1] != '\n')
        return "it does not end with a line's end";
    for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
        const bool good = begins_with(line, "# HELP ")   ? read_help(&reading, line)
                          : begins_with(line, "# TYPE ") ? read_type(&reading, line)
                                                         : read_sample(&reading, line);
        if (!good)
            return reading.fault;
    }
    return reading.bucket < 0 ? NULL : "a histogram without a count at the end";
}
