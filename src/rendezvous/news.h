/* What a server tells those that follow it: all that there is, and what has changed.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * Two kinds of texts are made, each only while somebody needs it, and shared by all who get it:
 *
 *     whole     the descriptor. For who knows nothing yet, cannot read changes, or knows what the journal
 *               (local/journal.h) does not reach back to. To make it takes as long as there are regions
 *     changes   from one generation to the newest. For all others. To make them takes as long as they are. Changes that
 *               alter a region which was told before are for who understands them (protocol.h); others need the whole
 *
 * `outdated` is set by whoever changes something; it is taken back when a turn begins that looks at how things are:
 * then `newest` is the generation that all are to know, and a whole text that was made before is outdated. Neither kind
 * is made too often, except while somebody waits for what it tells (lifetime/revocation.h), and none while changes are
 * held back. Invariants: all that changed before `looked` is in generation `newest`; a text is held once for the news,
 * and once for each connection that is being sent it.
 *
 * Only the service thread uses it, except for nvlxi_news_changed. */
#ifndef NVLXI_RENDEZVOUS_NEWS_H
#define NVLXI_RENDEZVOUS_NEWS_H

#include "lifetime/revocation.h"
#include "rendezvous/protocol.h"
#include "rendezvous/publisher.h"

struct nvlxi_text {
    char *bytes;
    size_t length;
    uint64_t begun; /* when making it began: it has all that was registered before */
    uint64_t from;  /* 0: whole */
    bool alters;    /* changes that not everybody understands */
    uint64_t generation;
    unsigned users;
};

struct nvlxi_news {
    struct nvlxi_publisher *publisher;
    struct nvlxi_revocations *revocations;
    struct nvlxi_text *whole, *changes; /* the newest, or NULL */
    uint64_t newest, looked;            /* when that was found out */
    bool whole_outdated;
    atomic_bool outdated;
    uint64_t whole_due, due; /* no whole text before; no look at all */
    uint64_t spent;          /* for changes, since the last look */
    int failure;             /* why there is no newer whole text, or 0 */
    uint64_t failing, failed;
    uint64_t retry; /* pause before it is tried again; failing, failed: when making it began, first and last */
    char reason[NVLXI_PROTOCOL_REASON_MAX + 1];
};

struct nvlxi_readers { /* how many there are now that need each kind */
    size_t whole, changes;
};

void nvlxi_news_init(struct nvlxi_news *news, struct nvlxi_publisher *publisher, struct nvlxi_revocations *revocations);
void nvlxi_news_free(struct nvlxi_news *news);
void nvlxi_text_drop(struct nvlxi_text *text);

/* Something has changed; true if the service thread must be woken up to see it. From any thread. */
bool nvlxi_news_changed(struct nvlxi_news *news);

/* When the next look is due; UINT64_MAX: there is nothing to look for. */
uint64_t nvlxi_news_due(const struct nvlxi_news *news, const struct nvlxi_readers *readers);
/* Looks, if it is time: makes a whole text if somebody needs one. */
void nvlxi_news_refresh(struct nvlxi_news *news, const struct nvlxi_readers *readers);

/* Whether the whole text, which is there, has all there is. */
bool nvlxi_news_whole_is_newest(const struct nvlxi_news *news);
/* Whether all that changed before a moment is in `newest`. */
bool nvlxi_news_has_all_before(const struct nvlxi_news *news, uint64_t moment);
/* What has changed since a generation. `alters`: for who understands changes that do. NULL, with *whole set: that takes
 * a whole text; else there is nothing to be told now. */
struct nvlxi_text *nvlxi_news_since(struct nvlxi_news *news, uint64_t generation, bool alters, bool *whole);

#endif
