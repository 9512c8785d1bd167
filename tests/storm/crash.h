/* A process that crashes says what it was doing, and where: the judge only sees a signal.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef STORM_CRASH_H
#define STORM_CRASH_H

#include "worker.h"

/* From now on, of this process. The stack is told as offsets in programs and libraries: addr2line has the lines. */
void tell_crashes(struct worker *w);

#endif
