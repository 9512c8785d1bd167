/* Whether another process is there. SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLX_BINDINGS_NIXL_PROCESS_H
#define NVLX_BINDINGS_NIXL_PROCESS_H

#include <cstdint>

namespace nvlx::nixl {

/* It has ended, waited for by its parent or not. Of one of another PID namespace (0) nothing is known: false. */
bool is_gone(int64_t pid);

} // namespace nvlx::nixl

#endif
