/* What keeps mapping a peer's memory cheap. SPDX-License-Identifier: Apache-2.0 */
#include "remote/link.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

struct nvlxi_peer_link {
    int gpu;
    uint8_t uuid[NVLXI_UUID_BYTES];
    struct nvlxi_link *link; /* the device's; or NULL: there is none to hold, which is not tried again */
    unsigned users;          /* the peer's list, and who wakes it: the last one gives it back. Under the mutex */
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
    *link = (struct nvlxi_peer_link){.gpu = gpu, .users = 1};
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

/* Gives up one use of it, under the mutex, of which the last one lets go meanwhile. */
static void drop(struct nvlx_peer *peer, struct nvlxi_peer_link *link) {
    const struct nvlxi_context *context = peer->remote->context;
    if (--link->users)
        return;
    pthread_mutex_unlock(&peer->remote->mutex);
    if (link->link)
        context->ops->unlink(context->device, link->link);
    free(link);
    pthread_mutex_lock(&peer->remote->mutex);
}

/* Without the mutex while the device is at it: a launch waits where others have filled the GPU's queue. Once the list
 * has been taken there are no more, and what comes next on it may be gone. */
void nvlxi_peer_wake(struct nvlx_peer *peer, int gpu) {
    const struct nvlxi_context *context = peer->remote->context;
    pthread_mutex_lock(&peer->remote->mutex);
    for (struct nvlxi_peer_link *link = peer->links, *next; link; link = next) {
        struct nvlxi_link *known = link->link;
        link->users++;
        pthread_mutex_unlock(&peer->remote->mutex);
        if (known && (gpu < 0 || link->gpu == gpu))
            context->ops->wake(context->device, known);
        pthread_mutex_lock(&peer->remote->mutex);
        next = peer->links ? link->next : NULL;
        drop(peer, link);
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
    struct nvlxi_peer_link *link, *next;
    pthread_mutex_lock(&peer->remote->mutex);
    struct nvlxi_peer_link *links = peer->links;
    peer->links = NULL;
    LL_FOREACH_SAFE(links, link, next) {
        drop(peer, link);
    }
    pthread_mutex_unlock(&peer->remote->mutex);
}
