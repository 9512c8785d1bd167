/* Messages of the rendezvous: round trips, limits, and what is refused. SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "checks/protocol_check.h"
#include "cmocka_main.h"

#define ENGINE "0123456789abcdef0123456789abcdef"

static uint8_t message[NVLXI_PROTOCOL_ASK_MAX + 16];
static const uint8_t *const body = message + NVLXI_PROTOCOL_HEADER;

static struct nvlxi_protocol_header header_of(bool from_server, size_t length) {
    struct nvlxi_protocol_header header;
    assert_int_equal(nvlxi_protocol_get_header(message, from_server, &header), 0);
    assert_int_equal(NVLXI_PROTOCOL_HEADER + header.length, length);
    assert_int_equal(nvlxi_protocol_get_header(message, !from_server, &header), NVLX_EFORMAT);
    return header;
}

static void expect_header(uint32_t length, uint16_t type, uint16_t zero, bool from_server, int code) {
    uint8_t bytes[NVLXI_PROTOCOL_HEADER];
    struct nvlxi_protocol_header header = {.length = 77};
    memcpy(bytes, &length, 4);
    memcpy(bytes + 4, &type, 2);
    memcpy(bytes + 6, &zero, 2);
    assert_int_equal(nvlxi_protocol_get_header(bytes, from_server, &header), code);
    assert_int_equal(header.length, code ? 77 : length);
}

static void greetings(void **state) {
    (void)state;
    enum nvlxi_protocol_role role;
    char engine[NVLXI_PROTOCOL_ENGINE + 1];
    unsigned minor = 77;
    for (enum nvlxi_protocol_role given = NVLXI_PROTOCOL_SUBSCRIBER; given <= NVLXI_PROTOCOL_FETCHER; given++) {
        assert_int_equal(header_of(false, nvlxi_protocol_put_hello(message, given)).type, NVLXI_PROTOCOL_HELLO);
        assert_int_equal(nvlxi_protocol_get_hello(body, &role, &minor), 0);
        assert_int_equal(role, given);
    }
    assert_int_equal(header_of(true, nvlxi_protocol_put_welcome(message, ENGINE)).type, NVLXI_PROTOCOL_WELCOME);
    assert_int_equal(minor, NVLXI_PROTOCOL_MINOR);
    assert_int_equal(nvlxi_protocol_get_welcome(body, engine, &minor), 0);
    assert_string_equal(engine, ENGINE);
    assert_int_equal(minor, NVLXI_PROTOCOL_MINOR);
    message[NVLXI_PROTOCOL_HEADER + 16] = 'X';
    assert_int_equal(nvlxi_protocol_get_welcome(body, engine, &minor), NVLX_EFORMAT);
    message[NVLXI_PROTOCOL_HEADER + 16] = '\0';
    assert_int_equal(nvlxi_protocol_get_welcome(body, engine, &minor), NVLX_EFORMAT);
}

static void versions(void **state) {
    (void)state;
    enum nvlxi_protocol_role role;
    unsigned minor = 0;
    uint16_t version = NVLXI_PROTOCOL_MINOR + 5;
    nvlxi_protocol_put_hello(message, NVLXI_PROTOCOL_FETCHER);
    memcpy(message + NVLXI_PROTOCOL_HEADER + 10, &version, 2);
    assert_int_equal(nvlxi_protocol_get_hello(body, &role, &minor), 0);
    assert_int_equal(minor, version);
    version = NVLXI_PROTOCOL_MAJOR + 1;
    memcpy(message + NVLXI_PROTOCOL_HEADER + 8, &version, 2);
    assert_int_equal(nvlxi_protocol_get_hello(body, &role, &minor), NVLX_EVERSION);
    assert_non_null(strstr(nvlx_last_error(), "version 2.11"));
    message[NVLXI_PROTOCOL_HEADER] ^= 1;
    assert_int_equal(nvlxi_protocol_get_hello(body, &role, &minor), NVLX_EFORMAT);
    for (uint32_t wrong = 0; wrong < 100; wrong = wrong ? 2 * wrong : 3) {
        nvlxi_protocol_put_hello(message, (enum nvlxi_protocol_role)wrong);
        if (wrong != NVLXI_PROTOCOL_SUBSCRIBER && wrong != NVLXI_PROTOCOL_FETCHER)
            assert_int_equal(nvlxi_protocol_get_hello(body, &role, &minor), NVLX_EFORMAT);
    }
    /* a newer minor version's are longer */
    expect_header(NVLXI_PROTOCOL_GREETING_MAX, NVLXI_PROTOCOL_HELLO, 0, false, 0);
    expect_header(NVLXI_PROTOCOL_GREETING_MAX, NVLXI_PROTOCOL_WELCOME, 0, true, 0);
    expect_header(NVLXI_PROTOCOL_GREETING_MAX + 1, NVLXI_PROTOCOL_HELLO, 0, false, NVLX_EFORMAT);
}

static void headers(void **state) {
    (void)state;
    for (uint16_t type = 0; type < 20; type++) {
        bool known = type >= NVLXI_PROTOCOL_HELLO && type <= NVLXI_PROTOCOL_REPORT;
        expect_header(UINT32_MAX, type, 0, true, NVLX_EFORMAT);
        expect_header(UINT32_MAX, type, 0, false, NVLX_EFORMAT);
        expect_header(0, type, 0, true, NVLX_EFORMAT);
        expect_header(0, type, 0, false, NVLX_EFORMAT);
        if (!known)
            expect_header(16, type, 0, false, NVLX_EFORMAT);
    }
    expect_header(16, NVLXI_PROTOCOL_HELLO, 1, false, NVLX_EFORMAT);
    expect_header(15, NVLXI_PROTOCOL_HELLO, 0, false, NVLX_EFORMAT);
    expect_header(16, UINT16_MAX, 0, false, NVLX_EFORMAT);
    expect_header(1, NVLXI_PROTOCOL_TEXT, 0, true, 0);
    expect_header(NVLXI_TEXT_MAX, NVLXI_PROTOCOL_TEXT, 0, true, 0);
    expect_header(NVLXI_TEXT_MAX + 1, NVLXI_PROTOCOL_TEXT, 0, true, NVLX_EFORMAT);
    expect_header(1, NVLXI_PROTOCOL_CHANGES, 0, true, 0);
    expect_header(1, NVLXI_PROTOCOL_CHANGES, 0, false, NVLX_EFORMAT);
    expect_header(0, NVLXI_PROTOCOL_CHANGES, 0, true, NVLX_EFORMAT);
    expect_header(NVLXI_PROTOCOL_CHANGES_MAX, NVLXI_PROTOCOL_CHANGES, 0, true, 0);
    expect_header(NVLXI_PROTOCOL_CHANGES_MAX + 1, NVLXI_PROTOCOL_CHANGES, 0, true, NVLX_EFORMAT);
    assert_int_equal(header_of(true, nvlxi_protocol_put_changes(message, 54321) + 54321).type, NVLXI_PROTOCOL_CHANGES);
    nvlxi_protocol_put_text(message, 12345);
    header_of(true, NVLXI_PROTOCOL_HEADER + 12345);
}

static void refusals(void **state) {
    (void)state;
    struct nvlxi_protocol_refusal refusal;
    char longer[1000];
    uint32_t length = header_of(true, nvlxi_protocol_put_refusal(message, NVLX_EBUSY, "full \n \xff")).length;
    assert_int_equal(nvlxi_protocol_get_refusal(body, length, &refusal), 0);
    assert_int_equal(refusal.code, NVLX_EBUSY);
    assert_string_equal(refusal.text, "full ? ?");
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    length = header_of(true, nvlxi_protocol_put_refusal(message, NVLX_EACCES, longer)).length;
    assert_int_equal(nvlxi_protocol_get_refusal(body, length, &refusal), 0);
    assert_int_equal(strlen(refusal.text), NVLXI_PROTOCOL_REASON_MAX);
    message[NVLXI_PROTOCOL_HEADER + 8 + 100] = '\n';
    assert_int_equal(nvlxi_protocol_get_refusal(body, length, &refusal), NVLX_EFORMAT);
    length = header_of(true, nvlxi_protocol_put_refusal(message, NVLX_EACCES, "")).length;
    assert_int_equal(nvlxi_protocol_get_refusal(body, length, &refusal), 0);
    static const int wrong[] = {0, 1, -19, -1000, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        length = (uint32_t)nvlxi_protocol_put_refusal(message, wrong[i], "why") - NVLXI_PROTOCOL_HEADER;
        assert_int_equal(nvlxi_protocol_get_refusal(body, length, &refusal), NVLX_EFORMAT);
    }
}

static void files(void **state) {
    (void)state;
    static struct nvlxi_protocol_file given[NVLXI_PROTOCOL_FILES_MAX], got[NVLXI_PROTOCOL_FILES_MAX];
    size_t count;
    for (size_t i = 0; i < NVLXI_PROTOCOL_FILES_MAX; i++)
        given[i] = (struct nvlxi_protocol_file){i * 0x123456789, UINT64_MAX - i};
    for (size_t i = 1; i <= NVLXI_PROTOCOL_FILES_MAX; i += 36) {
        uint32_t length = header_of(false, nvlxi_protocol_put_fetch(message, given, i)).length;
        assert_int_equal(nvlxi_protocol_get_fetch(body, length, got, &count), 0);
        assert_int_equal(count, i);
        assert_memory_equal(given, got, i * sizeof *given);
        assert_int_equal(nvlxi_protocol_get_fetch(body, length - 1, got, &count), NVLX_EFORMAT);
        header_of(true, nvlxi_protocol_put_files(message, i));
        assert_int_equal(nvlxi_protocol_get_files(body, &count), 0);
        assert_int_equal(count, i);
    }
    nvlxi_protocol_put_files(message, 0);
    assert_int_equal(nvlxi_protocol_get_files(body, &count), NVLX_EFORMAT);
    nvlxi_protocol_put_files(message, NVLXI_PROTOCOL_FILES_MAX + 1);
    assert_int_equal(nvlxi_protocol_get_files(body, &count), NVLX_EFORMAT);
    expect_header((NVLXI_PROTOCOL_FILES_MAX + 1) * 16, NVLXI_PROTOCOL_FETCH, 0, false, NVLX_EFORMAT);
}

static void asks(void **state) {
    (void)state;
    static struct nvlxi_protocol_file given[NVLXI_PROTOCOL_FILES_MAX], got[NVLXI_PROTOCOL_FILES_MAX];
    struct nvlxi_protocol_refusal refusal;
    size_t count;
    uint32_t request;
    for (size_t i = 0; i < NVLXI_PROTOCOL_FILES_MAX; i++)
        given[i] = (struct nvlxi_protocol_file){i * 0x123456789, UINT64_MAX - i};
    for (size_t i = 1; i <= NVLXI_PROTOCOL_FILES_MAX; i += 36) {
        uint32_t length = header_of(false, nvlxi_protocol_put_ask(message, UINT32_MAX - (uint32_t)i, given, i)).length;
        assert_int_equal(nvlxi_protocol_get_ask(body, length, &request, got, &count), 0);
        assert_int_equal(request, UINT32_MAX - i);
        assert_int_equal(count, i);
        assert_memory_equal(given, got, i * sizeof *given);
        assert_int_equal(nvlxi_protocol_get_ask(body, length - 1, &request, got, &count), NVLX_EFORMAT);
        message[NVLXI_PROTOCOL_HEADER + 5] = 1;
        assert_int_equal(nvlxi_protocol_get_ask(body, length, &request, got, &count), NVLX_EFORMAT);
        header_of(true, nvlxi_protocol_put_given(message, 5, i));
        assert_int_equal(nvlxi_protocol_get_given(body, &request, &count), 0);
        assert_int_equal(count, i);
        assert_int_equal(request, 5);
    }
    for (uint32_t wrong = 0; wrong < 2; wrong++) {
        nvlxi_protocol_put_given(message, 5, wrong * (NVLXI_PROTOCOL_FILES_MAX + 1));
        assert_int_equal(nvlxi_protocol_get_given(body, &request, &count), NVLX_EFORMAT);
    }
    uint32_t length = header_of(true, nvlxi_protocol_put_denied(message, 9, NVLX_ESTALE, "gone \n")).length;
    assert_int_equal(nvlxi_protocol_get_denied(body, length, &request, &refusal), 0);
    assert_int_equal(request, 9);
    assert_int_equal(refusal.code, NVLX_ESTALE);
    assert_string_equal(refusal.text, "gone ?");
    length = header_of(true, nvlxi_protocol_put_denied(message, 9, NVLX_EAGAIN, "gone")).length;
    assert_int_equal(nvlxi_protocol_get_denied(body, length, &request, &refusal), NVLX_EFORMAT);
    header_of(false, nvlxi_protocol_put_done(message));
    uint64_t generation;
    assert_int_equal(header_of(true, nvlxi_protocol_put_await(message, UINT64_MAX - 1)).type, NVLXI_PROTOCOL_AWAIT);
    nvlxi_protocol_get_await(body, &generation);
    assert_true(generation == UINT64_MAX - 1);
    struct nvlxi_protocol_holds read, holds = {UINT64_MAX - 2, 7, UINT32_MAX, 3, 0};
    length = header_of(false, nvlxi_protocol_put_holds(message, &holds, true)).length;
    assert_int_equal(nvlxi_protocol_get_holds(body, length, &read), 0);
    assert_memory_equal(&read, &holds, sizeof read);
    assert_int_equal(nvlxi_protocol_get_holds(body, length - 4, &read), NVLX_EFORMAT);
    length = header_of(false, nvlxi_protocol_put_holds(message, &holds, false)).length;
    assert_int_equal(length, 16);
    holds.graphs = 0;
    assert_int_equal(nvlxi_protocol_get_holds(body, length, &read), 0);
    assert_memory_equal(&read, &holds, sizeof read);
    expect_header(8 + 16, NVLXI_PROTOCOL_ASK, 0, false, 0);
    expect_header(8, NVLXI_PROTOCOL_ASK, 0, false, NVLX_EFORMAT);
    expect_header(8 + (NVLXI_PROTOCOL_FILES_MAX + 1) * 16, NVLXI_PROTOCOL_ASK, 0, false, NVLX_EFORMAT);
    expect_header(9, NVLXI_PROTOCOL_DONE, 0, false, NVLX_EFORMAT);
    expect_header(9, NVLXI_PROTOCOL_GIVEN, 0, true, NVLX_EFORMAT);
    expect_header(8, NVLXI_PROTOCOL_DENIED, 0, true, NVLX_EFORMAT);
}

/* A message of any length in its chunks, put together again. */
static void expect_message(uint32_t size) {
    static uint8_t given[NVLXI_MESSAGE_MAX], got[NVLXI_MESSAGE_MAX], out[NVLXI_PROTOCOL_MESSAGE_MAX];
    struct nvlxi_protocol_message part = {.number = UINT64_MAX - 5, .length = size}, read;
    const uint8_t *chunk;
    size_t count;
    for (uint32_t i = 0; i < size; i++)
        given[i] = (uint8_t)(i * 7 + i / 256);
    do {
        const size_t length = nvlxi_protocol_put_message(out, &part, given);
        struct nvlxi_protocol_header header;
        assert_int_equal(nvlxi_protocol_get_header(out, true, &header), NVLX_EFORMAT);
        assert_int_equal(nvlxi_protocol_get_header(out, false, &header), 0);
        assert_int_equal(header.length + NVLXI_PROTOCOL_HEADER, length);
        assert_int_equal(nvlxi_protocol_get_message(out + NVLXI_PROTOCOL_HEADER, header.length, &read, &chunk, &count),
                         0);
        assert_memory_equal(&read, &part, sizeof read);
        memcpy(got + read.offset, chunk, count);
        part.offset += (uint32_t)count;
    } while (part.offset < size);
    assert_int_equal(part.offset, size);
    assert_memory_equal(got, given, size);
}

static void refuse_message(uint64_t number, uint32_t length, uint32_t offset, size_t count) {
    static uint8_t bytes[NVLXI_PROTOCOL_MESSAGE_MAX];
    struct nvlxi_protocol_message part = {number, length, offset};
    const uint8_t *chunk;
    memcpy(bytes, &part, sizeof part);
    assert_int_equal(nvlxi_protocol_get_message(bytes, sizeof part + count, &part, &chunk, &count), NVLX_EFORMAT);
}

static void messages(void **state) {
    (void)state;
    static const uint32_t sizes[] = {
        0, 1, NVLXI_PROTOCOL_CHUNK - 1, NVLXI_PROTOCOL_CHUNK, NVLXI_PROTOCOL_CHUNK + 1, NVLXI_MESSAGE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        expect_message(sizes[i]);
    refuse_message(1, NVLXI_MESSAGE_MAX + 1, 0, NVLXI_PROTOCOL_CHUNK);
    refuse_message(1, 10, 0, 9);
    refuse_message(1, 10, 0, 11);
    refuse_message(1, 10, 5, 5);
    refuse_message(1, NVLXI_PROTOCOL_CHUNK, NVLXI_PROTOCOL_CHUNK, 0);
    refuse_message(1, 10, UINT32_MAX - NVLXI_PROTOCOL_CHUNK + 1, 10);
    refuse_message(1, 2 * NVLXI_PROTOCOL_CHUNK, 0, NVLXI_PROTOCOL_CHUNK - 1);
    refuse_message(0, 31, 0, 31);
    expect_header(15, NVLXI_PROTOCOL_MESSAGE, 0, false, NVLX_EFORMAT);
    expect_header(17 + NVLXI_PROTOCOL_CHUNK, NVLXI_PROTOCOL_MESSAGE, 0, false, NVLX_EFORMAT);
    const struct nvlxi_protocol_taken taken = {UINT64_MAX - 1, 5};
    struct nvlxi_protocol_taken read;
    assert_int_equal(header_of(true, nvlxi_protocol_put_taken(message, &taken)).type, NVLXI_PROTOCOL_TAKEN);
    nvlxi_protocol_get_taken(body, &read);
    assert_memory_equal(&read, &taken, sizeof read);
    expect_header(8, NVLXI_PROTOCOL_TAKEN, 0, true, NVLX_EFORMAT);
}

static void reports(void **state) {
    struct nvlxi_protocol_report report;
    uint32_t number = 0;
    (void)state;
    assert_int_equal(header_of(false, nvlxi_protocol_put_stats(message, 77)).type, NVLXI_PROTOCOL_STATS);
    assert_int_equal(nvlxi_protocol_get_stats(body, &number), 0);
    assert_int_equal(number, 77);
    message[NVLXI_PROTOCOL_HEADER + 4] = 1;
    assert_int_equal(nvlxi_protocol_get_stats(body, &number), NVLX_EFORMAT);
    const size_t head = nvlxi_protocol_put_report(message, 5, 3);
    memcpy(message + head, "a 1", 3);
    assert_int_equal(header_of(true, head + 3).type, NVLXI_PROTOCOL_REPORT);
    assert_int_equal(nvlxi_protocol_get_report(body, 8 + 3, &report), 0);
    assert_int_equal(report.number, 5);
    assert_int_equal(report.refusal.code, 0);
    assert_int_equal(report.length, 3);
    assert_memory_equal(report.text, "a 1", 3);
    message[head + 1] = 0;
    assert_int_equal(nvlxi_protocol_get_report(body, 8 + 3, &report), NVLX_EFORMAT);
    const size_t length = nvlxi_protocol_put_no_report(message, 6, NVLX_EACCES, "it does not");
    assert_int_equal(header_of(true, length).type, NVLXI_PROTOCOL_REPORT);
    assert_int_equal(nvlxi_protocol_get_report(body, length - NVLXI_PROTOCOL_HEADER, &report), 0);
    assert_int_equal(report.refusal.code, NVLX_EACCES);
    assert_string_equal(report.refusal.text, "it does not");
    message[NVLXI_PROTOCOL_HEADER + 4] = 1; /* no code that a server refuses with */
    assert_int_equal(nvlxi_protocol_get_report(body, length - NVLXI_PROTOCOL_HEADER, &report), NVLX_EFORMAT);
    expect_header(16, NVLXI_PROTOCOL_STATS, 0, false, NVLX_EFORMAT);
    expect_header(8, NVLXI_PROTOCOL_REPORT, 0, true, NVLX_EFORMAT);
    expect_header(9 + NVLXI_PROTOCOL_REPORT_MAX, NVLXI_PROTOCOL_REPORT, 0, true, NVLX_EFORMAT);
}

/* As the fuzzer does, where there is none. */
static void random_streams(void **state) {
    (void)state;
    uint8_t bytes[300];
    srand(1);
    for (int round = 0; round < 100000; round++) {
        size_t length = (size_t)rand() % sizeof bytes;
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)(rand() >> 7);
        if (length > 24) {
            bytes[0] = (uint8_t)(length - 8), bytes[1] = bytes[2] = bytes[3] = bytes[5] = bytes[6] = bytes[7] = 0;
            bytes[4] = (uint8_t)(rand() % 17);
            if (round % 2)
                nvlxi_protocol_put_hello(bytes, NVLXI_PROTOCOL_FETCHER);
        }
        assert_null(check_stream(bytes, length, round % 3));
    }
}

static const struct CMUnitTest cases[] = {
    cmocka_unit_test(greetings), cmocka_unit_test(versions), cmocka_unit_test(headers),
    cmocka_unit_test(refusals),  cmocka_unit_test(files),    cmocka_unit_test(asks),
    cmocka_unit_test(messages),  cmocka_unit_test(reports),  cmocka_unit_test(random_streams)};
const struct program program = {.name = "protocol", .cases = cases, .count = COUNT(cases)};
