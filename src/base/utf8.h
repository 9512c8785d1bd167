/* Which names a region may have, and which addresses a server. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLXI_BASE_UTF8_H
#define NVLXI_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Whether `name` is 1 to 255 bytes of valid UTF-8 without control characters (U+0000 to U+001F, U+007F to U+009F). */
bool nvlxi_utf8_is_name(const char *name);

/* The same for bytes without a final NUL. */
bool nvlxi_utf8_bytes_are_name(const char *bytes, size_t length);

/* Whether it is an absolute path or "@name", of 2 to 107 bytes, which may be a name. */
bool nvlxi_address_bytes_valid(const char *bytes, size_t length);

/* The bytes of a text to be shown by "%.*s", `most` at most, which end with a whole character. */
int nvlxi_text_cut(const char *text, int most);

/* Control characters become '?': what was named by others, such as a refused name, makes no further line. */
void nvlxi_text_to_line(char *text);

#ifdef __cplusplus
}
#endif

#endif
