/* What the tests of the rendezvous share. SPDX-License-Identifier: Apache-2.0 */
#ifndef RENDEZVOUS_SUPPORT_H
#define RENDEZVOUS_SUPPORT_H

#include "support.h"

/* An address of this process's own: a path, or an abstract name. Valid until the next call. */
const char *own_path(void);
const char *own_name(void);

struct nvlx_peer *connect_to(struct nvlx_engine *engine, const char *address);

/* Wait, without asking anybody but the library, until it is so; they fail if it never is. */
void await_name(struct nvlx_peer *peer, const char *name);
void await_no_name(struct nvlx_peer *peer, const char *name);
void await_end(struct nvlx_peer *peer);

/* Until a process holds that many descriptors and threads. */
struct possessions {
    size_t fds, threads;
};
struct possessions possessions_of(pid_t pid);
void await_possessions(pid_t pid, struct possessions wanted);

/* Orders to a child, and that it has done what it was told to. */
void say(struct child *child, const char *text);
void await_child(struct child *child);

/* A connection without the library. */
int raw_connect(const char *address);
/* A server that is none: it listens. */
int raw_listen(const char *address);

/* Whether the other end closes within `timeout_ms`, whatever it says before. */
bool closes(int socket, int timeout_ms);

#endif
