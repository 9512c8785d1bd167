#!/usr/bin/env python3
"""Draws the rates in a JSON of nvlx_perf over the size of a fragment: a panel for each op and direction.

Usage: perf_plot.py FILE.svg <RESULTS.json    (or another kind of file that matplotlib writes)
       perf_plot.py --report FOLDER [OTHER.json...] <RESULTS.json
           writes a page, index.html, with plots and tables, and results.json; other results stand beside
       perf_plot.py --check OTHER.json    fails if that cannot stand beside
SPDX-License-Identifier: Apache-2.0
"""
import html
import io
import json
import pathlib
import shlex
import sys

try:
    import matplotlib
except ImportError as error:
    sys.exit(f"perf_plot.py needs matplotlib ({error}): apt-get install python3-matplotlib, or pip install matplotlib")

matplotlib.use("Agg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
from matplotlib import pyplot

RAW = {"linewidth": 1.3, "linestyle": "--"}
OURS = {"linewidth": 2.8, "linestyle": "-"}


def size_text(count):
    for unit in ("", "K", "M"):
        if count % 1024 or not count:
            return f"{count}{unit}"
        count //= 1024
    return f"{count}G"


def panels_of(rates, whole=False):
    """Of each op and direction the ways by the size of a fragment, or the whole rows."""
    panels = {}
    for row in rates:
        panels.setdefault((row["op"], row["both_directions"]), {})[row["fragment"]] = row if whole else row["ways"]
    return {key: [rows[size] for size in sorted(rows)] if whole else rows for key, rows in panels.items()}


def title_of(op, both):
    return {"read": "Read (get)", "write": "Write (put)"}[op] + (", both directions at once" if both else "")


def draw_panel(axes, key, rows, link):
    op, both = key
    places = sorted(rows)
    for i, way in enumerate(rows[places[0]]):
        points = [(x, rows[size][i]["gbps"]) for x, size in enumerate(places)]
        points = [point for point in points if point[1] is not None]
        if points:
            axes.plot(*zip(*points), label=way["way"], marker=".", **(RAW if way["raw"] else OURS))
    if link and link[op + "_gbps"]:
        axes.axhline(link[op + "_gbps"], label=f"the link: one copy of {size_text(link['bytes'])}", color="black",
                     linewidth=1, linestyle=":")
    axes.set_xticks(range(len(places)), [size_text(size) for size in places])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("bytes a fragment")
    axes.set_title(f"{title_of(op, both)}, GB/s from the call to completion{', each way' * both}", loc="left")
    axes.grid(axis="y", color="#dddddd")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def draw(results):
    panels = panels_of(results["rates"])
    figure, axes = pyplot.subplots(len(panels), figsize=(9.8, 4.6 * len(panels)), squeeze=False, layout="constrained")
    for at, (key, rows) in zip(axes[:, 0], panels.items()):
        draw_panel(at, key, rows, results["link"])
    versions = results["versions"]
    cuda = f", CUDA {versions['cuda']}, driver {versions['driver']}" if versions["cuda"] else ""
    figure.supxlabel(f"libnvlxfer {versions['library']}{cuda}; {results['measuring']['name']}"
                     + (", both processes on it" if results["same_gpu"] else "") + f"; {results['date'][:10]}",
                     fontsize="small", color="#555555")
    return figure


# ---- A page: one file, that needs nothing else ----------------------------------------------------------

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem }
h2 { font-size: 1.15rem; margin-top: 2.2rem }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th { font-weight: 600 }
th:first-child, td:first-child { text-align: left }
td.best { font-weight: 700 }
.wrong { color: #b00020; font-weight: 700 }
pre { font: 13px/1.5 ui-monospace, monospace; background: #f5f5f5; padding: .6rem; overflow-x: auto }
svg { max-width: 100%; height: auto }
p.note { color: #555 }
div.wide { overflow-x: auto }
"""


def table(head, rows, kinds=None):
    """HTML of a table; kinds gives a class to some cells: {(row, column): class}."""
    kinds = kinds or {}
    lines = ["<div class=wide><table><tr>" + "".join(f"<th>{html.escape(str(cell))}" for cell in head)]
    for i, row in enumerate(rows):
        cells = (f"<td{' class=' + kinds[i, j] if (i, j) in kinds else ''}>{html.escape(str(cell))}"
                 for j, cell in enumerate(row))
        lines.append("<tr>" + "".join(cells))
    return "\n".join(lines) + "\n</table></div>\n"


def number(value, digits=3):
    if value is None:
        return "-"
    return f"{value:.{max(0, digits - len(str(int(abs(value)))))}f}"


def svg_of(results):
    drawn = io.StringIO()
    draw(results).savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()[drawn.getvalue().index("<svg"):]


def by_way(rows):
    """The names of all ways that have a rate, in their order, and for each row its ways by name."""
    names = list(dict.fromkeys(way["way"] for row in rows for way in row["ways"] if way["gbps"] is not None))
    return names, [{way["way"]: way for way in row["ways"]} for row in rows]


def rate_table(rows):
    names, found = by_way(rows)
    cells, kinds = [], {}
    for i, (row, ways) in enumerate(zip(rows, found)):
        rates = [ways[name]["gbps"] if name in ways else None for name in names]
        cells.append([size_text(row["fragment"])] + [number(rate) for rate in rates])
        for j, (name, rate) in enumerate(zip(names, rates)):
            if name in ways and ways[name].get("wrong_bytes"):
                kinds[i, j + 1] = "wrong"
            elif rate is not None and rate == max(other for other in rates if other is not None):
                kinds[i, j + 1] = "best"
    return table(["bytes a fragment", *names], cells, kinds)


def detail_table(rows):
    """What our ways cost, and what carried them."""
    cells = []
    for row in rows:
        for way in row["ways"]:
            if way["raw"] or way.get("median_ns") is None:
                continue
            moved = way["engine_bytes"] + way["kernel_bytes"]
            cells.append([size_text(row["fragment"]), way["way"], row["count"], number(way["median_ns"] / 1e3),
                          number(way["p99_ns"] / 1e3), number(way["submit_ns"] / 1e3), way["sms"],
                          f"{100 * way['kernel_bytes'] / moved:.0f} %" if moved else "-",
                          "-" if way["wrong_bytes"] is None else way["wrong_bytes"]])
    return table(["bytes a fragment", "way", "fragments", "median us", "p99 us", "CPU us", "SMs", "by kernels",
                  "wrong bytes"], cells) if cells else ""


def latency_table(rows):
    cells = [[row["op"], size_text(row["bytes"]), way["way"], number(way["median_ns"] / 1e3),
              number(way["p90_ns"] / 1e3), number(way["p99_ns"] / 1e3)]
             for row in rows for way in row["ways"] if way["median_ns"] is not None]
    return table(["op", "bytes", "way", "median us", "p90 us", "p99 us"], cells)


def machine(results):
    facts = [(name, value) for name, value in [
        ("date", results.get("date")), ("host", results.get("host")), ("backend", results.get("backend")),
        ("owner's GPU", results.get("owner", {}).get("name")), ("measuring GPU", results["measuring"]["name"]),
        ("both on one GPU", results["same_gpu"] or None),
        ("libnvlxfer", results["versions"]["library"]), ("CUDA", results["versions"]["cuda"]),
        ("driver", results["versions"].get("driver")), ("pattern", results.get("pattern")),
        ("regions", results.get("regions")), ("mechanism", results.get("mechanism")),
        ("interrupted", results.get("interrupted") or None)] if value is not None]
    command = " ".join(shlex.quote(word) for word in results.get("command", []))
    return table(["", ""], facts) + (f"<pre>{html.escape(command)}</pre>\n" if command else "")


def rates_of(results):
    """HTML: the plots, and for each op and direction its tables."""
    parts = [svg_of(results)]
    for (op, both), rows in panels_of(results["rates"], whole=True).items():
        parts.append(f"<h3>{title_of(op, both)}</h3>\n{rate_table(rows)}")
        if "median_ns" in rows[0]["ways"][0]:
            parts.append(f"<p class=note>What ours cost, and what carried it:</p>{detail_table(rows)}")
    return "".join(parts)


def page(results, beside):
    wrong = results.get("wrong_bytes")
    parts = [f"<!DOCTYPE html>\n<html lang=en><meta charset=utf-8><title>nvlx_perf, {html.escape(results['date'][:10])}"
             f"</title><style>{STYLE}</style>\n<h1>nvlx_perf: {html.escape(results['measuring']['name'])}</h1>\n"]
    if wrong:
        parts.append(f"<p class=wrong>{wrong} bytes were wrong.</p>")
    parts.append("<h2>What was measured, and where</h2>\n" + machine(results))
    if results["rates"]:
        parts.append("<h2>Rates, GB/s</h2>\n<p class=note>From the call until it was seen complete; medians. The best of "
                     "a row is bold.</p>\n" + rates_of(results))
    if results.get("latency"):
        parts.append("<h2>Latency</h2>\n" + latency_table(results["latency"]))
    for name, other in beside:
        parts.append(f"<h2>Beside it: {html.escape(name)}</h2>\n<p class=note>Of another run: compare shapes, and ratios "
                     f"within it.</p>\n{machine(other)}{rates_of(other)}")
    return "".join(parts) + "</html>\n"


def read_others(names):
    return [(pathlib.Path(name).name, json.loads(pathlib.Path(name).read_text(encoding="utf-8"))) for name in names]


def write_report(folder, others):
    text = sys.stdin.read()
    made = page(json.loads(text), read_others(others))
    into = pathlib.Path(folder)
    (into / "results.json").write_text(text, encoding="utf-8")
    (into / "index.html").write_text(made, encoding="utf-8")


def main():
    if sys.argv[1] == "--report":
        write_report(sys.argv[2], sys.argv[3:])
        return
    if sys.argv[1] == "--check":
        for _, other in read_others(sys.argv[2:]):
            page(other, [])
        return
    figure = draw(json.load(sys.stdin))
    figure.savefig(sys.argv[1], metadata={"Date": None} if sys.argv[1].endswith(".svg") else None)


if __name__ == "__main__":
    main()
