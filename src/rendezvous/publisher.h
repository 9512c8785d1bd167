/* The descriptor of this engine, as it is exported: its registrations, and where it serves.
 *
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_RENDEZVOUS_PUBLISHER_H
#define NVLXI_RENDEZVOUS_PUBLISHER_H

#include "local/registration.h"

struct nvlxi_publisher {
    struct nvlxi_registration *registration;
    pthread_mutex_t mutex;
    char address[NVLXI_ADDRESS_MAX + 1]; /* under the mutex; "" until the engine serves */
};

void nvlxi_publisher_init(struct nvlxi_publisher *publisher, struct nvlxi_registration *registration);
void nvlxi_publisher_free(struct nvlxi_publisher *publisher);

/* From the next change of the registrations on, every text tells the address. */
void nvlxi_publisher_set_address(struct nvlxi_publisher *publisher, const char *address);

/* The text, to be freed by free(3). */
int nvlxi_publisher_text(struct nvlxi_publisher *publisher, char **text, size_t *length, uint64_t *generation);

/* The same of what has changed since a generation that was told. *text becomes NULL if that is the present one.
 * `alters`, and NVLX_EAGAIN, not logged: as nvlxi_registration_changes. */
int nvlxi_publisher_changes(struct nvlxi_publisher *publisher, uint64_t since, bool *alters, char **text,
                            size_t *length, uint64_t *generation);

#endif
