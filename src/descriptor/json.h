// Reads JSON that is not trusted. What it may be is described in decode.cc. SPDX-License-Identifier: Apache-2.0
#ifndef NVLXI_DESCRIPTOR_JSON_H
#define NVLXI_DESCRIPTOR_JSON_H

#include <cstddef>
#include <functional>
#include <string_view>

namespace Json {
class Value;
}

namespace nvlxi {

// A long list, whose items are read in portions: jsoncpp's values for all of them at once take five times as much
// memory as what they tell, which a process would keep.
struct Cut {
    std::string_view text; // the whole
    size_t begin = 0;      // of the items in it
    size_t count = 0;      // 0: there is no such list, all is in the root
};

// `field`: of the outermost object, whose list may be cut out: then the root has an empty one. NVLX_EFORMAT: not strict
// JSON, too many levels or values.
int read_json(std::string_view text, const char *field, Json::Value *root, Cut *cut);

// Calls `take` for each item until it fails. NVLX_EFORMAT: they are not strict JSON.
int read_cut(const Cut &cut, const std::function<int(const Json::Value &)> &take);

} // namespace nvlxi

#endif
