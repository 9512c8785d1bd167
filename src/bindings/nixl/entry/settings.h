/* What a user can set: parameters of create_backend, or environment variables. A parameter "connect_ms" is the variable
 * NVLX_NIXL_CONNECT_MS; the parameter counts where both are there. vLLM passes no parameters: it has the variables.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef NVLX_BINDINGS_NIXL_ENTRY_SETTINGS_H
#define NVLX_BINDINGS_NIXL_ENTRY_SETTINGS_H

#include "bindings/nixl/abi.h"

namespace nvlx::nixl {

struct Settings {
    std::string
        folder; /* where the socket file is made; "": an abstract address, which ends at the network namespace */
    int64_t connect_ns;   /* how long a peer's server may be silent */
    int64_t answer_ns;    /* how long a peer may take to copy DRAM, and who has asked to take the answer */
    int64_t withdraw_ns;  /* how long deregister_memory waits for who still uses the memory */
    uint64_t list_memory; /* nvlx_config.list_memory */
    uint64_t max_sms;     /* nvlx_config.max_sms */
    uint64_t connections; /* how many peers may be connected */
    uint32_t mechanism;   /* nvlx_config.mechanism */
    bool traced;          /* peers may be let at DRAM segments by PR_SET_PTRACER, where the kernel has Yama */
};

/* All parameters and their defaults, as NIXL shows them. */
abi::Parameters default_parameters();

/* False, and says so, if a value is wrong. Parameters that are not ours are passed over. */
bool read_settings(const abi::Parameters *parameters, Settings &settings);

} // namespace nvlx::nixl

#endif
