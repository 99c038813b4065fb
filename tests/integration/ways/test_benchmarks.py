# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every comparison of benchmarks/run works, on little data and once; how long it takes is not looked at."""

from __future__ import annotations

import pathlib

from benchmarks import database_work, page, playbook_work, time_left
from benchmarks import databases as data
from benchmarks.measure import ON_EXAMPLE, Measuring

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_every_comparison(cluster, databases, tmp_path):
    measuring = Measuring(cluster, tmp_path, runs=1, warm_up=False)
    measuring.on(data.example(0.0003), "example", ON_EXAMPLE)
    measuring.on(data.wide_text(0.0003), "wide text", ON_EXAMPLE[:1])
    measuring.on(data.large_objects(0.0003), "large objects", ON_EXAMPLE[:1])
    measuring.many_tables(8)
    measuring.measure(playbook_work.module_calls(tmp_path, calls=1), "an empty store")
    assert len(measuring.results) == 12
    for found in measuring.results:
        assert set(found["ratios"]) == set(found["goals"]) and found["ours"]["cpu"] > 0, found
    page.write(tmp_path, page.merged(measuring.results, measuring.results))
    written = page.load(tmp_path)
    assert len(written) == 12
    # A line for each ratio, one for each result, and the heads of both tables.
    assert page.markdown(written).count("\n| ") == page.plot(written).count('fill="#222"') + 12 + 2


def test_estimates_are_compared_with_the_truth(cluster, databases, tmp_path):
    seen = time_left.Recorded()
    for at, left in ((0, None), (1, None), (2, 9), (4, 5)):
        seen.states.append((at, {"phase": "dumping", "left": left}))
    seen.states.append((10, {"phase": "backed up"}))
    assert seen.errors("dumping") == (10, [None, 13, -20, -40])
    with database_work.database(cluster, tmp_path, data.example(0.0003)) as made:
        assert [line.split()[0] for line in time_left.lines(made)] == list(time_left.PHASES)


def test_the_page_is_what_its_figures_say():
    results = page.load(ROOT / "docs")
    assert results
    assert (ROOT / "docs" / page.MARKDOWN).read_text("utf-8") == page.markdown(results)
    assert (ROOT / "docs" / page.PLOT).read_text("utf-8") == page.plot(results)
