#!/usr/bin/env bash
# Installs a build into a folder of its own, then builds and runs programs outside of the project against it: by the CMake
# package and by pkg-config, neither of which may need what the library itself was built with.
# Usage: tests/consumer/check.sh BUILD CMAKE
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
build=$1 cmake=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

# Shows what a command printed only if it fails.
quietly() {
    "$@" >"$work/log" 2>&1 || { cat "$work/log" && echo "failed: $*" && return 1; }
}

quietly "$cmake" --install "$build" --prefix "$prefix"
(cd "$prefix" && find . ! -type d | sort)
if grep -rniE 'glog|jsoncpp|cuda' "$prefix"/lib*/cmake "$prefix"/lib*/*/cmake 2>/dev/null; then
    echo "the CMake package names a dependency of the library's own"
    exit 1
fi

quietly "$cmake" -S "$here" -B "$work/by_cmake" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_DISABLE_FIND_PACKAGE_glog=ON \
    -DCMAKE_DISABLE_FIND_PACKAGE_jsoncpp=ON -DCMAKE_DISABLE_FIND_PACKAGE_PkgConfig=ON
quietly "$cmake" --build "$work/by_cmake"
echo "by the CMake package:"
"$work/by_cmake/consumer_c"
"$work/by_cmake/consumer_cc"

# pkg-config sees nothing but what was installed here.
pc=$(find "$prefix" -name nvlxfer.pc)
export PKG_CONFIG_LIBDIR=${pc%/*}
LD_LIBRARY_PATH=$(pkg-config --variable=libdir nvlxfer)
export LD_LIBRARY_PATH
cp "$here"/Makefile "$here"/consumer.c "$here"/consumer.cc "$work"
quietly make -C "$work" all
echo "by pkg-config:"
"$work/consumer_c"
"$work/consumer_cc"

# So are the examples, as installed.
read -ra flags <<<"$(pkg-config --cflags --libs nvlxfer)"
for example in "$prefix"/share/doc/nvlxfer/examples/*.{c,cc}; do
    parts=("${example%.*}"/*.c)
    [[ -e ${parts[0]} ]] || parts=()
    quietly "$([[ $example == *.c ]] && echo cc || echo c++)" -Wall -Wextra -Werror -o "$work/example" "$example" "${parts[@]}" \
        "${flags[@]}" -lpthread
    echo "${example##*/} is built"
done

# The installed tools find the library by themselves.
unset LD_LIBRARY_PATH
for tool in "$prefix"/bin/*; do
    if [[ -x $tool ]] && ldd "$tool" | grep 'not found'; then
        echo "$tool does not find its libraries"
        exit 1
    fi
done

# Each component has what it says, and together they are everything.
component() {
    local files
    quietly "$cmake" --install "$build" --prefix "$work/$1" --component "$1"
    files=$(cd "$work/$1" && find . ! -type d | sort)
    grep -vE "$2" <<<"$files" && { echo "is no part of $1" && return 1; }
    printf '%s\n' "$files" >>"$work/parts"
}
component runtime '^\./lib.*/libnvlxfer\.so\.[0-9.]+$|/doc/nvlxfer/LICENSE$'
component development '/include/|\.so$|/cmake/nvlxfer/|nvlxfer\.pc$|/man3/|/doc/nvlxfer/(README\.md|src/(doc|bindings)/|examples/)'
component tools '^\./bin/nvlx_(info|perf|ping)$|/man1/'
(cd "$prefix" && find . ! -type d | sort) | diff - <(sort "$work/parts")

# Links of the installed documents lead to what is there, and so does the address in the pkg-config file.
documents=$prefix/share/doc/nvlxfer
find "$documents" -name '*.md' | while read -r page; do
    { grep -oP '\]\(\K[^)#:]+(?=[)#])' "$page" || true; } | sort -u | while read -r link; do
        [[ -e ${page%/*}/$link ]] || { echo "${page#"$documents"/}, installed, links $link" && exit 1; }
    done
done
grep -q '](src/doc/README.md)' "$documents/README.md"
url=$(sed -n 's/^URL: //p' "$pc")
path=${url/#'file://${prefix}'/"$(pkg-config --variable=prefix nvlxfer)"}
[[ $url == http* || -f $path ]] || { echo "nvlxfer.pc names $url" && exit 1; }
echo "components, documents and address are right"
