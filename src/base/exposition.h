/* Text of metrics as Prometheus reads it (text format 0.0.4), into memory of the caller.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_EXPOSITION_H
#define NVLXI_BASE_EXPOSITION_H

#include <stddef.h>
#include <stdint.h>

#include "base/metrics.h"

struct nvlxi_exposition {
    char *text; /* NULL: only counted */
    size_t room;
    size_t length; /* of all, whether it has room or not */
};

/* The lines that begin a family: "counter", "gauge" or "histogram". The name has no prefix. */
void nvlxi_expose_family(struct nvlxi_exposition *e, const char *name, const char *type, const char *help);

struct nvlxi_label {
    const char *name, *value; /* any UTF-8; the value is escaped */
};

/* One sample of a family, with labels up to one without a name. */
void nvlxi_expose(struct nvlxi_exposition *e, const char *name, const struct nvlxi_label *labels, uint64_t value);
/* The same of a time, in seconds. */
void nvlxi_expose_seconds(struct nvlxi_exposition *e, const char *name, const struct nvlxi_label *labels, uint64_t ns);
/* All samples of a histogram with one label, or none. */
void nvlxi_expose_histogram(struct nvlxi_exposition *e, const char *name, const struct nvlxi_label *label,
                            const struct nvlxi_histogram *histogram);

#endif
