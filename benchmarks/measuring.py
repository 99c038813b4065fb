# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Costs of a piece of work: seconds, CPU seconds of our processes and of the server, memory; and the order of runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import statistics
import time
import traceback
from typing import Any, Callable, Dict, List, Mapping, Optional

from demo.postgres_server import Cluster

_TICKS = os.sysconf("SC_CLK_TCK")
#: Work returns facts that can be compared, such as {"size": 123}, or nothing.
Work = Callable[[], Optional[Mapping[str, float]]]


def nothing() -> None:
    """What a comparison does before and after its runs, unless it says otherwise."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What we do beside what the runbook, or a plain tool, does for the same purpose."""

    name: str
    what: str
    against: str
    ours: Work
    theirs: Work
    #: the largest ratio of ours to theirs that we want, by fact: wall, cpu, size, gap, seconds
    goals: Mapping[str, float]
    #: what limits ours
    limit: str = ""
    #: run before each, not timed
    before_ours: Callable[[], object] = nothing
    before_theirs: Callable[[], object] = nothing
    #: run after both of the last run
    afterwards: Callable[[], object] = nothing
    #: whether the largest process is one of ours, and not npm's or Ansible's
    own_memory: bool = True


def cost_of(work: Work, cluster: Optional[Cluster] = None) -> Dict[str, float]:
    """The costs of work in a forked process, and its facts.

    :returns: ``wall`` and ``cpu`` in seconds, the latter with the server's; ``peak``, the memory of the largest of our
        processes in bytes; and the facts
    """
    reader, writer = os.pipe()
    server, started = server_seconds(cluster), time.monotonic()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with os.fdopen(writer, "w") as stream:
                json.dump(dict(work() or {}), stream)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as stream:
        said = stream.read()
    _pid, status, usage = os.wait4(child, 0)
    wall = time.monotonic() - started
    if status != 0:
        raise SystemExit("a measured piece of work failed; see above")
    cpu = usage.ru_utime + usage.ru_stime + server_seconds(cluster) - server
    return {"wall": wall, "cpu": cpu, "peak": usage.ru_maxrss * 1024, **json.loads(said)}


def server_seconds(cluster: Optional[Cluster]) -> float:
    """CPU seconds of a server since its start: of the postmaster, of ended and of living processes."""
    if cluster is None:
        return 0.0
    postmaster = (cluster.data / "postmaster.pid").read_text("utf-8").split("\n", 1)[0]
    total = sum(_times(postmaster))
    for task in pathlib.Path("/proc", postmaster, "task").iterdir():
        # Some kernels have no such list: then the sessions that are left out are those that have not ended.
        children = task / "children"
        for child in children.read_text("utf-8").split() if children.exists() else []:
            with contextlib.suppress(OSError):
                total += sum(_times(child))
    return total / _TICKS


def _times(pid: str) -> List[int]:
    """User and system time of a process and of its ended children, in ticks."""
    fields = pathlib.Path("/proc", pid, "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return [int(field) for field in fields[11:15]]


def measured(comparison: Comparison, runs: int, cluster: Optional[Cluster], *, warm_up: bool = True) -> Dict[str, Any]:
    """Both sides in turn, after one run of each that does not count."""
    ours: List[Dict[str, float]] = []
    theirs: List[Dict[str, float]] = []
    try:
        for number in range(0 if warm_up else 1, runs + 1):
            sides = [
                (comparison.before_theirs, comparison.theirs, theirs),
                (comparison.before_ours, comparison.ours, ours),
            ]
            # What runs first may find the other's pages in memory.
            for before, work, found in sides if number % 2 == 0 else reversed(sides):
                before()
                cost = cost_of(work, cluster)
                if not comparison.own_memory:
                    del cost["peak"]
                if number:
                    found.append(cost)
    finally:
        comparison.afterwards()
    return {
        "name": comparison.name,
        "what": comparison.what,
        "against": comparison.against,
        "limit": comparison.limit,
        "goals": dict(comparison.goals),
        "ours": medians(ours),
        "theirs": medians(theirs),
        "ratios": ratios(ours, theirs, comparison.goals),
        "runs": {"ours": ours, "theirs": theirs},
    }


def medians(runs: List[Dict[str, float]]) -> Dict[str, float]:
    return {fact: statistics.median(run[fact] for run in runs) for fact in runs[0]}


def ratios(
    ours: List[Dict[str, float]], theirs: List[Dict[str, float]], facts: Mapping[str, float]
) -> Dict[str, Optional[float]]:
    """Medians of ours in units of theirs; None where theirs was too short to be measured."""
    mine, other = medians(ours), medians(theirs)
    return {fact: round(mine[fact] / other[fact], 3) if other[fact] else None for fact in facts}
