/* Makes the text of this engine's descriptor. SPDX-License-Identifier: Apache-2.0 */
#include "rendezvous/publisher.h"

#include <stdio.h>
#include <string.h>

void nvlxi_publisher_init(struct nvlxi_publisher *publisher, struct nvlxi_registration *registration) {
    publisher->registration = registration;
    pthread_mutex_init(&publisher->mutex, NULL);
}

void nvlxi_publisher_free(struct nvlxi_publisher *publisher) {
    pthread_mutex_destroy(&publisher->mutex);
}

void nvlxi_publisher_set_address(struct nvlxi_publisher *publisher, const char *address) {
    pthread_mutex_lock(&publisher->mutex);
    snprintf(publisher->address, sizeof publisher->address, "%s", address);
    pthread_mutex_unlock(&publisher->mutex);
}

/* The address is read last: a text of a generation that began with it has it. */
static int encode(struct nvlxi_publisher *publisher, struct nvlxi_descriptor *descriptor, char **text, size_t *length) {
    const struct nvlxi_context *context = publisher->registration->context;
    strncpy(descriptor->backend, context->ops->name, sizeof descriptor->backend - 1);
    pthread_mutex_lock(&publisher->mutex);
    memcpy(descriptor->address, publisher->address, sizeof descriptor->address);
    pthread_mutex_unlock(&publisher->mutex);
    int code = nvlxi_descriptor_encode(descriptor, text, length);
    nvlxi_registration_records_free(descriptor);
    return code;
}

int nvlxi_publisher_text(struct nvlxi_publisher *publisher, char **text, size_t *length, uint64_t *generation) {
    struct nvlxi_descriptor descriptor = {.identity = publisher->registration->context->identity};
    int code = nvlxi_registration_records(publisher->registration, &descriptor);
    if (code)
        return code;
    *generation = descriptor.identity.generation;
    return encode(publisher, &descriptor, text, length);
}

int nvlxi_publisher_changes(struct nvlxi_publisher *publisher, uint64_t since, bool *alters, char **text,
                            size_t *length, uint64_t *generation) {
    struct nvlxi_descriptor descriptor = {.identity = publisher->registration->context->identity};
    int code = nvlxi_registration_changes(publisher->registration, since, alters, &descriptor);
    if (code)
        return code;
    *text = NULL;
    *generation = descriptor.identity.generation;
    if (*generation > since)
        return encode(publisher, &descriptor, text, length);
    nvlxi_registration_records_free(&descriptor);
    return 0;
}
