/* When a module is told of a fork. Apart from base.h, since kernels' headers come to it.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_FORK_PHASE_H
#define NVLXI_BASE_FORK_PHASE_H

/* Each module with locks or tables of the whole process has a function that fork.c calls with these: it takes its
 * locks, lets go of them, and in the child first forgets what is the parent's. */
enum nvlxi_fork_phase { NVLXI_BEFORE_FORK, NVLXI_IN_PARENT, NVLXI_IN_CHILD };

#endif
