// Reads JSON that is not trusted. What it may be is described in decode.cc. SPDX-License-Identifier: Apache-2.0
#ifndef NVLXI_DESCRIPTOR_JSON_H
#define NVLXI_DESCRIPTOR_JSON_H

#include <string_view>

namespace Json {
class Value;
}

namespace nvlxi {

// NVLX_EFORMAT: not strict JSON, too many levels or values.
int read_json(std::string_view text, Json::Value *root);

} // namespace nvlxi

#endif
