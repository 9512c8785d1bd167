/* A tool whose output is lost says so. SPDX-License-Identifier: Apache-2.0 */
#ifndef TOOLS_COMMON_OUTPUT_H
#define TOOLS_COMMON_OUTPUT_H

/* When the process exits: if what it wrote to stdout is lost, as on a full disk, says so on stderr, and exits with
 * `lost` instead. Called once, first of all. */
void output_watch(const char *tool, int lost);

#endif
