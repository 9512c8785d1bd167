/* Messages between the source of a relay and its readers: see words.h. SPDX-License-Identifier: Apache-2.0 */
#include "relay/words.h"

#include <string.h>

#include "base/error.h"

int nvlxi_relay_say(struct nvlx_peer *peer, struct nvlxi_relay_word word) {
    word.magic = NVLXI_RELAY_MAGIC;
    word.version = NVLXI_RELAY_VERSION;
    return nvlx_send(peer, &word, sizeof word);
}

int nvlxi_relay_hear(const struct nvlx_event *event, struct nvlxi_relay_word *word) {
    if (event->message_length != sizeof *word)
        return nvlxi_fail(NVLX_EFORMAT, "a message of %zu bytes is no word of a relay", event->message_length);
    memcpy(word, event->message, sizeof *word);
    word->address[sizeof word->address - 1] = '\0';
    if (word->magic != NVLXI_RELAY_MAGIC)
        return nvlxi_fail(NVLX_EFORMAT, "a message from process %lld is no word of a relay", (long long)event->pid);
    if (word->version != NVLXI_RELAY_VERSION)
        return nvlxi_fail(NVLX_EVERSION, "process %lld speaks version %u of a relay's words", (long long)event->pid,
                          word->version);
    return 0;
}
