#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The wheels of NIXL and Mooncake each bring an asio, and use variables of one of them, though Python
# loads both with RTLD_LOCAL.
#
# Versions: nixl-cu13 1.5.1 with numpy 2.3.5, mooncake-transfer-engine-non-cuda 0.3.13.post1 with
#   Debian 12's libibverbs1, libnl-3 and libnuma1; glibc 2.36. By hand also nixl-cu12 1.5.1, and by nm
#   mooncake-transfer-engine-cuda13 0.3.14: its libasio.so and libnixl.so have 150 names in common.
# Expected: each uses what it was built with. dlopen(3) says that what an RTLD_LOCAL library defines
#   is not there for libraries that are loaded later.
# Seen 2026-11-29: all export their asio. Some variables in its templates are GNU_UNIQUE, of which the
#   linker keeps one in a process, in whatever scope, as the manual of the GNU assembler says. Where
#   Mooncake is imported first, libnixl.so is bound to 14 of Mooncake's; else Mooncake to 14 of NIXL's.
#   Among them are the ids of services and the call stack of a thread.
# Matters: what moves KV cache and what moves weights meet in one process. A handler of the one, run in
#   a loop of the other, would take the other's thread for its own: right only while both asio lay it
#   out alike. The order of two imports decides whose it is. -fno-gnu-unique or hidden symbols avoid it.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v nm >/dev/null || exit 77

timeout 80 python3 -m pip install -q --disable-pip-version-check --no-deps --no-compile \
  --target "$work/site" mooncake-transfer-engine-non-cuda==0.3.13.post1 nixl-cu13==1.5.1 \
  numpy==2.3.5 >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }
# Mooncake's wheel leaves these libraries to the system.
(
  cd "$work" && timeout 30 apt-get download libibverbs1=44.0-2 libnl-3-200=3.7.0-0.2+b1 \
    libnl-route-3-200=3.7.0-0.2+b1 libnuma1=2.0.16-1 || exit
  for package in *.deb; do dpkg -x "$package" root || exit; done
) >"$work/log" 2>&1 || { tail -n 3 "$work/log"; exit 77; }
machine=$(uname -m)-linux-gnu
nixl=$work/site/.nixl_cu13.mesonpy.libs/libnixl.so

# names LETTERS FILE: of asio, that this file exports as symbols of these kinds
names() {
  nm -D --defined-only "$2" | awk -v kinds="[$1]" '$2 ~ kinds && $3 ~ /4asio/ { print $3 }' | sort -u
}

# bound FIRST SECOND: imports them; which of NIXL and Mooncake is bound to the other's asio, and in
# how many names
bound() {
  LD_LIBRARY_PATH="$work/root/usr/lib/$machine:$work/root/lib/$machine" PYTHONPATH="$work/site" \
    LD_DEBUG=bindings LD_DEBUG_OUTPUT="$work/$1" timeout 60 python3 -s -c "import $1, $2" \
    >"$work/log" 2>&1 || { tail -n 5 "$work/log" >&2; exit 1; }
  cat "$work/$1".* |
    sed -nE 's|.*binding file .*/([^/ ]+) \[.*\] to .*/([^/ ]+) \[.*`([^ ]*4asio[^ ]*)'"'"'.*|\1 \2 \3|p' |
    sort -u | awk '($1 == "libnixl.so") != ($2 == "libnixl.so") { print $1 " -> " $2 }' | uniq -c |
    awk '{ print $2, $3, $4 ":", $1 }'
}

seen=$(
  for file in libasio.so engine.so; do
    theirs=$work/site/mooncake/$file
    echo "asio's names in both libnixl.so and $file:" \
      "$(comm -12 <(names A-Za-z "$nixl") <(names A-Za-z "$theirs") | wc -l)," \
      "unique in both: $(comm -12 <(names u "$nixl") <(names u "$theirs") | wc -l)"
  done
  echo "mooncake.engine first"
  bound mooncake.engine nixl_cu13._api
  echo "nixl_cu13._api first"
  bound nixl_cu13._api mooncake.engine
)
echo "$seen"
[[ $seen == "asio's names in both libnixl.so and libasio.so: 171, unique in both: 12
asio's names in both libnixl.so and engine.so: 70, unique in both: 5
mooncake.engine first
libnixl.so -> engine.so: 5
libnixl.so -> libasio.so: 9
nixl_cu13._api first
engine.so -> libnixl.so: 5
libasio.so -> libnixl.so: 9" ]]
