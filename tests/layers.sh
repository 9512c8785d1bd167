#!/usr/bin/env bash
# Each file includes only files of lower layers and its own header; device, log and JSON headers stay where they belong.
# Usage: tests/layers.sh ROOT            checks the tree
#        tests/layers.sh --prove ROOT    breaks copies of the tree, rule by rule, and fails if that is not noticed
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail

# File (a .h, .c, .cc or .cu of that name) and its layer: the design's layer, then a digit for the order inside it.
declare -A layers
while read -r file layer; do
    layers[$file]=$layer
done <<'TABLE'
include/nvlxfer        00
src/base               01
src/fork_phase         01
src/hash               02
src/mute               02
src/log                10
src/error              11
src/fork_files         11
src/name               12
src/options            12
src/records            18
src/name_index         19
src/identity           21
src/life               19
src/device             20
src/interval_order     20
src/interval_slots     20
src/interval_map       21
src/interval_build     22
src/ground             21
src/device/owner       22
src/device/host        22
src/device/host_file   22
src/device/host_lane   23
src/device/host_memory 23
src/device/host_legacy 24
src/device/host_vmm    24
src/device/host_pool   24
src/device/cuda        22
src/device/cuda_kernel 23
src/device/cuda_lane   23
src/device/cuda_memory 23
src/device/cuda_pool   23
src/device/cuda_vmm    23
src/device/copy        21
src/descriptor_wire    29
src/descriptor_words   29
src/descriptor         30
src/descriptor_write   31
src/tables             20
src/registration       31
src/segments           32
src/registration_records 32
src/span               31
src/relocation         32
src/relocation_gone    33
src/relocation_table   33
src/borders            39
src/plan               40
src/list_memory        41
src/pool               42
src/op                 39
src/same               40
src/check              41
src/uses               42
src/issue              43
src/transfer           44
src/prepared           45
src/request            45
src/wire               40
src/rendezvous_link    44
src/rendezvous_text    44
src/rendezvous_watch   44
src/rendezvous_listen  45
src/rendezvous_give    45
src/rendezvous_channel 45
src/rendezvous_client  46
src/rendezvous_fetch   46
src/rendezvous_server  46
src/rendezvous         47
src/backend            48
src/fork               48
src/engine             50
src/engine_transfers   51
src/tools/nvlx_info    90
src/tools/perf         90
src/tools/perf_base    91
src/tools/perf_list    92
src/tools/perf_cuda    93
src/tools/perf_end     93
src/tools/perf_process 94
src/tools/perf_report  95
src/tools/perf_json    96
src/tools/perf_measure 97
src/tools/nvlx_perf    99
TABLE

# Pairs of patterns: a header, and the only files that may include it.
outside=(
    '*cuda*' '@(src/device/c|src/tools/perf_cuda)*'
    'driver_types.h' 'src/device/c*'
    'nvtx*' 'src/device/c*'
    'glog/*' 'src/log.cc'
    'gflags/*' 'src/log.cc'
    'json/*' 'src/@(descriptor|tools/perf_json).cc'
)

failed=0
bad() {
    echo "$1 includes $2: $3"
    failed=1
}

# Sets `target` to the file of ours that `#include` of $2 in file $1 means, without its suffix, or to nothing.
resolve() {
    local directory
    target=
    for directory in "${1%/*}" src include; do
        if [[ -f $directory/$2 ]]; then
            target=$directory/${2%.*}
            while [[ $target =~ ^(.*/)?[^/.]+/\.\./(.*)$ ]]; do
                target=${BASH_REMATCH[1]}${BASH_REMATCH[2]}
            done
            return
        fi
    done
}

check_include() {
    local file=$1 quote=$2 header=$3 stem=${1%.*} target i
    resolve "$file" "$header"
    if [[ -z $target && $quote == '"' ]]; then
        bad "$file" "$header" "there is no such file"
    elif [[ -z $target ]]; then
        for ((i = 0; i < ${#outside[@]}; i += 2)); do
            # shellcheck disable=SC2053 # patterns, hence unquoted
            if [[ $header == ${outside[i]} && $file != ${outside[i + 1]} ]]; then
                bad "$file" "$header" "only ${outside[i + 1]} may"
            fi
        done
        if [[ $stem == src/plan && $header == pthread.h ]]; then
            bad "$file" "$header" "a plan is pure: no locks"
        fi
    elif [[ -z ${layers[$target]:-} ]]; then
        bad "$file" "$header" "$target is not in the table of tests/layers.sh"
    elif [[ $file == src/tools/* && $target != include/nvlxfer && $target != src/tools/* ]]; then
        bad "$file" "$header" "a tool uses only the public header"
    elif [[ $stem == src/plan && $target == src/device ]]; then
        bad "$file" "$header" "a plan is pure: no device calls"
    elif [[ $target != "$stem" && ! ${layers[$target]} < ${layers[$stem]} ]]; then
        bad "$file" "$header" "layer ${layers[$target]} is not below layer ${layers[$stem]}"
    fi
}

# A lock of the whole process must be whole in a forked child: each file that has one is asked by src/fork.c.
check_locks() {
    local file function
    while read -r file; do
        function=$(sed -n 's/.*void \(nvlxi_[a-z_]*_fork\)(.*) {$/\1/p' "$file")
        if [[ -z $function ]] || ! grep -qr "${function}(phase)\|[ {]${function}[,}]" src; then
            echo "$file has a lock of the whole process, and no function that src/fork.c comes to"
            failed=1
        fi
    done < <(grep -rlE 'PTHREAD_(MUTEX|RWLOCK)_INITIALIZER|std::(shared_)?mutex|pthread_once' src)
}

check_tree() {
    local file quote header count=0
    while read -r file; do
        count=$((count + 1))
        if [[ -z ${layers[${file%.*}]:-} ]]; then
            echo "$file is not in the table of tests/layers.sh"
            failed=1
            continue
        fi
        while read -r quote header; do
            check_include "$file" "$quote" "$header"
        done < <(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*\([<"]\)\([^>"]*\)[>"].*/\1 \2/p' "$file")
    done < <(find include src -type f \( -name '*.h' -o -name '*.c' -o -name '*.cc' -o -name '*.cu' \) | sort)
    check_locks
    ((count > 0)) || { echo "no source was found" && failed=1; }
    ((failed)) || echo "$count files keep to their layers"
}

# Appends a line to a file in a copy of the tree, which must make the check fail and name that file.
prove() {
    local file=$1 line=$2 copy output
    copy=$(mktemp -d)
    cp -r include src "$copy"
    mkdir -p "$copy/$(dirname "$file")"
    printf '%s\n' "$line" >>"$copy/$file"
    if output=$("$self" "$copy" 2>&1) || ! grep -q "^$file " <<<"$output"; then
        echo "not noticed: '$line' in $file"
        failed=1
    fi
    rm -rf "$copy"
}

self=$(realpath "${BASH_SOURCE[0]}")
if [[ $1 == --prove ]]; then
    cd "$2"
    "$self" .
    prove src/base.h '#include "error.h"'
    prove src/registration.c '#include "relocation.h"'
    prove src/interval_map.c '#  include "transfer.h"'
    prove src/device/host.c '#include "../registration.h"'
    prove src/device/host.c '#include <cuda_runtime_api.h>'
    prove src/engine.c '#include <cuda.h>'
    prove src/engine.c '#include <glog/logging.h>'
    prove src/log.cc '#include <json/json.h>'
    prove src/plan.c '#include "device.h"'
    prove src/plan.c '#include "nowhere.h"'
    prove src/plan.c '#include <pthread.h>'
    prove src/tools/nvlx_info.c '#include "base.h"'
    prove src/tools/perf_end.c '#include "device.h"'
    prove src/tools/perf_cuda.cu '#include "device.h"'
    prove src/tools/perf_end.c '#include <cuda_runtime_api.h>'
    prove src/tools/perf_report.c '#include <json/json.h>'
    prove src/transfer.c 'static pthread_mutex_t here = PTHREAD_MUTEX_INITIALIZER;'
    prove src/unheard_of.c '#include "base.h"'
    ((failed)) || echo "every broken copy was noticed"
else
    cd "$1"
    check_tree
fi
exit "$failed"
