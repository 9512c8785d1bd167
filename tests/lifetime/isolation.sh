#!/usr/bin/env bash
# An owner and a visitor of its memory, kept apart in every way that one machine has: another user, namespaces of their
# own for PIDs, IPC and network, equal PID numbers, hidden GPUs. Memory that is shared by file descriptors must arrive in
# each; legacy handles must be refused, with the remedy, where they cannot work.
# Usage: tests/lifetime/isolation.sh PROGRAM    (isolation.c)
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
program=$1
backend=${NVLX_BACKEND:-host}
stranger=65534

if ((EUID != 0)) || ! unshare --pid --ipc --net --fork --mount-proc true 2>/dev/null; then
    echo "SKIP: namespaces and other users need root and the right to unshare"
    exit 77
fi

folder=$(mktemp -d)
chmod 755 "$folder"
trap 'rm -rf "$folder"' EXIT
cp "$program" "$folder/isolation"
# The stranger must be able to run it, and to load the library.
library=$(ldd "$program" | awk '/libnvlxfer/ { print $3 }')
cp "$library" "$folder/libnvlxfer.so.0"
chmod 755 "$folder/isolation" "$folder/libnvlxfer.so.0"
export LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} NVLX_BACKEND=$backend
failed=0

# try NAME KIND EXPECTED OWNER_PREFIX VISITOR_PREFIX [USER]: both are started behind their prefixes; EXPECTED is a pattern
# for what the visitor prints.
try() {
    local name=$1 kind=$2 expected=$3 said verdict line socket=$folder/socket
    local -a owner_prefix visitor_prefix
    read -ra owner_prefix <<<"$4"
    read -ra visitor_prefix <<<"$5"
    rm -f "$socket"
    coproc OWNER { timeout 60 "${owner_prefix[@]}" "$folder/isolation" owner "$socket" "$kind" "${6:-}" 2>/dev/null; }
    local pid=$OWNER_PID in=${OWNER[1]} out=${OWNER[0]}
    read -r line <&"$out" || line="the owner ended"
    if [[ $line != ready ]]; then
        echo "FAILED $name, $kind: owner: $line"
        failed=1
        wait "$pid" || true
        return
    fi
    said=$(timeout 60 "${visitor_prefix[@]}" "$folder/isolation" visitor "$socket" 2>/dev/null) || true
    echo >&"$in"
    read -r line <&"$out" || line="the owner ended"
    wait "$pid" || true
    verdict=ok
    # shellcheck disable=SC2053 # a pattern, hence unquoted
    if [[ $said != $expected ]] || [[ $said == moved && $line != "0 bytes are wrong" ]]; then
        verdict=FAILED
        failed=1
    fi
    echo "$verdict $name, $kind: $said${said:+; }owner: $line"
}

own="unshare --pid --fork --mount-proc"
other="setpriv --reuid=$stranger --regid=$stranger --clear-groups"
for kind in vmm vmm_chunks pool; do
    try "same user" $kind moved env env
    try "another user, allowed" $kind moved env "$other" $stranger
    try "PID namespaces of their own, equal PIDs" $kind moved "$own" "$own"
    try "visitor in a PID namespace" $kind moved env "$own"
    try "IPC and network namespaces" $kind moved env "unshare --ipc --net"
    try "each sees one GPU" $kind moved "env CUDA_VISIBLE_DEVICES=0" "env CUDA_VISIBLE_DEVICES=${SECOND_GPU:-0}"
done
try "same user" cuda_malloc moved env env
if [[ $backend == host ]]; then
    try "another user, allowed" cuda_malloc "nvlx_transfer: NVLX_ENOTSUP: not supported:*same user*NVLX_ALLOC_VMM*nvlx_serve*" env "$other" $stranger
else
    try "another user, allowed" cuda_malloc moved env "$other" $stranger
fi
try "another user, not allowed" vmm "nvlx_connect:*user $stranger*" env "$other" 0
try "PID namespaces of their own, equal PIDs" cuda_malloc "nvlx_transfer:*pid*NVLX_ALLOC_VMM*nvlx_serve*" "$own" "$own"
((failed)) || echo "all as it should be"
exit "$failed"
