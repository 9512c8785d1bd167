/* nvlx_info: the chapters of what it tells. Each writes its part of the report.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_INFO_INFO_H
#define TOOLS_INFO_INFO_H

#include "common/driver.h"
#include "common/nvml.h"
#include "common/report.h"

void info_library(struct report *report);     /* version, path, build: library.c */
void info_limits(struct report *report);      /* the library's and the process's */
void info_environment(struct report *report); /* all variables that are read */

void info_driver(struct report *report, const struct driver *driver, const struct nvml *nvml); /* gpus.c */
void info_gpus(struct report *report, const struct driver *driver, const struct nvml *nvml);

/* Which backends run, which one a program gets that asks for none, and which kinds of memory can be shared there: tried
 * on GPU 0. 1 if no backend runs, else 0. backends.c. */
int info_backends(struct report *report);

#endif
