/* Writes the messages of the rendezvous, and checks those that are read. SPDX-License-Identifier: Apache-2.0 */
#include "rendezvous/protocol.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>

#include "base/base.h"
#include "base/error.h"
#include "base/utf8.h"

/* The bodies, as they are in memory: no field is where a compiler would pad. */
struct header_bytes {
    uint32_t length;
    uint16_t type, zero;
};

struct greeting_bytes { /* HELLO; WELCOME has the engine's id behind it */
    uint64_t magic;
    uint16_t major, minor;
    uint32_t role; /* 0 in WELCOME */
};

struct refusal_bytes { /* the text behind it */
    int32_t code;
    uint32_t zero;
};

struct files_bytes {
    uint32_t count, zero;
};

struct ask_bytes { /* the files behind it */
    uint32_t request, zero;
};

struct given_bytes {
    uint32_t request, count;
};

struct denied_bytes { /* the text behind it */
    uint32_t request;
    int32_t code;
};

struct done_bytes {
    uint64_t zero;
};

struct stats_bytes {
    uint32_t number, zero;
};

struct report_bytes { /* the text, or the reason, behind it */
    uint32_t number;
    int32_t code;
};

struct await_bytes {
    uint64_t generation;
};

#define HOLDS_BEFORE_6 offsetof(struct nvlxi_protocol_holds, graphs)

static_assert(sizeof(struct await_bytes) == 8 && sizeof(struct nvlxi_protocol_holds) == 24, "no padding");
static_assert(sizeof(struct nvlxi_protocol_message) == 16 && sizeof(struct nvlxi_protocol_taken) == 16, "no padding");
static_assert(sizeof(struct nvlxi_protocol_message) + NVLXI_PROTOCOL_CHUNK + NVLXI_PROTOCOL_HEADER ==
                  NVLXI_PROTOCOL_MESSAGE_MAX,
              "a chunk has room");
static_assert(sizeof(struct header_bytes) == NVLXI_PROTOCOL_HEADER, "no padding");
static_assert(sizeof(struct greeting_bytes) == 16 && sizeof(struct refusal_bytes) == 8, "no padding");
static_assert(sizeof(struct ask_bytes) == 8 && sizeof(struct given_bytes) == 8, "no padding");
static_assert(sizeof(struct stats_bytes) == 8 && sizeof(struct report_bytes) == 8, "no padding");
static_assert(sizeof(struct denied_bytes) == 8 && sizeof(struct done_bytes) == 8, "no padding");
static_assert(sizeof(struct files_bytes) == 8 && sizeof(struct nvlxi_protocol_file) == 16, "no padding");

static const struct {
    const char *name;
    bool from_server;
    uint32_t shortest, longest; /* body */
} types[] = {
    [NVLXI_PROTOCOL_HELLO] = {"HELLO", false, sizeof(struct greeting_bytes), NVLXI_PROTOCOL_GREETING_MAX},
    [NVLXI_PROTOCOL_FETCH] = {"FETCH", false, sizeof(struct nvlxi_protocol_file),
                              NVLXI_PROTOCOL_FILES_MAX * sizeof(struct nvlxi_protocol_file)},
    [NVLXI_PROTOCOL_WELCOME] = {"WELCOME", true, sizeof(struct greeting_bytes) + NVLXI_PROTOCOL_ENGINE,
                                NVLXI_PROTOCOL_GREETING_MAX},
    [NVLXI_PROTOCOL_REFUSAL] = {"REFUSAL", true, sizeof(struct refusal_bytes) + 1,
                                sizeof(struct refusal_bytes) + NVLXI_PROTOCOL_REASON_MAX},
    [NVLXI_PROTOCOL_TEXT] = {"TEXT", true, 1, NVLXI_TEXT_MAX},
    [NVLXI_PROTOCOL_CHANGES] = {"CHANGES", true, 1, NVLXI_PROTOCOL_CHANGES_MAX},
    [NVLXI_PROTOCOL_FILES] = {"FILES", true, sizeof(struct files_bytes), sizeof(struct files_bytes)},
    [NVLXI_PROTOCOL_ASK] = {"ASK", false, sizeof(struct ask_bytes) + sizeof(struct nvlxi_protocol_file),
                            sizeof(struct ask_bytes) + NVLXI_PROTOCOL_FILES_MAX * sizeof(struct nvlxi_protocol_file)},
    [NVLXI_PROTOCOL_DONE] = {"DONE", false, sizeof(struct done_bytes), sizeof(struct done_bytes)},
    [NVLXI_PROTOCOL_GIVEN] = {"GIVEN", true, sizeof(struct given_bytes), sizeof(struct given_bytes)},
    [NVLXI_PROTOCOL_AWAIT] = {"AWAIT", true, sizeof(struct await_bytes), sizeof(struct await_bytes)},
    [NVLXI_PROTOCOL_HOLDS] = {"HOLDS", false, HOLDS_BEFORE_6, sizeof(struct nvlxi_protocol_holds)},
    [NVLXI_PROTOCOL_MESSAGE] = {"MESSAGE", false, sizeof(struct nvlxi_protocol_message),
                                sizeof(struct nvlxi_protocol_message) + NVLXI_PROTOCOL_CHUNK},
    [NVLXI_PROTOCOL_TAKEN] = {"TAKEN", true, sizeof(struct nvlxi_protocol_taken), sizeof(struct nvlxi_protocol_taken)},
    [NVLXI_PROTOCOL_STATS] = {"STATS", false, sizeof(struct stats_bytes), sizeof(struct stats_bytes)},
    [NVLXI_PROTOCOL_REPORT] = {"REPORT", true, sizeof(struct report_bytes) + 1,
                               sizeof(struct report_bytes) + NVLXI_PROTOCOL_REPORT_MAX},
    [NVLXI_PROTOCOL_DENIED] = {"DENIED", true, sizeof(struct denied_bytes) + 1,
                               sizeof(struct denied_bytes) + NVLXI_PROTOCOL_REASON_MAX},
};

/* ---- Writing ------------------------------------------------------------------------------------------- */

static size_t put_header(uint8_t *out, enum nvlxi_protocol_type type, size_t body) {
    const struct header_bytes header = {.length = (uint32_t)body, .type = (uint16_t)type};
    memcpy(out, &header, sizeof header);
    return sizeof header + body;
}

static void put_greeting(uint8_t *body, uint32_t role) {
    const struct greeting_bytes greeting = {
        .magic = NVLXI_PROTOCOL_MAGIC, .major = NVLXI_PROTOCOL_MAJOR, .minor = NVLXI_PROTOCOL_MINOR, .role = role};
    memcpy(body, &greeting, sizeof greeting);
}

size_t nvlxi_protocol_put_hello(uint8_t *out, enum nvlxi_protocol_role role) {
    put_greeting(out + NVLXI_PROTOCOL_HEADER, role);
    return put_header(out, NVLXI_PROTOCOL_HELLO, sizeof(struct greeting_bytes));
}

size_t nvlxi_protocol_put_welcome(uint8_t *out, const char engine[NVLXI_PROTOCOL_ENGINE + 1]) {
    put_greeting(out + NVLXI_PROTOCOL_HEADER, 0);
    memcpy(out + NVLXI_PROTOCOL_HEADER + sizeof(struct greeting_bytes), engine, NVLXI_PROTOCOL_ENGINE);
    return put_header(out, NVLXI_PROTOCOL_WELCOME, sizeof(struct greeting_bytes) + NVLXI_PROTOCOL_ENGINE);
}

/* A reason in plain ASCII, of 1 to NVLXI_PROTOCOL_REASON_MAX bytes. */
static size_t put_reason(uint8_t *reason, const char *text) {
    size_t length = 0;
    for (; length < NVLXI_PROTOCOL_REASON_MAX && text[length]; length++)
        reason[length] = text[length] >= ' ' && text[length] <= '~' ? (uint8_t)text[length] : '?';
    if (!length)
        reason[length++] = '?';
    return length;
}

size_t nvlxi_protocol_put_refusal(uint8_t *out, int code, const char *text) {
    const struct refusal_bytes refusal = {.code = code};
    uint8_t *body = out + NVLXI_PROTOCOL_HEADER;
    memcpy(body, &refusal, sizeof refusal);
    return put_header(out, NVLXI_PROTOCOL_REFUSAL, sizeof refusal + put_reason(body + sizeof refusal, text));
}

size_t nvlxi_protocol_put_denied(uint8_t *out, uint32_t request, int code, const char *text) {
    const struct denied_bytes denied = {.request = request, .code = code};
    uint8_t *body = out + NVLXI_PROTOCOL_HEADER;
    memcpy(body, &denied, sizeof denied);
    return put_header(out, NVLXI_PROTOCOL_DENIED, sizeof denied + put_reason(body + sizeof denied, text));
}

size_t nvlxi_protocol_put_stats(uint8_t *out, uint32_t number) {
    const struct stats_bytes stats = {.number = number};
    memcpy(out + NVLXI_PROTOCOL_HEADER, &stats, sizeof stats);
    return put_header(out, NVLXI_PROTOCOL_STATS, sizeof stats);
}

size_t nvlxi_protocol_put_no_report(uint8_t *out, uint32_t number, int code, const char *reason) {
    const struct report_bytes report = {.number = number, .code = code};
    uint8_t *body = out + NVLXI_PROTOCOL_HEADER;
    memcpy(body, &report, sizeof report);
    return put_header(out, NVLXI_PROTOCOL_REPORT, sizeof report + put_reason(body + sizeof report, reason));
}

size_t nvlxi_protocol_put_report(uint8_t *out, uint32_t number, size_t length) {
    const struct report_bytes report = {.number = number};
    memcpy(out + NVLXI_PROTOCOL_HEADER, &report, sizeof report);
    put_header(out, NVLXI_PROTOCOL_REPORT, sizeof report + length);
    return NVLXI_PROTOCOL_HEADER + sizeof report;
}

size_t nvlxi_protocol_put_ask(uint8_t *out, uint32_t request, const struct nvlxi_protocol_file *files, size_t count) {
    const struct ask_bytes ask = {.request = request};
    uint8_t *body = out + NVLXI_PROTOCOL_HEADER;
    memcpy(body, &ask, sizeof ask);
    memcpy(body + sizeof ask, files, count * sizeof *files);
    return put_header(out, NVLXI_PROTOCOL_ASK, sizeof ask + count * sizeof *files);
}

size_t nvlxi_protocol_put_done(uint8_t *out) {
    const struct done_bytes done = {.zero = 0};
    memcpy(out + NVLXI_PROTOCOL_HEADER, &done, sizeof done);
    return put_header(out, NVLXI_PROTOCOL_DONE, sizeof done);
}

size_t nvlxi_protocol_put_await(uint8_t *out, uint64_t generation) {
    const struct await_bytes await = {.generation = generation};
    memcpy(out + NVLXI_PROTOCOL_HEADER, &await, sizeof await);
    return put_header(out, NVLXI_PROTOCOL_AWAIT, sizeof await);
}

size_t nvlxi_protocol_put_holds(uint8_t *out, const struct nvlxi_protocol_holds *holds, bool graphs) {
    const uint32_t length = graphs ? sizeof *holds : HOLDS_BEFORE_6;
    memcpy(out + NVLXI_PROTOCOL_HEADER, holds, length);
    return put_header(out, NVLXI_PROTOCOL_HOLDS, length);
}

static size_t chunk_of(const struct nvlxi_protocol_message *message) {
    return nvlxi_min(message->length - message->offset, NVLXI_PROTOCOL_CHUNK);
}

size_t nvlxi_protocol_put_message(uint8_t *out, const struct nvlxi_protocol_message *message, const uint8_t *bytes) {
    const size_t count = chunk_of(message);
    memcpy(out + NVLXI_PROTOCOL_HEADER, message, sizeof *message);
    if (count)
        memcpy(out + NVLXI_PROTOCOL_HEADER + sizeof *message, bytes + message->offset, count);
    return put_header(out, NVLXI_PROTOCOL_MESSAGE, sizeof *message + count);
}

size_t nvlxi_protocol_put_taken(uint8_t *out, const struct nvlxi_protocol_taken *taken) {
    memcpy(out + NVLXI_PROTOCOL_HEADER, taken, sizeof *taken);
    return put_header(out, NVLXI_PROTOCOL_TAKEN, sizeof *taken);
}

size_t nvlxi_protocol_put_given(uint8_t *out, uint32_t request, size_t count) {
    const struct given_bytes given = {.request = request, .count = (uint32_t)count};
    memcpy(out + NVLXI_PROTOCOL_HEADER, &given, sizeof given);
    return put_header(out, NVLXI_PROTOCOL_GIVEN, sizeof given);
}

size_t nvlxi_protocol_put_fetch(uint8_t *out, const struct nvlxi_protocol_file *files, size_t count) {
    memcpy(out + NVLXI_PROTOCOL_HEADER, files, count * sizeof *files);
    return put_header(out, NVLXI_PROTOCOL_FETCH, count * sizeof *files);
}

size_t nvlxi_protocol_put_files(uint8_t *out, size_t count) {
    const struct files_bytes files = {.count = (uint32_t)count};
    memcpy(out + NVLXI_PROTOCOL_HEADER, &files, sizeof files);
    return put_header(out, NVLXI_PROTOCOL_FILES, sizeof files);
}

size_t nvlxi_protocol_put_text(uint8_t *out, size_t length) {
    put_header(out, NVLXI_PROTOCOL_TEXT, length);
    return NVLXI_PROTOCOL_HEADER;
}

size_t nvlxi_protocol_put_changes(uint8_t *out, size_t length) {
    put_header(out, NVLXI_PROTOCOL_CHANGES, length);
    return NVLXI_PROTOCOL_HEADER;
}

/* ---- Reading ------------------------------------------------------------------------------------------- */

int nvlxi_protocol_get_header(const uint8_t bytes[NVLXI_PROTOCOL_HEADER], bool from_server,
                              struct nvlxi_protocol_header *header) {
    struct header_bytes known;
    memcpy(&known, bytes, sizeof known);
    if (known.zero || known.type >= sizeof types / sizeof *types || !types[known.type].name ||
        types[known.type].from_server != from_server)
        return nvlxi_fail(NVLX_EFORMAT, "a message of type %u from a %s", (unsigned)known.type,
                          from_server ? "server" : "client");
    if (known.length < types[known.type].shortest || known.length > types[known.type].longest)
        return nvlxi_fail(NVLX_EFORMAT, "a message %s of %" PRIu32 " bytes: it has %" PRIu32 " to %" PRIu32,
                          types[known.type].name, known.length, types[known.type].shortest, types[known.type].longest);
    *header = (struct nvlxi_protocol_header){.length = known.length, .type = known.type};
    return 0;
}

static int get_greeting(const uint8_t *body, struct greeting_bytes *greeting) {
    memcpy(greeting, body, sizeof *greeting);
    if (greeting->magic != NVLXI_PROTOCOL_MAGIC)
        return nvlxi_fail(NVLX_EFORMAT, "the other end is not of this library: its greeting begins with 0x%" PRIx64,
                          greeting->magic);
    if (greeting->major != NVLXI_PROTOCOL_MAJOR)
        return nvlxi_fail(NVLX_EVERSION, "the other end speaks version %u.%u of the protocol, this one %u.%u",
                          (unsigned)greeting->major, (unsigned)greeting->minor, NVLXI_PROTOCOL_MAJOR,
                          NVLXI_PROTOCOL_MINOR);
    return 0;
}

int nvlxi_protocol_get_hello(const uint8_t *body, enum nvlxi_protocol_role *role, unsigned *minor) {
    struct greeting_bytes greeting;
    int code = get_greeting(body, &greeting);
    if (code)
        return code;
    if (greeting.role != NVLXI_PROTOCOL_SUBSCRIBER && greeting.role != NVLXI_PROTOCOL_FETCHER)
        return nvlxi_fail(NVLX_EFORMAT, "a client's role is %" PRIu32, greeting.role);
    *role = (enum nvlxi_protocol_role)greeting.role;
    *minor = greeting.minor;
    return 0;
}

int nvlxi_protocol_get_welcome(const uint8_t *body, char engine[NVLXI_PROTOCOL_ENGINE + 1], unsigned *minor) {
    struct greeting_bytes greeting;
    const char *id = (const char *)body + sizeof greeting;
    int code = get_greeting(body, &greeting);
    if (code)
        return code;
    for (size_t i = 0; i < NVLXI_PROTOCOL_ENGINE; i++)
        if (!id[i] || !strchr("0123456789abcdef", id[i]))
            return nvlxi_fail(NVLX_EFORMAT, "the server's engine id is not 32 digits");
    memcpy(engine, id, NVLXI_PROTOCOL_ENGINE);
    engine[NVLXI_PROTOCOL_ENGINE] = '\0';
    *minor = greeting.minor;
    return 0;
}

/* Whether a server may refuse with it: not with what is a word of this process on its own calls. */
static bool is_refusal(int32_t code) {
    if (code == NVLX_EAGAIN || code == NVLX_EFORK)
        return false;
    switch (code) {
#define IS_ERROR(name, value, text) case (value):
        NVLX_ERRORS(IS_ERROR)
#undef IS_ERROR
        return true;
    default:
        return false;
    }
}

/* A code, and the `count` bytes of a reason. */
static int get_reason(int32_t code, const char *text, size_t count, struct nvlxi_protocol_refusal *refusal) {
    if (!is_refusal(code) || !nvlxi_utf8_bytes_are_name(text, count))
        return nvlxi_fail(NVLX_EFORMAT, "the server refuses with code %" PRId32 ", without a proper reason", code);
    refusal->code = code;
    memcpy(refusal->text, text, count);
    refusal->text[count] = '\0';
    return 0;
}

int nvlxi_protocol_get_refusal(const uint8_t *body, size_t length, struct nvlxi_protocol_refusal *refusal) {
    struct refusal_bytes known;
    memcpy(&known, body, sizeof known);
    if (known.zero)
        return nvlxi_fail(NVLX_EFORMAT, "a refusal with 0x%" PRIx32 " where 0 must be", known.zero);
    return get_reason(known.code, (const char *)body + sizeof known, length - sizeof known, refusal);
}

int nvlxi_protocol_get_denied(const uint8_t *body, size_t length, uint32_t *request,
                              struct nvlxi_protocol_refusal *refusal) {
    struct denied_bytes known;
    memcpy(&known, body, sizeof known);
    *request = known.request;
    return get_reason(known.code, (const char *)body + sizeof known, length - sizeof known, refusal);
}

int nvlxi_protocol_get_stats(const uint8_t *body, uint32_t *number) {
    struct stats_bytes known;
    memcpy(&known, body, sizeof known);
    *number = known.number;
    return known.zero ? nvlxi_fail(NVLX_EFORMAT, "a question for counts with 0x%" PRIx32 " where 0 must be", known.zero)
                      : 0;
}

int nvlxi_protocol_get_report(const uint8_t *body, size_t length, struct nvlxi_protocol_report *report) {
    struct report_bytes known;
    memcpy(&known, body, sizeof known);
    *report = (struct nvlxi_protocol_report){
        .number = known.number, .text = (const char *)body + sizeof known, .length = length - sizeof known};
    if (known.code)
        return report->length > NVLXI_PROTOCOL_REASON_MAX
                   ? nvlxi_fail(NVLX_EFORMAT, "a report with code %" PRId32 " and %zu bytes", known.code,
                                report->length)
                   : get_reason(known.code, report->text, report->length, &report->refusal);
    return memchr(report->text, 0, report->length) ? nvlxi_fail(NVLX_EFORMAT, "a report with a byte 0 in its text") : 0;
}

int nvlxi_protocol_get_fetch(const uint8_t *body, size_t length, struct nvlxi_protocol_file *files, size_t *count) {
    if (length % sizeof *files)
        return nvlxi_fail(NVLX_EFORMAT, "a request for files of %zu bytes: each takes %zu", length, sizeof *files);
    memcpy(files, body, length);
    *count = length / sizeof *files;
    return 0;
}

int nvlxi_protocol_get_ask(const uint8_t *body, size_t length, uint32_t *request, struct nvlxi_protocol_file *files,
                           size_t *count) {
    struct ask_bytes known;
    memcpy(&known, body, sizeof known);
    if (known.zero)
        return nvlxi_fail(NVLX_EFORMAT, "a request for files with 0x%" PRIx32 " where 0 must be", known.zero);
    *request = known.request;
    return nvlxi_protocol_get_fetch(body + sizeof known, length - sizeof known, files, count);
}

void nvlxi_protocol_get_await(const uint8_t *body, uint64_t *generation) {
    struct await_bytes known;
    memcpy(&known, body, sizeof known);
    *generation = known.generation;
}

int nvlxi_protocol_get_holds(const uint8_t *body, size_t length, struct nvlxi_protocol_holds *holds) {
    if (length != sizeof *holds && length != HOLDS_BEFORE_6)
        return nvlxi_fail(NVLX_EFORMAT, "what a peer holds has %zu bytes", length);
    *holds = (struct nvlxi_protocol_holds){0};
    memcpy(holds, body, length);
    return 0;
}

int nvlxi_protocol_get_message(const uint8_t *body, size_t length, struct nvlxi_protocol_message *message,
                               const uint8_t **chunk, size_t *count) {
    memcpy(message, body, sizeof *message);
    *chunk = body + sizeof *message;
    *count = length - sizeof *message;
    if (message->length > NVLXI_MESSAGE_MAX || (!message->number && message->length != NVLXI_PROTOCOL_ENGINE))
        return nvlxi_fail(NVLX_EFORMAT, "message %" PRIu64 " has %" PRIu32 " bytes", message->number, message->length);
    if (message->offset % NVLXI_PROTOCOL_CHUNK || message->offset > message->length ||
        (message->offset && message->offset == message->length) || *count != chunk_of(message))
        return nvlxi_fail(NVLX_EFORMAT, "a chunk of %zu bytes at %" PRIu32 " of a message of %" PRIu32, *count,
                          message->offset, message->length);
    return 0;
}

void nvlxi_protocol_get_taken(const uint8_t *body, struct nvlxi_protocol_taken *taken) {
    memcpy(taken, body, sizeof *taken);
}

static int check_count(uint32_t count) {
    if (count && count <= NVLXI_PROTOCOL_FILES_MAX)
        return 0;
    return nvlxi_fail(NVLX_EFORMAT, "a message of %" PRIu32 " files: it has 1 to %u", count, NVLXI_PROTOCOL_FILES_MAX);
}

int nvlxi_protocol_get_files(const uint8_t *body, size_t *count) {
    struct files_bytes known;
    memcpy(&known, body, sizeof known);
    *count = known.count;
    return known.zero ? nvlxi_fail(NVLX_EFORMAT, "files with 0x%" PRIx32 " where 0 must be", known.zero)
                      : check_count(known.count);
}

int nvlxi_protocol_get_given(const uint8_t *body, uint32_t *request, size_t *count) {
    struct given_bytes known;
    memcpy(&known, body, sizeof known);
    *request = known.request;
    *count = known.count;
    return check_count(known.count);
}
