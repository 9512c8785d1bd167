/* Room in the process's table of open files.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Linux makes the table larger when a number beyond its end is needed: of 64 numbers, then 256, 512 and so on. In a
 * process with threads, who needs the number then waits until every CPU has passed through the scheduler, as
 * synchronize_rcu() does: 8 to 31 ms (measured, Linux 6.18, 32 CPUs). Files of a peer's chunks come some at a time, so
 * that a first pull met this on both sides. So the table is made larger ahead, where nobody waits for it. */
#ifndef NVLXI_BASE_FILE_TABLE_H
#define NVLXI_BASE_FILE_TABLE_H

/* Makes room for some dozens more. May wait as above. `fd`: an open one of which a forked child may keep a duplicate.
 */
void nvlxi_file_table_widen(int fd);

#endif
