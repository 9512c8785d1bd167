/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "error.h"
#include "name.h"

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

static_assert(sizeof(struct header_bytes) == NVLXI_WIRE_HEADER, "no padding");
static_assert(sizeof(struct greeting_bytes) == 16 && sizeof(struct refusal_bytes) == 8, "no padding");
static_assert(sizeof(struct files_bytes) == 8 && sizeof(struct nvlxi_wire_file) == 16, "no padding");

static const struct {
    const char *name;
    bool from_server;
    uint32_t shortest, longest; /* body */
} types[] = {
    [NVLXI_WIRE_HELLO] = {"HELLO", false, sizeof(struct greeting_bytes), NVLXI_WIRE_GREETING_MAX},
    [NVLXI_WIRE_FETCH] = {"FETCH", false, sizeof(struct nvlxi_wire_file),
                          NVLXI_WIRE_FILES_MAX * sizeof(struct nvlxi_wire_file)},
    [NVLXI_WIRE_WELCOME] = {"WELCOME", true, sizeof(struct greeting_bytes) + NVLXI_WIRE_ENGINE,
                            NVLXI_WIRE_GREETING_MAX},
    [NVLXI_WIRE_REFUSAL] = {"REFUSAL", true, sizeof(struct refusal_bytes) + 1,
                            sizeof(struct refusal_bytes) + NVLXI_WIRE_REASON_MAX},
    [NVLXI_WIRE_TEXT] = {"TEXT", true, 1, NVLXI_TEXT_MAX},
    [NVLXI_WIRE_FILES] = {"FILES", true, sizeof(struct files_bytes), sizeof(struct files_bytes)},
};

/* ---- Writing ------------------------------------------------------------------------------------------- */

static size_t put_header(uint8_t *out, enum nvlxi_wire_type type, size_t body) {
    const struct header_bytes header = {.length = (uint32_t)body, .type = (uint16_t)type};
    memcpy(out, &header, sizeof header);
    return sizeof header + body;
}

static void put_greeting(uint8_t *body, uint32_t role) {
    const struct greeting_bytes greeting = {
        .magic = NVLXI_PROTOCOL_MAGIC, .major = NVLXI_PROTOCOL_MAJOR, .minor = NVLXI_PROTOCOL_MINOR, .role = role};
    memcpy(body, &greeting, sizeof greeting);
}

size_t nvlxi_wire_put_hello(uint8_t *out, enum nvlxi_wire_role role) {
    put_greeting(out + NVLXI_WIRE_HEADER, role);
    return put_header(out, NVLXI_WIRE_HELLO, sizeof(struct greeting_bytes));
}

size_t nvlxi_wire_put_welcome(uint8_t *out, const char engine[NVLXI_WIRE_ENGINE + 1]) {
    put_greeting(out + NVLXI_WIRE_HEADER, 0);
    memcpy(out + NVLXI_WIRE_HEADER + sizeof(struct greeting_bytes), engine, NVLXI_WIRE_ENGINE);
    return put_header(out, NVLXI_WIRE_WELCOME, sizeof(struct greeting_bytes) + NVLXI_WIRE_ENGINE);
}

size_t nvlxi_wire_put_refusal(uint8_t *out, int code, const char *text) {
    const struct refusal_bytes refusal = {.code = code};
    uint8_t *body = out + NVLXI_WIRE_HEADER, *reason = body + sizeof refusal;
    size_t length = 0;
    memcpy(body, &refusal, sizeof refusal);
    for (; length < NVLXI_WIRE_REASON_MAX && text[length]; length++)
        reason[length] = text[length] >= ' ' && text[length] <= '~' ? (uint8_t)text[length] : '?';
    if (!length)
        reason[length++] = '?';
    return put_header(out, NVLXI_WIRE_REFUSAL, sizeof refusal + length);
}

size_t nvlxi_wire_put_fetch(uint8_t *out, const struct nvlxi_wire_file *files, size_t count) {
    memcpy(out + NVLXI_WIRE_HEADER, files, count * sizeof *files);
    return put_header(out, NVLXI_WIRE_FETCH, count * sizeof *files);
}

size_t nvlxi_wire_put_files(uint8_t *out, size_t count) {
    const struct files_bytes files = {.count = (uint32_t)count};
    memcpy(out + NVLXI_WIRE_HEADER, &files, sizeof files);
    return put_header(out, NVLXI_WIRE_FILES, sizeof files);
}

size_t nvlxi_wire_put_text(uint8_t *out, size_t length) {
    put_header(out, NVLXI_WIRE_TEXT, length);
    return NVLXI_WIRE_HEADER;
}

/* ---- Reading ------------------------------------------------------------------------------------------- */

int nvlxi_wire_get_header(const uint8_t bytes[NVLXI_WIRE_HEADER], bool from_server, struct nvlxi_wire_header *header) {
    struct header_bytes known;
    memcpy(&known, bytes, sizeof known);
    if (known.zero || known.type >= sizeof types / sizeof *types || !types[known.type].name ||
        types[known.type].from_server != from_server)
        return nvlxi_fail(NVLX_EFORMAT, "a message of type %u from a %s", (unsigned)known.type,
                          from_server ? "server" : "client");
    if (known.length < types[known.type].shortest || known.length > types[known.type].longest)
        return nvlxi_fail(NVLX_EFORMAT, "a message %s of %" PRIu32 " bytes: it has %" PRIu32 " to %" PRIu32,
                          types[known.type].name, known.length, types[known.type].shortest, types[known.type].longest);
    *header = (struct nvlxi_wire_header){.length = known.length, .type = known.type};
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

int nvlxi_wire_get_hello(const uint8_t *body, enum nvlxi_wire_role *role) {
    struct greeting_bytes greeting;
    int code = get_greeting(body, &greeting);
    if (code)
        return code;
    if (greeting.role != NVLXI_WIRE_SUBSCRIBER && greeting.role != NVLXI_WIRE_FETCHER)
        return nvlxi_fail(NVLX_EFORMAT, "a client's role is %" PRIu32, greeting.role);
    *role = (enum nvlxi_wire_role)greeting.role;
    return 0;
}

int nvlxi_wire_get_welcome(const uint8_t *body, char engine[NVLXI_WIRE_ENGINE + 1]) {
    struct greeting_bytes greeting;
    const char *id = (const char *)body + sizeof greeting;
    int code = get_greeting(body, &greeting);
    if (code)
        return code;
    for (size_t i = 0; i < NVLXI_WIRE_ENGINE; i++)
        if (!id[i] || !strchr("0123456789abcdef", id[i]))
            return nvlxi_fail(NVLX_EFORMAT, "the server's engine id is not 32 digits");
    memcpy(engine, id, NVLXI_WIRE_ENGINE);
    engine[NVLXI_WIRE_ENGINE] = '\0';
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

int nvlxi_wire_get_refusal(const uint8_t *body, size_t length, struct nvlxi_wire_refusal *refusal) {
    struct refusal_bytes known;
    memcpy(&known, body, sizeof known);
    const char *text = (const char *)body + sizeof known;
    size_t count = length - sizeof known;
    if (!is_refusal(known.code) || known.zero || !nvlxi_name_bytes_valid(text, count))
        return nvlxi_fail(NVLX_EFORMAT, "the server refuses with code %" PRId32 ", without a proper reason",
                          known.code);
    refusal->code = known.code;
    memcpy(refusal->text, text, count);
    refusal->text[count] = '\0';
    return 0;
}

int nvlxi_wire_get_fetch(const uint8_t *body, size_t length, struct nvlxi_wire_file *files, size_t *count) {
    if (length % sizeof *files)
        return nvlxi_fail(NVLX_EFORMAT, "a request for files of %zu bytes: each takes %zu", length, sizeof *files);
    memcpy(files, body, length);
    *count = length / sizeof *files;
    return 0;
}

int nvlxi_wire_get_files(const uint8_t *body, size_t *count) {
    struct files_bytes known;
    memcpy(&known, body, sizeof known);
    if (!known.count || known.count > NVLXI_WIRE_FILES_MAX || known.zero)
        return nvlxi_fail(NVLX_EFORMAT, "a message of %" PRIu32 " files: it has 1 to %u", known.count,
                          NVLXI_WIRE_FILES_MAX);
    *count = known.count;
    return 0;
}
