#!/usr/bin/env bash
# The Debian packages on a system that has neither this project nor what it is made of: apt finds what they need, README's
# first program is built by pkg-config, others by CMake and in C++ over nvlxfer.hpp, tools and manual are there; and nothing
# is left when the packages go. As root, on a system that may be changed.
# Usage: tests/consumer/packages.sh FOLDER_WITH_PACKAGES
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$root/cmake/prepare.sh"
packages=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DEBIAN_FRONTEND=noninteractive NVLX_BACKEND=host

install_missing gcc 'command -v gcc' g++ 'command -v g++' make 'command -v make' cmake 'command -v cmake' \
    pkg-config 'command -v pkg-config'
mapfile -t made_of < <(dpkg-query -W -f '${binary:Package} ${db:Status-Status}\n' | sed -nE 's/^([^ ]*(glog|jsoncpp)[^ ]*|uthash-dev) installed$/\1/p' |
    grep -v '^libjsoncpp[0-9]' || true) # which cmake itself needs
if ((${#made_of[@]})); then
    quietly "$work/log" apt-get purge -y --autoremove "${made_of[@]}"
fi
quietly "$work/log" apt-get install -y --no-install-recommends "$packages"/*.deb

# Nothing of the tree is used from here on but the programs.
sed -n '/^```c$/,/^```$/ { /^```/!p }' "$root/README.md" >"$work/quickstart.c"
cp "$root"/tests/consumer/{CMakeLists.txt,consumer.c,consumer.cc} "$work"
cd "$work"
read -ra flags <<<"$(pkg-config --cflags --libs nvlxfer)"
cc -Wall -Wextra -Werror quickstart.c "${flags[@]}" -o quickstart
[[ $(./quickstart) == "the other process says: hello, GPU!" ]]
echo "README's program works by pkg-config"
quietly "$work/log" cmake -S . -B cmake
quietly "$work/log" cmake --build cmake
./cmake/consumer_c
./cmake/consumer_cc

[[ $(nvlx_info --version) == "nvlx_info of libnvlxfer $(pkg-config --modversion nvlxfer)" ]]
nvlx_info --json >/dev/null
for page in man1/nvlx_ping.1 man3/nvlxfer.3 man3/nvlx_transfer.3; do
    gzip -dc "/usr/share/man/$page.gz" | grep '^\.TH NVLX' >/dev/null
done
quietly "$work/log" apt-get purge -y libnvlxfer0 libnvlxfer-dev nvlxfer-tools
if find /usr -name '*nvlx*' -not -path '*/python*' | grep .; then
    echo "is left behind"
    exit 1
fi
echo "tools and manual are there, and nothing is left"
