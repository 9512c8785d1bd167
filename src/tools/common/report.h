/* What a tool tells: one walk over the facts writes them as indented lines for people, or as one JSON value.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_COMMON_REPORT_H
#define TOOLS_COMMON_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define REPORT_DEPTH 8

struct report {
    FILE *to;
    bool json, opening; /* opening: the line of the innermost object or list, for people, has not ended yet */
    int depth;
    struct {
        bool list;  /* its entries have no keys */
        bool begun; /* it has an entry */
    } level[REPORT_DEPTH];
};

/* The report is one object. In JSON, keys are as given; for people, "_" is a blank. In a list, `key` is NULL. */
void report_begin(struct report *report, bool json);
void report_end(struct report *report);
void report_open(struct report *report, const char *key);
void report_open_list(struct report *report, const char *key);
void report_close(struct report *report);

/* Of any length. In JSON, a byte that is part of no UTF-8 character is told as U+FFFD. */
void report_text(struct report *report, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));
void report_number(struct report *report, const char *key, uint64_t value);
/* For people with a unit that they can read: 2 MiB. */
void report_bytes(struct report *report, const char *key, uint64_t value);
void report_real(struct report *report, const char *key, double value);
void report_truth(struct report *report, const char *key, bool value); /* true and false; yes and no */
void report_nothing(struct report *report, const char *key);           /* null; "-" */

#endif
