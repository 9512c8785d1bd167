/* uthash, set so that running out of memory is an error of the caller's choice and never ends the process.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Before HASH_ADD..., declare `bool hash_full = false;`: it becomes true if the element could not be added, which
 * then is not in the table. */
#ifndef NVLXI_BASE_HASH_H
#define NVLXI_BASE_HASH_H

#include <stdbool.h>

#define HASH_NONFATAL_OOM            1
#define uthash_nonfatal_oom(element) (hash_full = true)
#include <uthash.h>

#endif
