#!/usr/bin/env python3
"""Draws the rates in a JSON of nvlx_perf over the size of a fragment: a panel for each op and direction.

Usage: perf_plot.py FILE.svg <RESULTS.json    (or another kind of file that matplotlib writes)
SPDX-License-Identifier: Apache-2.0
"""
import json
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


def panels_of(rates):
    """The rows of each op and direction, by the size of a fragment."""
    panels = {}
    for row in rates:
        panels.setdefault((row["op"], row["both_directions"]), {})[row["fragment"]] = row["ways"]
    return panels


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
    axes.set_title({"read": "Read (get)", "write": "Write (put)"}[op] + (", both directions at once" if both else "")
                   + ", GB/s from the call to completion" + (", each way" if both else ""), loc="left")
    axes.grid(axis="y", color="#dddddd")
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def main():
    results = json.load(sys.stdin)
    panels = panels_of(results["rates"])
    figure, axes = pyplot.subplots(len(panels), figsize=(9.8, 4.6 * len(panels)), squeeze=False, layout="constrained")
    for at, (key, rows) in zip(axes[:, 0], panels.items()):
        draw_panel(at, key, rows, results["link"])
    versions = results["versions"]
    cuda = f", CUDA {versions['cuda']}, driver {versions['driver']}" if versions["cuda"] else ""
    figure.supxlabel(f"libnvlxfer {versions['library']}{cuda}; {results['measuring']['name']}"
                     + (", both processes on it" if results["same_gpu"] else "") + f"; {results['date'][:10]}",
                     fontsize="small", color="#555555")
    figure.savefig(sys.argv[1], metadata={"Date": None} if sys.argv[1].endswith(".svg") else None)


if __name__ == "__main__":
    main()
