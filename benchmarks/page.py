# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The results as JSON, and the page and the plot that are made of them alone."""

from __future__ import annotations

import json
import pathlib
from typing import Any, Dict, List
from xml.sax.saxutils import escape

JSON, MARKDOWN, PLOT = "performance.json", "performance.md", "performance.svg"
#: What the ratio of each fact compares, and how its values are printed.
FACTS = {
    "wall": ("time", "%.2f s"),
    "cpu": ("CPU time, with the server's", "%.2f s"),
    "size": ("size", "%.1f MB"),
    "gap": ("longest gap", "%.3f s"),
    "seconds": ("time", "%.3f s"),
    "each": ("time of each", "%.4f s"),
    "call": ("time of a call", "%.3f s"),
}
MEGABYTE = 1_000_000
#: The peak memory that no process of ours may exceed.
MOST_MEMORY = 80 * MEGABYTE
Results = List[Dict[str, Any]]


def load(folder: pathlib.Path) -> Results:
    path = folder / JSON
    return json.loads(path.read_text("utf-8"))["results"] if path.is_file() else []


def merged(old: Results, new: Results) -> Results:
    """Old results, with the new ones in the place of those of the same comparison, data and server."""

    def key(result: Dict[str, Any]) -> Any:
        return result["name"], result["data"], result["server"]

    replaced = {key(result) for result in new}
    return sorted([result for result in old if key(result) not in replaced] + new, key=key)


def write(folder: pathlib.Path, results: Results) -> None:
    (folder / JSON).write_text(json.dumps({"format": 1, "results": results}, indent=1) + "\n", "utf-8")
    (folder / MARKDOWN).write_text(markdown(results), "utf-8")
    (folder / PLOT).write_text(plot(results), "utf-8")


def shown(fact: str, value: float) -> str:
    return FACTS[fact][1] % (value / MEGABYTE if fact == "size" else value)


def markdown(results: Results) -> str:
    """The page."""
    parts = [HEAD % JSON, "| figure | data | ratio | goal | met | what limits it |", "|---|---|---|---|---|---|"]
    for one in results:
        for fact, goal in one["goals"].items():
            ratio = one["ratios"][fact]
            said, met = ("too short", "?") if ratio is None else ("%.2f" % ratio, "yes" if ratio <= goal else "**no**")
            figure = "`%s`, %s" % (one["name"], FACTS[fact][0])
            parts.append(row(figure, measured_on(one), said, "%g" % goal, met, one["limit"]))
    compared = {one["name"]: "- `%s`: %s; beside %s" % (one["name"], one["what"], one["against"]) for one in results}
    parts += [COMPARED, *compared.values(), DETAILS % (MOST_MEMORY // MEGABYTE, PLOT)]
    parts += ["| figure | data | seconds | CPU seconds | other | memory | load |", "|---|---|---|---|---|---|---|"]
    for one in results:
        others = ["%s %s" % (FACTS[fact][0], beside(one, fact)) for fact in one["goals"] if fact not in ("wall", "cpu")]
        load = "%s, %d cores" % (" to ".join("%.1f" % part for part in one["load"]), one["cores"])
        seconds = [beside(one, fact) for fact in ("wall", "cpu")]
        parts.append(row("`%s`" % one["name"], measured_on(one), *seconds, "; ".join(others), memory(one), load))
    return "\n".join(parts) + "\n"


def row(*cells: str) -> str:
    return "| %s |" % " | ".join(cells)


def measured_on(one: Dict[str, Any]) -> str:
    return "%s, %s" % (one["data"], one["server"])


def beside(one: Dict[str, Any], fact: str) -> str:
    return " / ".join(shown(fact, one[side][fact]) for side in ("ours", "theirs"))


def memory(one: Dict[str, Any]) -> str:
    """The peak of the largest of our processes; empty where that is another program's."""
    peak = max(run.get("peak", 0) for run in one["runs"]["ours"])
    over = " (more than %d)" % (MOST_MEMORY // MEGABYTE) if peak > MOST_MEMORY else ""
    return "%.0f MB%s" % (peak / MEGABYTE, over) if peak else ""


HEAD = """\
# Performance

A ratio is ours to the other's, both measured in turn by `benchmarks/run` on data that it makes itself; below 1, ours is
faster, smaller or shorter. The goals are meant for 1 GB: on little data most of the time goes into the start of
programs and into questions about definitions, which do not grow with the rows. All runs are in
[%s](performance.json).
"""
COMPARED = """
## What is compared
"""
DETAILS = """
## All figures

Ours / the other's: medians of several runs, after one of each that does not count. CPU time includes the server's.
Memory is the peak of the largest of our processes; its goal is %d MB. A load above the number of cores means that the
machine did other work meanwhile: then only the ratios say something.

![Ratios beside their goals](%s)
"""
LEFT, WIDTH, BAR, STEP, TOP = 480, 380, 12, 20, 40
#: The plot ends here; a larger ratio is written at its bar.
MOST = 2.5


def plot(results: Results) -> str:
    """A bar for each ratio, with a mark at its goal and a line at 1."""
    rows = [
        ("%s, %s, %s: %s" % (one["name"], one["data"], one["server"], FACTS[fact][0]), one["ratios"][fact], goal)
        for one in results
        for fact, goal in one["goals"].items()
        if one["ratios"][fact] is not None
    ]
    height = TOP + STEP * len(rows) + 10
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">'
        % (LEFT + WIDTH + 60, height),
        '<rect width="100%" height="100%" fill="#fff"/>',
        text(LEFT, 16, "ratio to the other (bar), goal (mark), equal (line at 1)", "start"),
    ]
    for number, (label, ratio, goal) in enumerate(rows):
        y = TOP + STEP * number
        colour = "#2a7f4f" if ratio <= goal else "#b5541c"
        lines += [
            text(LEFT - 8, y + 10, label, "end"),
            box(LEFT, y, scaled(ratio), BAR, colour),
            box(LEFT + scaled(goal) - 1, y - 3, 2, BAR + 6, "#222"),
            text(LEFT + scaled(max(ratio, goal)) + 6, y + 10, "%.2f" % ratio, "start"),
        ]
    lines += [box(LEFT + scaled(1), TOP - 8, 1, height - TOP, "#888"), "</svg>"]
    return "\n".join(lines) + "\n"


def scaled(ratio: float) -> float:
    return round(WIDTH * min(ratio, MOST) / MOST, 1)


def box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return '<rect x="%s" y="%s" width="%s" height="%s" fill="%s"/>' % (x, y, width, height, colour)


def text(x: float, y: float, content: str, anchor: str) -> str:
    return '<text x="%s" y="%s" text-anchor="%s">%s</text>' % (x, y, anchor, escape(content))
