/* What must be so of any bytes that a rendezvous receives: for the fuzzer, and for the tests of the same rules.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef PROTOCOL_CHECK_H
#define PROTOCOL_CHECK_H

#include <string.h>

#include "base/utf8.h"
#include "nvlxfer.h"
#include "rendezvous/protocol.h"

/* Whether a message is what its writer makes of what its reader understood; greetings may have a tail of their own. */
static inline bool same_again(const uint8_t *message, const uint8_t *again, size_t length, size_t written) {
    return written <= length &&
           memcmp(message + NVLXI_PROTOCOL_HEADER, again + NVLXI_PROTOCOL_HEADER, written - NVLXI_PROTOCOL_HEADER) == 0;
}

/* NULL, or what is wrong. The minor version of a greeting is set to this library's: it is not told to readers. */
static inline const char *check_body(const struct nvlxi_protocol_header *header, uint8_t *message, size_t length) {
    static uint8_t again[NVLXI_PROTOCOL_ASK_MAX], again_message[NVLXI_PROTOCOL_MESSAGE_MAX], whole[NVLXI_MESSAGE_MAX];
    static struct nvlxi_protocol_file files[NVLXI_PROTOCOL_FILES_MAX];
    const uint8_t *body = message + NVLXI_PROTOCOL_HEADER;
    struct nvlxi_protocol_refusal refusal;
    enum nvlxi_protocol_role role;
    char engine[NVLXI_PROTOCOL_ENGINE + 1];
    struct nvlxi_protocol_holds holds;
    struct nvlxi_protocol_message part;
    struct nvlxi_protocol_taken taken;
    struct nvlxi_protocol_report report;
    const uint8_t *chunk;
    uint64_t generation;
    size_t count;
    uint32_t request;
    unsigned told, spoken;
    uint16_t minor = NVLXI_PROTOCOL_MINOR;
    switch ((enum nvlxi_protocol_type)header->type) {
    case NVLXI_PROTOCOL_HELLO:
        memcpy(message + NVLXI_PROTOCOL_HEADER + 10, &minor, sizeof minor);
        if (nvlxi_protocol_get_hello(body, &role, &spoken))
            return NULL;
        if (spoken != minor)
            return "the version of a HELLO is another";
        return same_again(message, again, length, nvlxi_protocol_put_hello(again, role)) ? NULL : "HELLO changes";
    case NVLXI_PROTOCOL_WELCOME:
        memcpy(message + NVLXI_PROTOCOL_HEADER + 10, &minor, sizeof minor);
        memset(message + NVLXI_PROTOCOL_HEADER + 12, 0, 4); /* is not looked at */
        if (nvlxi_protocol_get_welcome(body, engine, &told))
            return NULL;
        if (told != minor)
            return "the version of a WELCOME is another";
        return same_again(message, again, length, nvlxi_protocol_put_welcome(again, engine)) ? NULL : "WELCOME changes";
    case NVLXI_PROTOCOL_AWAIT:
        nvlxi_protocol_get_await(body, &generation);
        return same_again(message, again, length, nvlxi_protocol_put_await(again, generation)) ? NULL : "AWAIT changes";
    case NVLXI_PROTOCOL_HOLDS:
        if (nvlxi_protocol_get_holds(body, header->length, &holds))
            return NULL;
        count = nvlxi_protocol_put_holds(again, &holds, header->length == sizeof holds);
        return same_again(message, again, length, count) ? NULL : "HOLDS changes";
    case NVLXI_PROTOCOL_MESSAGE:
        if (nvlxi_protocol_get_message(body, header->length, &part, &chunk, &count))
            return NULL;
        if (count > NVLXI_PROTOCOL_CHUNK || part.offset + count > part.length || part.length > NVLXI_MESSAGE_MAX)
            return "a chunk leaves its message";
        memcpy(whole + part.offset, chunk, count);
        return same_again(message, again_message, length, nvlxi_protocol_put_message(again_message, &part, whole))
                   ? NULL
                   : "MESSAGE changes";
    case NVLXI_PROTOCOL_TAKEN:
        nvlxi_protocol_get_taken(body, &taken);
        return same_again(message, again, length, nvlxi_protocol_put_taken(again, &taken)) ? NULL : "TAKEN changes";
    case NVLXI_PROTOCOL_REFUSAL:
        if (nvlxi_protocol_get_refusal(body, header->length, &refusal))
            return NULL;
        return nvlxi_utf8_is_name(refusal.text) && refusal.code < 0 ? NULL : "a REFUSAL is not proper";
    case NVLXI_PROTOCOL_FETCH:
        if (nvlxi_protocol_get_fetch(body, header->length, files, &count))
            return NULL;
        return same_again(message, again, length, nvlxi_protocol_put_fetch(again, files, count)) ? NULL
                                                                                                 : "FETCH changes";
    case NVLXI_PROTOCOL_FILES:
        if (nvlxi_protocol_get_files(body, &count))
            return NULL;
        return same_again(message, again, length, nvlxi_protocol_put_files(again, count)) ? NULL : "FILES changes";
    case NVLXI_PROTOCOL_ASK:
        if (nvlxi_protocol_get_ask(body, header->length, &request, files, &count))
            return NULL;
        if (!count || count > NVLXI_PROTOCOL_FILES_MAX)
            return "an ASK of no files, or of too many";
        return same_again(message, again, length, nvlxi_protocol_put_ask(again, request, files, count)) ? NULL
                                                                                                        : "ASK changes";
    case NVLXI_PROTOCOL_GIVEN:
        if (nvlxi_protocol_get_given(body, &request, &count))
            return NULL;
        return same_again(message, again, length, nvlxi_protocol_put_given(again, request, count)) ? NULL
                                                                                                   : "GIVEN changes";
    case NVLXI_PROTOCOL_DENIED:
        if (nvlxi_protocol_get_denied(body, header->length, &request, &refusal))
            return NULL;
        return nvlxi_utf8_is_name(refusal.text) && refusal.code < 0 ? NULL : "a DENIED is not proper";
    case NVLXI_PROTOCOL_STATS:
        if (nvlxi_protocol_get_stats(body, &request))
            return NULL;
        return same_again(message, again, length, nvlxi_protocol_put_stats(again, request)) ? NULL : "STATS changes";
    case NVLXI_PROTOCOL_REPORT:
        if (nvlxi_protocol_get_report(body, header->length, &report))
            return NULL;
        if (report.refusal.code)
            return nvlxi_utf8_is_name(report.refusal.text) && report.refusal.code < 0 ? NULL : "a REPORT is not proper";
        return (const uint8_t *)report.text + report.length == body + header->length ? NULL
                                                                                     : "a REPORT leaves its body";
    case NVLXI_PROTOCOL_DONE:
    case NVLXI_PROTOCOL_TEXT:
    case NVLXI_PROTOCOL_CHANGES:
        return NULL;
    }
    return "a header of no known type is accepted";
}

/* A stream of messages from either side, as far as it is whole and proper. Changes the bytes. */
static inline const char *check_stream(uint8_t *bytes, size_t length, bool from_server) {
    struct nvlxi_protocol_header header;
    const char *wrong = NULL;
    while (!wrong && length >= NVLXI_PROTOCOL_HEADER && !nvlxi_protocol_get_header(bytes, from_server, &header)) {
        size_t whole = NVLXI_PROTOCOL_HEADER + (size_t)header.length;
        if (length < whole)
            return NULL;
        wrong = check_body(&header, bytes, whole);
        bytes += whole;
        length -= whole;
    }
    return wrong;
}

#endif
