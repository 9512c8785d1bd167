#!/usr/bin/env bash
# What nvlx_perf draws: --plot and --report, by python3 with matplotlib; without, nothing is tried: exit code 77.
# Usage: tests/tools/perf_page.sh NVLX_PERF
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
perf=$1
other=$(dirname "$0")/../../src/doc/figures/peers.json
if ! python3 -c 'import matplotlib' 2>/dev/null; then
    echo "SKIP: there is no python3 with matplotlib"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "FAILED: $1"
    cat "$work/output"
    exit 1
}

# run CODE ARGUMENT...
run() {
    local code=0 wanted=$1
    shift
    timeout 120 "$perf" --backend host --arena 1M --bytes 256K --rounds 3 "$@" >"$work/output" 2>&1 || code=$?
    [[ $code == "$wanted" ]] || fail "nvlx_perf $*: exit code $code, not $wanted"
}

# has NUMBER WORDS FILE: so often
has() {
    [[ $(grep -oFe "$2" "$3" | wc -l) == "$1" ]] || fail "$3 does not have '$2' $1 times"
}

run 0 --op both --fragment 1K,4K,16K --prepared --bidirectional --verify --json "$work/<b>.json" --plot "$work/plot.svg" \
    --report "$work/page" --beside "$other"
python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$work/plot.svg" || fail "--plot: no XML"
has 4 'bytes a fragment' "$work/plot.svg"
has 4 'the link: one copy of 1M' "$work/plot.svg"
has 4 '>prepared<' "$work/plot.svg"
has 2 '>memcpy<' "$work/plot.svg"
diff <(grep -v '"date"' "$work/<b>.json") <(grep -v '"date"' "$work/page/results.json") || fail "results.json differs"

# The page stands alone, its tags match, and its tables have what results.json has.
python3 - "$work/page" "$other" <<'END' || fail "the page is not as it should be"
import html.parser
import json
import sys


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tables, self.open, self.cell, self.drawings = [], [], None, 0

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            assert name not in ("src", "srcset") and not (name.endswith("href") and not value.startswith("#")), (tag, value)
        assert tag not in ("script", "link", "b"), tag
        if tag in ("table", "svg", "style", "div", "pre", "g", "text"):
            self.open.append(tag)
        self.drawings += tag == "svg"
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self.cell = self.tables[-1][-1]

    def handle_endtag(self, tag):
        if self.open and tag in ("table", "svg", "style", "div", "pre", "g", "text"):
            assert self.open.pop() == tag, tag
        if tag in ("th", "td", "table"):
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.cell[-1] += data.rstrip("\n")


folder, other = sys.argv[1:]
text = open(folder + "/index.html", encoding="utf-8").read()
page = Page()
page.feed(text)
assert not page.open and page.drawings == 2, (page.open, page.drawings)
results = json.load(open(folder + "/results.json", encoding="utf-8"))
tables = [table for table in page.tables if table[0][0] == "bytes a fragment" and "memcpy" in table[0]]
rows = [row for row in results["rates"] if not row["both_directions"]]
assert len(rows) == 6 and [len(table) for table in tables] == [4, 4], (len(rows), tables)
for row, cells in zip(rows, tables[0][1:] + tables[1][1:]):
    for way, cell in zip(row["ways"], cells[1:]):
        assert abs(float(cell) - way["gbps"]) <= 0.006 * max(1, way["gbps"]), (cell, way)
beside = [table for table in page.tables if "torch, a loop of copy_" in table[0]][0]
assert [row[0] for row in beside[1:]][:2] == ["1K", "4K"] and beside[1][2] == "114"
END

run 0 --latency --fragment 8 --report "$work/latency"
has 1 '<h2>Latency</h2>' "$work/latency/index.html"
run 2 --report "$work/none" --beside "$0"
grep -q -- "--beside: $0 does not have the results" "$work/output" || fail "--beside takes what is no result"
run 2 --beside "$other"
run 2 --report "$work/plot.svg/none"
[[ ! -e $work/none ]] || fail "a folder is left where nothing was measured"
echo "plots and pages are as they should be"
