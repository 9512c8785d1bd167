/* Room in the process's table of open files: see file_table.h. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "base/file_table.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/thread.h"

#define ROOM     48 /* a stock of files that are to be mapped has 24, and one turn of giving takes 8 */
#define SMALLEST 64 /* numbers that the table of each process has */

static void *widen(void *argument) {
    struct nvlxi_file_table *table = argument;
    prctl(PR_SET_NAME, "nvlx-files");
    const int made = fcntl(table->fd, F_DUPFD_CLOEXEC, table->wanted);
    if (made >= 0)
        close(made);
    atomic_store(&table->over, true);
    return NULL;
}

/* That a table has at least, which has this number. */
static int size_with(int number) {
    int size = SMALLEST;
    while (size <= number && size <= INT_MAX / 2)
        size *= 2;
    return size;
}

void nvlxi_file_table_widen(struct nvlxi_file_table *table, int fd, int number) {
    const int wanted = number + ROOM, size = table->size ? table->size : SMALLEST;
    if (wanted < size || (table->started && !atomic_load(&table->over)))
        return;
    nvlxi_file_table_end(table);
    table->fd = fd;
    table->wanted = wanted;
    atomic_store(&table->over, false);
    table->started = !nvlxi_thread_start(&table->thread, widen, table);
    if (table->started)
        table->size = size_with(wanted);
}

void nvlxi_file_table_end(struct nvlxi_file_table *table) {
    if (table->started)
        pthread_join(table->thread, NULL);
    table->started = false;
}
