/* Reports: the counts of an engine, told to who follows it and asks.
 *
 * SPDX-License-Identifier: Apache-2.0
 *
 * A follower asks by STATS with a number, and gets one REPORT with it. One question at a time is open on a connection:
 * a newer one takes the place of one whose answer was not begun, which nobody waits for any more. The text is made when
 * the connection has nothing else to send, by the service thread. */
#ifndef NVLXI_RENDEZVOUS_REPORT_H
#define NVLXI_RENDEZVOUS_REPORT_H

#include "rendezvous/files/channel.h"
#include "rendezvous/news.h"

struct nvlxi_reporter { /* what an engine tells of itself */
    /* Writes the text as far as the room goes, and returns its whole length. By the service thread. */
    size_t (*write)(void *context, char *text, size_t room);
    void *context;
    bool allowed; /* by options of nvlx_serve */
};

/* By a server: the answer. Returns the length of its head; *text becomes what follows that, or NULL. */
size_t nvlxi_report_make(const struct nvlxi_reporter *reporter, uint32_t number, uint8_t *head,
                         struct nvlxi_text **text);

/* By a user's thread: asks, and waits for the answer. The text has a final NUL, and is to be freed. */
int nvlxi_report_ask(struct nvlxi_channel *channel, int64_t timeout_ns, char **text, size_t *length);
/* By the service thread: REPORT has come. NVLX_EFORMAT: it is not proper. */
int nvlxi_report_come(struct nvlxi_channel *channel, const struct nvlxi_inbox *in);

#endif
