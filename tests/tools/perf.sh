#!/usr/bin/env bash
# nvlx_perf on the host backend: its exit codes, its files, what it refuses, and that it leaves no process behind.
# Usage: tests/tools/perf.sh NVLX_PERF FAULTY    FAULTY is loaded before the library and moves one byte too little
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
perf=$1 faulty=$2
export ASAN_OPTIONS=${ASAN_OPTIONS:-}:verify_asan_link_order=0 # the faulty one comes before its runtime
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
    timeout 120 "$perf" "$@" >"$work/output" 2>&1 || code=$?
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

# The file in one line, with one blank where there were some.
flat() {
    tr -s ' \n' ' ' <"$1"
}

# python PROGRAM FILE: what it prints, given the file's JSON as `it`; without python3 nothing is tried.
python() {
    if command -v python3 >/dev/null; then
        python3 -c "import json, sys; it = json.load(open(sys.argv[1])); $1" "$2"
    fi
}

# ---- The checks of files must be able to fail ----

echo '{"a": [1, {"b": "c]"}, -2.5e3], "d": true}' >"$work/good"
is_json "$work/good" || bad "good JSON is refused"
for text in '{"a": [1, 2}' '{"a": 1,}' '{"a" 1}' '[1] 2' '{"a": nan}' ''; do
    echo "$text" >"$work/wrong"
    ! is_json "$work/wrong" || bad "'$text' passes as JSON"
done

# ---- Rates, as table and JSON: 2 ops, one and both directions, 2 sizes, and of ours 4 ways ----

all_ways=("${small[@]}" --op both --fragment '1K,4K' --count 32 --prepared --max-sms '0,4' --bidirectional --submit
    --verify --json "$work/json")
expect 0 'The host backend' "${all_ways[@]}"
grep -q 'Submitting' "$work/output" || bad "--submit printed nothing"
equals "lines that were verified" 8 "$(count '4 of 4 verified' "$work/output")"
equals "lines of progress" 8 "$(grep -cE '^nvlx_perf: (read|write).* measured, [12] of 2$' "$work/output")"
is_json "$work/json" || bad "--json wrote what is not JSON"
flat "$work/json" >"$work/flat"
equals "rows in JSON" 8 "$(count '"both_directions": ' "$work/json")"
equals "rows of both directions" 4 "$(count '"both_directions": true' "$work/json")"
equals "ways in JSON" 40 "$(count '"way": ' "$work/json")"
equals "ways of ours" 32 "$(count '"raw": false' "$work/json")"
equals "ways verified" 32 "$(count '"verified": true, "way"' "$work/flat")"
equals "right ways" 33 "$(count '"wrong_bytes": 0' "$work/json")"
equals "ways that the raw side lacks, of which all is null" 4 \
    "$(count '"gbps": null, "kernel": null, "kernel_bytes": null, "kernel_fragments": null, "max_sms": 0, "median_ns": null, "not_measured": "both' "$work/flat")"
equals "lists of 32 times 4K" 2 \
    "$(count '"both_directions": false, "bytes": 131072, "count": 32, "fragment": 4096' "$work/flat")"
equals "lists of 32 times 1K, twice" 2 \
    "$(count '"both_directions": true, "bytes": 65536, "count": 64, "fragment": 1024' "$work/flat")"
equals "rounds" 36 "$(count '"rounds": 3' "$work/json")"
equals "the name of the backend" 1 "$(count '"backend": "host"' "$work/json")"
for null in cuda cuda_of_driver driver latency; do
    equals "$null, of which there is nothing" 1 "$(count "\"$null\": null" "$work/json")"
done
equals "JSON as python3 reads it" "$(command -v python3 >/dev/null && printf '8 40 %s %s' "$(uname -n)" "$(date -u +%Y)")" \
    "$(python "print(len(it['rates']), sum(len(row['ways']) for row in it['rates']), it['host'], it['date'][:4])" "$work/json")"
equals "the command line" "$(command -v python3 >/dev/null && echo "$perf ${all_ways[*]}")" \
    "$(python "print(' '.join(it['command']))" "$work/json")"

expect 0 '1 of 1 verified' "${small[@]}" --fragment 3000 --pattern mixed --regions 7 --verify --baseline none
expect 0 '1 of 1 verified' "${small[@]}" --fragment 100 --pattern contiguous --mechanism copy_engine --verify
expect 0 '3 of 3 verified' "${small[@]}" --shape rows:100:300 --prepared --verify --baseline none
expect 0 '2 of 2 verified' "${small[@]}" --shape rows:1K:2K --bidirectional --verify --baseline none
expect 0 '3 of 3 verified' "${small[@]}" --shape blocks:7:3000 --prepared --verify --baseline none
expect 0 '2 of 2 verified' "${small[@]}" --shape blocks:16:1K --mechanism copy_engine --verify --baseline none
expect 0 '2 of 2 verified' "${small[@]}" --shape blocks:1:4K --bidirectional --op write --verify --baseline none
expect 0 'on the same GPU' "${small[@]}" --fragment 4K --gpus 0,0 --json "$work/json"
equals "the same GPU in JSON" 1 "$(count '"same_gpu": true' "$work/json")"

# ---- Several processes: 3 scenes, 2 sizes ----

NVLX_HOST_GPUS=3 expect 0 '3 processes' --peers 3 --arena 3M --bytes 256K --rounds 2 --fragment 1K,8K
equals "lines of which every byte is right" 6 "$(count 'every byte right' "$work/output")"
NVLX_HOST_GPUS=2 expect 0 'writes' --peers 4 --op write --arena 1M --bytes 100K --count 10 --rounds 1 --fragment 8
equals "lines of writes of which every byte is right" 3 "$(count 'every byte right' "$work/output")"
LD_PRELOAD=$faulty expect 1 'WRONG: 1 bytes of process 0' --peers 2 --arena 1M --bytes 100K --count 10 --rounds 1 --fragment 1K
expect 2 'not with --latency' --peers 2 --latency

# ---- Output that is lost ----

for arguments in --help --version "${small[*]}"; do
    code=0
    # shellcheck disable=SC2086 # words
    timeout 120 "$perf" $arguments >/dev/full 2>"$work/output" || code=$?
    if ((code != 2)) || ! grep -q "nvlx_perf: what it tells cannot be written to stdout" "$work/output"; then
        bad "nvlx_perf $arguments >/dev/full: exit code $code"
    fi
done

# ---- Plots need matplotlib, which is said before anything is measured; perf_page.sh draws them ----

mkdir "$work/bin"
printf '#!/bin/sh\nexit 1\n' >"$work/bin/python3"
chmod +x "$work/bin/python3"
PATH=$work/bin:$PATH expect 2 'apt-get install python3-matplotlib' "${small[@]}" --fragment 4K --plot "$work/plot.svg"
PATH=$work/bin:$PATH expect 2 'report needs python3 with matplotlib' "${small[@]}" --fragment 4K --report "$work/page"
equals "what was measured without matplotlib" 0 "$(count 'GB/s' "$work/output")"
ln -s "$work/behind" "$work/link"
PATH=$work/bin:$PATH expect 2 'apt-get install python3-matplotlib' --json "$work/new.json" --plot "$work/link"
expect 2 'backend: ' --json "$work/new.json" --plot "$work/link" --backend tape
equals "files that are left where nothing was measured" "" "$(cd "$work" && ls -d page plot.svg new.json behind 2>/dev/null)"
equals "a link that is left" "$work/behind" "$(readlink "$work/link")"
echo old >"$work/old.json"
expect 2 'backend: ' --json "$work/old.json" --backend tape
equals "a file that was there" old "$(cat "$work/old.json")"
plot=$(dirname "$0")/../../src/tools/perf_plot.py
if command -v python3 >/dev/null; then
    mkdir "$work/without"
    echo 'raise ImportError("none here")' >"$work/without/matplotlib.py"
    said=$(PYTHONPATH=$work/without python3 "$plot" "$work/plot.svg" <"$work/json" 2>&1) && bad "perf_plot.py draws without matplotlib"
    equals "what perf_plot.py says without matplotlib" \
        "perf_plot.py needs matplotlib (none here): apt-get install python3-matplotlib, or pip install matplotlib" "$said"
fi

# ---- Instead of rates ----

expect 0 '^write *64 .* 2 of 2 verified' --arena 1M --op both --fragment 8,64 --latency --verify --json "$work/json"
is_json "$work/json" || bad "--latency: --json wrote what is not JSON"
equals "latencies in JSON" 12 "$(count '"p99_ns": ' "$work/json")"
for help in --help -h '-?'; do
    expect 0 '^Usage: ' "$help"
    equals "options in $help" 1 "$(count '--bidirectional' "$work/output")"
    equals "lines of $help that are too long, or end in a blank" "" "$(grep -E '.{80}| $' "$work/output")"
    equals "lines of $help that are indented badly" "" \
        "$(sed -n '/^ The list/,/^Exit/p' "$work/output" | grep -vE '^$|^ [A-Zb]|^      --[a-z]|^  -|^ {29}[^ ]|^Exit')"
    flat "$work/output" >"$work/flat"
    equals "the text of --baseline in $help" 1 \
        "$(count '--baseline=loop|batch|batch4|staged|kernel|2d|all|none some with commas between. loop: a cuda' "$work/flat")"
done
expect 0 '\[--baseline=' --usage
expect 2 'Try ' --nonsense
expect 0 'libnvlxfer [0-9.]*$' --version

# ---- Wrong bytes: not one too few is found ----

LD_PRELOAD=$faulty expect 1 'WRONG: 1 bytes of the measuring' "${small[@]}" --fragment 4K --count 8 --verify --baseline none
LD_PRELOAD=$faulty expect 1 'WRONG: 1 bytes of the owner' "${small[@]}" --fragment 4K --count 8 --verify --op write

# ---- What is refused names the option ----

for wrong in '--op fetch' '--fragment 4X' '--fragment 0' '--fragment 1K,,2K' '--fragment 2M' '--count 0' '--bytes many' \
    '--bytes 2M' '--arena -1' '--regions 0' '--regions 200' '--pattern zigzag' '--mechanism magic' '--max-sms x' \
    '--max-sms 1,2,3,4,5,6,7' '--priority high' '--priority -101' '--baseline best' '--rounds 0' '--gpus 0' '--gpus 0,99' \
    '--shape rows:1K' '--shape rows:2K:1K' '--shape grid:1:2' '--shape rows:x:1' '--shape blocks:4' '--shape blocks:65537:1' '--shape blocks:4:x' '--backend tape' '--json /nowhere/file' '--plot /nowhere/file'; do
    read -r option value <<<"$wrong"
    # shellcheck disable=SC2086 # no value, no argument
    expect 2 "$option" "${small[@]}" --fragment 4K --count 4 "$option" $value
done
expect 2 'nonsense' nonsense
expect 2 'unknown' --unknown
expect 2 '--regions' --bidirectional --regions 3
expect 2 '--shape' "${small[@]}" --shape rows:1K:2K --pattern mixed
expect 2 '--shape' "${small[@]}" --shape rows:1K:2K --latency
expect 2 '--shape' "${small[@]}" --shape blocks:4:1K --regions 2
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

# begin ARGUMENT...: something long, until it has printed its first row; `measuring` is its process.
begin() {
    : >"$work/begun"
    "$perf" --rounds 1000 --bytes 16M --fragment 1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M,1M \
        "$@" >"$work/begun" 2>"$work/error" &
    measuring=$!
    for _ in {1..400}; do
        if grep -q '^ *1M' "$work/begun"; then
            break
        fi
        sleep 0.05
    done
}

# kill_one owner|measuring
kill_one() {
    local measuring owner code=0
    begin
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

# ---- Ctrl-C: what was measured is told. A terminal sends it to both processes ----

begin --json "$work/json" --submit
code=0
kill -INT "$(child_of "$measuring")" "$measuring" || bad "nvlx_perf did not begin: $(cat "$work/error")"
wait "$measuring" || code=$?
equals "exit code after Ctrl-C" 130 "$code"
grep -q 'Submitting' "$work/begun" || bad "Ctrl-C: the second table is missing"
is_json "$work/json" || bad "Ctrl-C: --json wrote what is not JSON"
equals "that it was interrupted" 1 "$(count '"interrupted": true' "$work/json")"
((rows = $(count '"both_directions": ' "$work/json"))) || true
((rows >= 1 && rows < 22)) || bad "Ctrl-C: $rows rows of 22 in JSON"

((failed)) || echo "nvlx_perf does what it says"
exit "$failed"
