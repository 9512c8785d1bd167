/* File descriptors that a forked child does not keep: sockets, and what goes with them. While a child had them open,
 * peers would not notice that this process ended, and its address would stay taken.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_FORK_FILES_H
#define NVLXI_BASE_FORK_FILES_H

#include <stddef.h>

#include "base/fork_phase.h"

/* Each returns a descriptor that is closed in forked children, and on exec; or -1 and errno tells why. */
int nvlxi_fork_files_socket(void);         /* a Unix stream socket that does not block */
int nvlxi_fork_files_accept(int listener); /* a connection, which does not block */
int nvlxi_fork_files_eventfd(void);        /* which does not block */
int nvlxi_fork_files_epoll(void);

/* How many more may be opened now, of `most`, which is NVLXI_ROOM_MAX at most. `fd`: any that is open. */
enum { NVLXI_ROOM_MAX = 8 };
size_t nvlxi_fork_files_room(int fd, size_t most);

/* Closes one of them. */
void nvlxi_fork_files_close(int fd);

void nvlxi_fork_files_fork(enum nvlxi_fork_phase phase);

#endif
