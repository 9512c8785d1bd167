/* What the plugin says: one line on stderr for what it decides itself. What the library decides, the library logs.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLX_BINDINGS_NIXL_SAY_H
#define NVLX_BINDINGS_NIXL_SAY_H

#include "bindings/nixl/abi.h"

namespace nvlx::nixl {

[[gnu::format(printf, 1, 2)]] void say(const char *format, ...);

/* Says why, and is that status. */
[[gnu::format(printf, 2, 3)]] abi::Status refuse(abi::Status status, const char *format, ...);

/* What a code of the library is to NIXL. NVLX_ESTALE is memory that was withdrawn: who knows that the peer is gone
 * says `disconnected` instead. */
abi::Status status_of(int code);

} // namespace nvlx::nixl

#endif
