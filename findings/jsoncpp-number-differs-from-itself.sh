#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# jsoncpp: an unsigned number below 2^63 differs from itself once written and read again.
#
# Version: jsoncpp 1.9.5-4 (Debian 12's libjsoncpp25 and libjsoncpp-dev).
# Expected: numbers compare by value. The header says only that comments do not count.
# Seen 2026-11-28: a Value made from UInt64 has type 2, the same number read from text type 1 up to
#   2^63 - 1, and numbers of two types are unequal and ordered by type. So 4096 is not 4096 and
#   unsigned 4 is not less than 5, while 5 is less than unsigned 4. From 2^63 on the two are equal.
#   asUInt64() gives the right number throughout.
# Matters: descriptors of memory carry addresses and lengths as unsigned numbers. "The record I got
#   is the one I sent" is false for each GPU address, true for some large ids: compare asUInt64().
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

command -v g++ >"$work/log" || { echo "no g++"; exit 77; }
(
  cd "$work" && timeout 60 apt-get download libjsoncpp25=1.9.5-4 libjsoncpp-dev=1.9.5-4 || exit
  for package in *.deb; do dpkg -x "$package" root || exit; done
) >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }

cat >"$work/equal.cc" <<'EOF'
#include <iostream>
#include <json/json.h>
#include <sstream>

static Json::Value read_again(const Json::Value &value)
{
    std::stringstream text;
    text << Json::writeString(Json::StreamWriterBuilder(), value);
    Json::Value result;
    std::string errors;
    if (!Json::parseFromStream(Json::CharReaderBuilder(), text, &result, &errors))
        std::cout << errors;
    return result;
}

int main()
{
    const Json::UInt64 border = Json::UInt64(1) << 63;

    for (Json::UInt64 number : {Json::UInt64(4096), border - 1, border}) {
        const Json::Value made(number), read = read_again(made);
        std::cout << number << ": types " << made.type() << " and " << read.type() << ", equal "
                  << (made == read) << ", asUInt64 equal " << (made.asUInt64() == read.asUInt64())
                  << "\n";
    }
    const Json::Value four(Json::UInt64(4)), five = read_again(Json::Value(Json::UInt64(5)));
    std::cout << "4 < 5: " << (four < five) << ", 5 < 4: " << (five < four) << "\n";
}
EOF
library=("$work"/root/usr/lib/*/libjsoncpp.so.25)
timeout 60 g++ -std=c++17 -I"$work/root/usr/include/jsoncpp" "$work/equal.cc" "${library[0]}" \
  -o "$work/equal" || exit 1
LD_LIBRARY_PATH=${library[0]%/*} timeout 20 "$work/equal" | tee "$work/seen" || exit 1

diff - "$work/seen" <<'EOF' || exit 1
4096: types 2 and 1, equal 0, asUInt64 equal 1
9223372036854775807: types 2 and 1, equal 0, asUInt64 equal 1
9223372036854775808: types 2 and 2, equal 1, asUInt64 equal 1
4 < 5: 0, 5 < 4: 1
EOF
