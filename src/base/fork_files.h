/* File descriptors that a forked child does not keep: sockets, and what goes with them. While a child had them open,
 * peers would not notice that this process ended, and its address would stay taken.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_FORK_FILES_H
#define NVLXI_BASE_FORK_FILES_H

#include "base/fork_phase.h"

/* Each returns a descriptor that is closed in forked children, and on exec; or -1 and errno tells why. */
int nvlxi_fork_files_socket(void);         /* a Unix stream socket that does not block */
int nvlxi_fork_files_accept(int listener); /* a connection, which does not block */
int nvlxi_fork_files_eventfd(void);        /* which does not block */
int nvlxi_fork_files_epoll(void);

/* Closes one of them. */
void nvlxi_fork_files_close(int fd);

void nvlxi_fork_files_fork(enum nvlxi_fork_phase phase);

#endif
