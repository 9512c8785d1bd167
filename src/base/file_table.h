/* Room in the process's table of open files.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Linux makes the table larger when a number beyond its end is needed: of 64 numbers, then twice or four times as many,
 * and so on. In a process with threads, who needs the number then waits until every CPU has passed through the
 * scheduler, as synchronize_rcu() does: 8 to 31 ms (measured, Linux 6.18, 32 CPUs). Files of a peer's chunks come some
 * at a time, so that a first pull met this on both sides. So the table is made larger ahead, by a thread that does
 * nothing else: whoever answers peers cannot wait so long.
 *
 *     (none)      there is room, as far as is known
 *     WIDENING    a thread is at it
 *     (over)      it has ended: who wants room next, or ends, joins it
 *
 * All but the thread's own part belongs to one thread at a time. */
#ifndef NVLXI_BASE_FILE_TABLE_H
#define NVLXI_BASE_FILE_TABLE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct nvlxi_file_table { /* starts zeroed */
    pthread_t thread;
    bool started;
    atomic_bool over;
    int fd, wanted; /* what the thread duplicates, and the number that it asks for */
    int size;       /* so many numbers it has, or will have */
};

/* Makes room for some dozens more than `number`, the file that was opened last, soon. `fd`: one that stays open until
 * the end, and of which a forked child may keep a duplicate. Takes no longer than starting a thread does. */
void nvlxi_file_table_widen(struct nvlxi_file_table *table, int fd, int number);
/* Waits for the thread, if there is one. */
void nvlxi_file_table_end(struct nvlxi_file_table *table);

#endif
