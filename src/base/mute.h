/* Keeps a signal that a call of ours raises in this thread away from the program, which would end by it: SIGXFSZ of a
 * file beyond RLIMIT_FSIZE, SIGPIPE of a closed pipe. The call fails all the same, with EFBIG or EPIPE.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_MUTE_H
#define NVLXI_BASE_MUTE_H

#include <signal.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct nvlxi_mute {
    sigset_t signal, before;
    bool pending; /* before */
};

void nvlxi_mute_begin(struct nvlxi_mute *mute, int number);
void nvlxi_mute_end(struct nvlxi_mute *mute); /* leaves errno as it is */

#ifdef __cplusplus
}
#endif

#endif
