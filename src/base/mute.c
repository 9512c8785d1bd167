/* Keeps a signal that a call of ours raises away from the program. SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "base/mute.h"

#include <errno.h>
#include <time.h>

static bool is_pending(const struct nvlxi_mute *mute) {
    sigset_t pending, both;
    sigpending(&pending);
    sigandset(&both, &pending, &mute->signal);
    return !sigisemptyset(&both);
}

void nvlxi_mute_begin(struct nvlxi_mute *mute, int number) {
    sigemptyset(&mute->signal);
    sigaddset(&mute->signal, number);
    pthread_sigmask(SIG_BLOCK, &mute->signal, &mute->before);
    mute->pending = is_pending(mute);
}

/* One that was pending before is the program's. */
void nvlxi_mute_end(struct nvlxi_mute *mute) {
    const struct timespec now = {0};
    int reason = errno;
    if (!mute->pending && is_pending(mute))
        sigtimedwait(&mute->signal, NULL, &now);
    pthread_sigmask(SIG_SETMASK, &mute->before, NULL);
    errno = reason;
}
