/* What keeps mapping a peer's memory cheap. SPDX-License-Identifier: Apache-2.0 */
#include "remote/link.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct nvlxi_peer_link {
    int gpu;
    uint8_t uuid[NVLXI_UUID_BYTES];
    struct nvlxi_link *link; /* the device's; or NULL: there is none to hold, which is not tried again */
    struct nvlxi_peer_link *next;
};

/* Whether it is entered: not, if there is one already. */
static bool enter(struct nvlx_peer *peer, struct nvlxi_peer_link *link) {
    const struct nvlxi_peer_link *other;
    pthread_mutex_lock(&peer->remote->mutex);
    LL_FOREACH(peer->links, other) {
        if (other->gpu == link->gpu && !memcmp(other->uuid, link->uuid, sizeof link->uuid))
            break;
    }
    if (!other)
        LL_PREPEND(peer->links, link);
    pthread_mutex_unlock(&peer->remote->mutex);
    return !other;
}

void nvlxi_peer_link(struct nvlx_peer *peer, int gpu, const uint8_t uuid[NVLXI_UUID_BYTES]) {
    const struct nvlxi_context *context = peer->remote->context;
    struct nvlxi_peer_link *link = malloc(sizeof *link);
    if (!link) /* mapping goes on being dear, no more */
        return;
    *link = (struct nvlxi_peer_link){.gpu = gpu};
    memcpy(link->uuid, uuid, sizeof link->uuid);
    if (!enter(peer, link)) {
        free(link);
        return;
    }
    struct nvlxi_link *made = context->ops->link(context->device, gpu, uuid);
    pthread_mutex_lock(&peer->remote->mutex);
    link->link = made;
    pthread_mutex_unlock(&peer->remote->mutex);
}

/* Whoever gives them back takes them off the list first: under the mutex, they stay. */
void nvlxi_peer_wake(struct nvlx_peer *peer) {
    const struct nvlxi_context *context = peer->remote->context;
    const struct nvlxi_peer_link *link;
    pthread_mutex_lock(&peer->remote->mutex);
    LL_FOREACH(peer->links, link) {
        if (link->link)
            context->ops->wake(context->device, link->link);
    }
    pthread_mutex_unlock(&peer->remote->mutex);
}

bool nvlxi_peer_is_left(struct nvlx_peer *peer) {
    pthread_mutex_lock(&peer->remote->mutex);
    const bool left = atomic_load(&peer->gone) && peer->links;
    pthread_mutex_unlock(&peer->remote->mutex);
    return left;
}

void nvlxi_peer_unlink(struct nvlx_peer *peer) {
    const struct nvlxi_context *context = peer->remote->context;
    struct nvlxi_peer_link *link, *next;
    pthread_mutex_lock(&peer->remote->mutex);
    struct nvlxi_peer_link *links = peer->links;
    peer->links = NULL;
    pthread_mutex_unlock(&peer->remote->mutex);
    LL_FOREACH_SAFE(links, link, next) {
        if (link->link)
            context->ops->unlink(context->device, link->link);
        free(link);
    }
}
