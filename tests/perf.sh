#!/usr/bin/env bash
# nvlx_perf on the host backend: its exit codes, its files, what it refuses, and that it leaves no process behind.
# Usage: tests/perf.sh NVLX_PERF FAULTY    FAULTY is loaded before the library and moves one byte too little
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
perf=$1 faulty=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0
small=(--arena 1M --bytes 256K --rounds 3)

bad() {
    echo "FAILED: $*"
    failed=1
}

# expect CODE PATTERN ARGUMENT...: runs it; its output, which must contain the pattern, is in $work/output.
expect() {
    local code=0 wanted=$1 pattern=$2
    shift 2
    timeout 30 "$perf" "$@" >"$work/output" 2>&1 || code=$?
    if ((code != wanted)) || ! grep -qe "$pattern" "$work/output"; then
        bad "nvlx_perf $*: exit code $code, expected $wanted and '$pattern' in:"
        cat "$work/output"
    fi
}

# equals WHAT EXPECTED FOUND
equals() {
    [[ $2 == "$3" ]] || bad "$1: expected '$2', found '$3'"
}

count() { # how often a fixed string occurs in a file
    grep -oFe "$1" "$2" | wc -l
}

# Replaces the innermost values by one letter, until one is left.
is_json() {
    awk '{ text = text $0 }
        END {
            gsub(/"([^"\\]|\\.)*"/, "s", text)
            gsub(/-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?|true|false|null/, "v", text)
            gsub(/[ \t]/, "", text)
            while (gsub(/\[([sv](,[sv])*)?\]|[{](s:[sv](,s:[sv])*)?[}]/, "v", text))
                ;
            exit text != "v"
        }' "$1"
}

# Takes away the innermost elements, until none is left.
is_xml() {
    local attributes='( [A-Za-z0-9:-]+="[^"<&]*")*'
    local rest
    rest=$(tr '\n' ' ' <"$1" | sed -E -e 's/^<\?xml[^?]*\?>//' -e 's/&(lt|gt|amp|quot);//g' \
        -e ':again' -e "s#<[a-z]+$attributes ?/>##g" -e "s#<([a-z]+)$attributes>[^<>&]*</\1>##g" -e 'tagain')
    [[ -z ${rest// /} ]]
}

# ---- The checks of files must be able to fail ----

echo '{"a": [1, {"b": "c]"}, -2.5e3], "d": true}' >"$work/good"
is_json "$work/good" || bad "good JSON is refused"
for text in '{"a": [1, 2}' '{"a": 1,}' '{"a" 1}' '[1] 2' '{"a": nan}' ''; do
    echo "$text" >"$work/wrong"
    ! is_json "$work/wrong" || bad "'$text' passes as JSON"
done
echo '<?xml version="1.0"?><a b="c"><d/><e>f &lt; g</e></a>' >"$work/good"
is_xml "$work/good" || bad "good XML is refused"
for text in '<a><b></a></b>' '<a b=c/>' '<a>1 < 2</a>' '<a>b & c</a>' '<a>'; do
    echo "$text" >"$work/wrong"
    ! is_xml "$work/wrong" || bad "'$text' passes as XML"
done

# ---- Rates, with both files: 2 ops, one and both directions, 2 sizes, and of ours 4 ways ----

expect 0 'The host backend' "${small[@]}" --op both --fragment 1K,4K --count 32 --prepared --max-sms 0,4 --bidirectional \
    --submit --verify --json "$work/json" --plot "$work/plot.svg"
grep -q 'Submitting' "$work/output" || bad "--submit printed nothing"
equals "lines that were verified" 8 "$(count '4 of 4 verified' "$work/output")"
is_json "$work/json" || bad "--json wrote what is not JSON"
is_xml "$work/plot.svg" || bad "--plot wrote what is not XML"
equals "rows in JSON" 8 "$(count '"both_directions": ' "$work/json")"
equals "rows of both directions" 4 "$(count '"both_directions": true' "$work/json")"
equals "ways in JSON" 40 "$(count '"way": ' "$work/json")"
equals "ways of ours" 32 "$(count '"raw": false' "$work/json")"
equals "ways verified" 32 "$(count '"verified": true, "wrong_bytes": 0}' "$work/json")"
equals "baselines that both directions lack" 4 "$(count '"not_measured": ' "$work/json")"
equals "lists of 32 times 4K" 2 "$(count '"both_directions": false, "fragment": 4096, "count": 32, "bytes": 131072' "$work/json")"
equals "lists of 32 times 1K, twice" 2 \
    "$(count '"both_directions": true, "fragment": 1024, "count": 64, "bytes": 65536' "$work/json")"
equals "rounds" 36 "$(count '"rounds": 3' "$work/json")"
equals "the name of the backend" 1 "$(count '"backend": "host"' "$work/json")"
equals "curves: of ours 4 a panel, and the raw one" 18 "$(count '<polyline ' "$work/plot.svg")"
equals "lines of the link" 4 "$(count 'the link: one copy of' "$work/plot.svg")"

expect 0 '1 of 1 verified' "${small[@]}" --fragment 3000 --pattern mixed --regions 7 --verify --baseline none
expect 0 '1 of 1 verified' "${small[@]}" --fragment 100 --pattern contiguous --mechanism copy_engine --verify
expect 0 'on the same GPU' "${small[@]}" --fragment 4K --gpus 0,0 --json "$work/json"
equals "the same GPU in JSON" 1 "$(count '"same_gpu": true' "$work/json")"

# ---- Instead of rates ----

expect 0 '^write *64 ' --arena 1M --op both --fragment 8,64 --latency --json "$work/json"
is_json "$work/json" || bad "--latency: --json wrote what is not JSON"
equals "latencies in JSON" 4 "$(count '"p99_ns": ' "$work/json" | awk '{ print $1 / 3 }')"
expect 0 '^30 random lists, .* 0 lists left wrong bytes' --arena 1M --random 30 --op both
expect 0 '^30 random lists, .* 0 lists left wrong bytes' --arena 1M --random 30 --op both --regions 5 --json "$work/json"
is_json "$work/json" || bad "--random: --json wrote what is not JSON"
equals "random lists in JSON" 1 "$(count '"random": {"lists": 30, ' "$work/json")"
expect 0 '^usage: ' --help

# ---- Wrong bytes: not one too few is found ----

export ASAN_OPTIONS=${ASAN_OPTIONS:-}:verify_asan_link_order=0
LD_PRELOAD=$faulty expect 1 'WRONG: 1 bytes of the measuring' "${small[@]}" --fragment 4K --count 8 --verify --baseline none
LD_PRELOAD=$faulty expect 1 'WRONG: 1 bytes of the owner' "${small[@]}" --fragment 4K --count 8 --verify --op write

# ---- What is refused names the option ----

for wrong in '--op fetch' '--fragment 4X' '--fragment 0' '--fragment 1K,,2K' '--fragment 2M' '--count 0' '--bytes many' \
    '--bytes 2M' '--arena -1' '--regions 0' '--regions 200' '--pattern zigzag' '--mechanism magic' '--max-sms x' \
    '--max-sms 1,2,3,4,5,6,7' '--priority high' '--baseline best' '--random 0' '--rounds 0' '--gpus 0' '--gpus 0,99' \
    '--backend tape' '--compute' '--json /nowhere/file' '--plot /nowhere/file'; do
    read -r option value <<<"$wrong"
    # shellcheck disable=SC2086 # no value, no argument
    expect 2 "$option" "${small[@]}" --fragment 4K --count 4 "$option" $value
done
expect 2 'nonsense' nonsense
expect 2 'unknown' --unknown
expect 2 '--regions' --bidirectional --regions 3
expect 2 '--plot' --latency --plot "$work/plot.svg"

# ---- Either process is killed ----

# The process whose parent is $1.
child_of() {
    local file stat
    for file in /proc/[0-9]*/stat; do
        if read -r stat 2>/dev/null <"$file"; then
            stat=${stat##*) }
            read -r _ parent _ <<<"$stat"
            if [[ $parent == "$1" ]]; then
                file=${file#/proc/}
                echo "${file%/stat}"
            fi
        fi
    done
}

# await_end PROCESS WHAT: for 10 seconds. A process that nobody has waited for yet has ended too.
await_end() {
    for _ in {1..200}; do
        if ! kill -0 "$1" 2>/dev/null || [[ $(cut -d ' ' -f 3 "/proc/$1/stat" 2>/dev/null) == Z ]]; then
            return
        fi
        sleep 0.05
    done
    bad "$2"
}

# kill_one owner|measuring
kill_one() {
    local measuring owner code=0
    "$perf" --arena 1M --random 1000000000 >"$work/begun" 2>"$work/error" &
    measuring=$!
    # It prints its head once both processes are there.
    for _ in {1..200}; do
        if [[ -s $work/begun ]]; then
            break
        fi
        sleep 0.05
    done
    owner=$(child_of "$measuring")
    if [[ -z $owner ]]; then
        bad "nvlx_perf did not begin: $(cat "$work/error")"
        kill -KILL "$measuring" 2>/dev/null || true
    elif [[ $1 == owner ]]; then
        kill -KILL "$owner"
        await_end "$measuring" "nvlx_perf goes on without its owner"
        wait "$measuring" || code=$?
        equals "exit code after the owner was killed" 2 "$code"
        grep -qE 'has ended|ended within|gone' "$work/error" || bad "not told that the owner ended: $(cat "$work/error")"
    else
        kill -KILL "$measuring"
        wait "$measuring" 2>/dev/null || true
    fi
    await_end "${owner:-$measuring}" "the owner outlives the measuring process"
    rm "$work/begun"
}

kill_one owner
kill_one measuring

((failed)) || echo "nvlx_perf does what it says"
exit "$failed"
