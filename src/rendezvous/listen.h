/* The listening socket of a server, and who may come in.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A socket file is made by bind, which does not accept connections yet, gets its mode, and only then listens: nobody
 * comes in before. A file that is there already is taken over if nobody listens behind it, which is so after its server
 * was killed. Servers take turns at that by a lock on the folder (flock), else one could take over what another has
 * bound a moment ago. */
#ifndef NVLXI_RENDEZVOUS_LISTEN_H
#define NVLXI_RENDEZVOUS_LISTEN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/records.h"
#include "nvlxfer.h"

struct nvlxi_listener {
    int socket; /* non-blocking */
    char address[NVLXI_ADDRESS_MAX + 1];
    dev_t device; /* of the socket file, with the inode: whether it still is ours to remove */
    ino_t inode;
    uint32_t *users, *groups; /* that may connect beside our own user */
    size_t user_count, group_count;
};

/* The address was checked. May wait for the folder's lock up to a second. NVLX_EEXIST: somebody serves there, or it is
 * no socket. NVLX_EACCES, NVLX_ENOENT, NVLX_ENOMEM: the folder. */
int nvlxi_listener_open(struct nvlxi_listener *listener, const char *address, const struct nvlx_serve_options *options);
/* Removes the socket file. */
void nvlxi_listener_close(struct nvlxi_listener *listener);

/* By what the kernel says of the other end: 0 or NVLX_EACCES. *pid: which process it is, in our own namespace, or 0. */
int nvlxi_listener_admits(const struct nvlxi_listener *listener, int connection, pid_t *pid);

#endif
