/* The host backend, with a pipe as the file descriptor of each allocation, in which its base can be read; it fails on
 * demand. SPDX-License-Identifier: Apache-2.0 */
#ifndef FILE_DEVICE_H
#define FILE_DEVICE_H

#include <stdatomic.h>

#include "support.h"

struct file_faults {
    atomic_long exports, failing; /* this export fails; 0: none */
    atomic_int export_us;         /* how long one takes */
    atomic_int mute;              /* it does not tell what lives, but fails with this code */
};
extern struct file_faults file_faults;

struct nvlx_engine *make_file_engine(void);
/* Memory that takes a file descriptor to be opened. */
char *allocate_file(struct nvlx_engine *engine, size_t length);

#endif
