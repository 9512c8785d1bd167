/* Room in the process's table of open files: see file_table.h. SPDX-License-Identifier: Apache-2.0 */
#include "base/file_table.h"

#include <fcntl.h>
#include <unistd.h>

#define ROOM 48 /* a stock of files that are to be mapped has 24, and one turn of giving takes 8 */

void nvlxi_file_table_widen(int fd) {
    const int lowest = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    const int highest = lowest < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, lowest + ROOM);
    if (highest >= 0)
        close(highest);
    if (lowest >= 0)
        close(lowest);
}
