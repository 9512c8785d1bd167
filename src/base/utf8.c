/* Which names a region may have, and which addresses a server. SPDX-License-Identifier: Apache-2.0 */
#include "base/utf8.h"

#include <stdint.h>
#include <string.h>

#include "base/records.h"

enum { NAME_BYTES_MAX = 255 };

/* The bytes of the UTF-8 sequence that starts with `lead`, with the least code point that needs so many; 0 if none
 * starts with it. */
static size_t sequence(uint8_t lead, uint32_t *least, uint32_t *code_point) {
    if (lead < 0x80) {
        *least = 0;
        *code_point = lead;
        return 1;
    }
    if ((lead & 0xe0) == 0xc0) {
        *least = 0x80;
        *code_point = lead & 0x1f;
        return 2;
    }
    if ((lead & 0xf0) == 0xe0) {
        *least = 0x800;
        *code_point = lead & 0x0f;
        return 3;
    }
    if ((lead & 0xf8) == 0xf0) {
        *least = 0x10000;
        *code_point = lead & 0x07;
        return 4;
    }
    return 0;
}

static bool is_allowed(uint32_t code_point) {
    bool control = code_point < 0x20 || (code_point >= 0x7f && code_point <= 0x9f);
    bool surrogate = code_point >= 0xd800 && code_point <= 0xdfff;
    return !control && !surrogate && code_point <= 0x10ffff;
}

/* The bytes of the valid, allowed character at `bytes`, or 0. */
static size_t character(const char *bytes, size_t length) {
    uint32_t least, code_point;
    size_t count = sequence((uint8_t)bytes[0], &least, &code_point);
    if (count == 0 || count > length)
        return 0;
    for (size_t i = 1; i < count; i++) {
        uint8_t byte = (uint8_t)bytes[i];
        if ((byte & 0xc0) != 0x80)
            return 0;
        code_point = code_point << 6 | (byte & 0x3f);
    }
    return code_point >= least && is_allowed(code_point) ? count : 0;
}

bool nvlxi_utf8_bytes_are_name(const char *bytes, size_t length) {
    if (length == 0 || length > NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < length;) {
        size_t count = character(bytes + i, length - i);
        if (count == 0)
            return false;
        i += count;
    }
    return true;
}

bool nvlxi_utf8_is_name(const char *name) {
    return nvlxi_utf8_bytes_are_name(name, strnlen(name, NAME_BYTES_MAX + 1));
}

bool nvlxi_address_bytes_valid(const char *bytes, size_t length) {
    return length >= 2 && length <= NVLXI_ADDRESS_MAX && (bytes[0] == '/' || bytes[0] == '@') &&
           nvlxi_utf8_bytes_are_name(bytes, length);
}

int nvlxi_text_cut(const char *text, int most) {
    int length = (int)strnlen(text, (size_t)most + 1);
    if (length <= most)
        return length;
    for (int cut = most; cut > most - 4; cut--) /* a character has 4 bytes at most */
        if (((uint8_t)text[cut] & 0xc0) != 0x80)
            return cut;
    return most;
}

void nvlxi_text_to_line(char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
}
