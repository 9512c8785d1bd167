/* Why an address is not reached, or not served at, in plain words. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_RENDEZVOUS_REACH_H
#define NVLXI_RENDEZVOUS_REACH_H

#include "rendezvous/connection.h"

/* Words for a message, empty where nothing is known beyond strerror(reason). They begin with ": ". */
struct nvlxi_reach {
    char text[2 * NVLXI_ADDRESS_MAX + 200];
};

/* After connect, or bind, gave `reason` (an errno) for an address that was checked. They look at the path as it is now,
 * and change nothing. */
struct nvlxi_reach nvlxi_reach_connect(const char *address, int reason);
struct nvlxi_reach nvlxi_reach_serve(const char *address, int reason);

#endif
