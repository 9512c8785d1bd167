#!/usr/bin/env bash
# The wheel in one process with those of NIXL and Mooncake: all three work in any order of import, the others say the
# same as without it, and its library and theirs take no symbols of each other. Mooncake's brings a glog, too.
# Usage: tests/bindings/python/tools/orders.sh PYTHON CACHE
#   PYTHON  an interpreter that has the wheel
#   CACHE   where packages are unpacked, and looked for. Without a network and without them nothing is tried: exit
#           code 77.
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
python=$1 cache=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../../fetch.sh"
mooncake='mooncake-transfer-engine-non-cuda==0.3.13.post1'

# What Mooncake's wheel leaves to the system.
fetch_debian() {
    [[ -d $cache/debian ]] && return
    rm -rf "$cache/debian.new"
    mkdir -p "$cache/debian.new/root"
    (
        cd "$cache/debian.new"
        timeout 60 apt-get download libibverbs1 libnl-3-200 libnl-route-3-200 libnuma1 || exit
        for package in *.deb; do dpkg -x "$package" root || exit; done
    ) >"$cache/debian.log" 2>&1 && mv "$cache/debian.new" "$cache/debian"
}

# start NAME VARIABLES WORD...: the program with these words. What it says goes to files of that name.
start() {
    local name=$1 variables code=0
    read -ra variables <<<"$2"
    # In an environment that has no settings for any of them.
    env -i PATH="$PATH" HOME="$work" PYTHONDONTWRITEBYTECODE=1 PYTHONFAULTHANDLER=1 NVLX_BACKEND=host NVLX_LOG_LEVEL=3 \
        PYTHONPATH="$cache/1.5.1:$cache/numpy:$cache/mooncake" LD_LIBRARY_PATH="$libraries" "${variables[@]}" \
        timeout 60 "$python" -s "$here/orders.py" "${@:3}" >"$work/$name.out" 2>"$work/$name.err" || code=$?
    if [[ $code != 0 || $(tail -n 1 "$work/$name.out") != OK ]]; then
        cat "$work/$name.out" "$work/$name.err"
        echo "${*:3}: exit code $code"
        return 1
    fi
}

# locally WORD...: as Python loads libraries.
locally() {
    start "$*" "" "$@"
}

# globally WORD...: every library finds every other's symbols. The linker tells which it takes.
globally() {
    local bindings allowed logs=$work/logs-$1
    mkdir "$logs"
    start "global $*" "LD_DEBUG=bindings LD_DEBUG_OUTPUT=$work/bindings-$1 GLOG_log_dir=$logs" --global "$@"

    # From which file to which, and the symbol with its version.
    bindings=$(sed -nE 's|.*binding file (.*/)?([^/ ]+) \[.*\] to (.*/)?([^/ ]+) \[.*symbol `(.*)|\2 \4 \5|p' \
        "$work/bindings-$1".*)
    if ! grep -q '^libnvlxfer\.so[^ ]* libc\.so' <<<"$bindings" ||
        ! grep -q '^engine\.so[^ ]* libglog' <<<"$bindings"; then
        echo "--global $*: the linker has not told what it does"
        return 1
    fi
    # A member of std::string is the same wherever it is taken from: who compiles one exports it like libstdc++ does.
    allowed='^libnvlxfer\.so[^ ]* ((libnvlxfer|libc|libm|libgcc_s|libstdc\+\+|ld-linux[^ ]*)\.so|.* \[GLIBCXX_)'
    if grep 'libnvlxfer\.so' <<<"$bindings" | grep -vE "$allowed"; then
        echo "--global $*: these libraries met"
        return 1
    fi

    # The program's glog has Mooncake's lines and none of the library's, which go to stderr.
    if ! grep -rq 'transfer_engine' "$logs" || grep -rE 'nvlxfer:|on backend host' "$logs" ||
        ! grep -q ' nvlxfer, .* on backend host' "$work/global $*.err"; then
        cat "$work/global $*.err"
        echo "--global $*: lines are not where they belong"
        return 1
    fi
}

# plain FILE: its lines without numbers and times, in any order: threads write them.
plain() {
    sed -E 's/0x[0-9a-f]+|[0-9]+/N/g; s/ +/ /g' "$1" | sort
}

if ! prepare_fetch; then
    echo "SKIP: NIXL and Mooncake were not tried beside the wheel, there is no venv: $(tail -n 1 "$cache/python.log")"
    exit 77
fi
if ! fetch numpy numpy || ! fetch 1.5.1 nixl-cu12==1.5.1 || ! fetch mooncake "$mooncake" || ! fetch_debian; then
    echo "SKIP: NIXL and Mooncake were not tried beside the wheel, they cannot be had:" \
        "$(cat "$cache"/{numpy,1.5.1,mooncake,debian}.log 2>/dev/null | grep -iE '^(error|E:)' | tail -n 1)"
    exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
libraries=$(echo "$cache/debian/root"/{usr/,}lib/"$(uname -m)"-linux-gnu)
libraries=${libraries// /:}
export python cache here work libraries
export -f start locally globally
orders=("nvlxfer nixl mooncake" "nvlxfer mooncake nixl" "nixl nvlxfer mooncake" "mooncake nvlxfer nixl"
    "nixl mooncake nvlxfer" "mooncake nixl nvlxfer")
printf '%s\n' "${orders[@]/#/locally }" "locally nixl mooncake" "locally mooncake nixl" \
    "globally nvlxfer mooncake" "globally mooncake nvlxfer" | xargs -P "$(nproc)" -I{} bash -c 'set -euo pipefail; {}'
for order in "${orders[@]}"; do
    others="nixl mooncake"
    [[ $order == *nixl*mooncake* ]] || others="mooncake nixl"
    if ! diff <(plain "$work/$others.err") <(plain "$work/$order.err"); then
        echo "$order: these lines came or went with nvlxfer"
        exit 1
    fi
done
echo "ok: nvlxfer, NIXL and Mooncake in one process, in ${#orders[@]} orders"
