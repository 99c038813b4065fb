# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How well the time left is estimated while a backup is made, restored and compared; prints the errors in percent.

An error is of the time left that was shown after 10, 25, 50 and 75 % of a phase. Started by `benchmarks/run time-left`.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import tempfile
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import run_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import Progress

from benchmarks import database_work, databases
from benchmarks.database_work import Database
from benchmarks.measure import server

PHASES = ("dumping", "restoring", "comparing")
#: Parts of a phase's time at which the estimate is compared with what it really took.
MOMENTS = (0.1, 0.25, 0.5, 0.75)


class Recorded(Progress):
    """Keeps what is shown, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.states: List[Tuple[float, Dict[str, Any]]] = []

    def show(self, state: Dict[str, Any]) -> None:
        self.states.append((time.monotonic(), state))

    def errors(self, phase: str) -> Tuple[float, List[Optional[int]]]:
        """Seconds that the phase took, and for each moment how much too long the time left was, in percent of the
        truth; None where none was shown."""
        ours = [number for number, (_at, state) in enumerate(self.states) if state["phase"] == phase]
        began, ended = self.states[ours[0]][0], self.states[ours[-1] + 1][0]
        found: List[Optional[int]] = []
        for moment in MOMENTS:
            now = began + moment * (ended - began)
            at, state = [self.states[number] for number in ours if self.states[number][0] <= now][-1]
            left = state.get("left")
            # What was shown some time ago has run down since.
            found.append(None if left is None else round(100 * (max(0, at + left - now) / (ended - now) - 1)))
        return ended - began, found


def lines(database: Database) -> Iterator[str]:
    """Back up, restore and compare once: for each phase its seconds, the load, and the errors."""
    seen = Recorded()
    site = dataclasses.replace(database.site, watched_by=seen)
    run_drill(site, make_backup(site, "pre-migration"))
    for phase in PHASES:
        seconds, errors = seen.errors(phase)
        said = ", ".join("none" if error is None else "%+d %%" % error for error in errors)
        yield "%-10s %5.1f s, load %.1f: %s" % (phase, seconds, os.getloadavg()[0], said)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/run time-left", description=__doc__)
    parser.add_argument("--size", type=float, default=1, help="of the example's data in GB")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--server", help="as for benchmarks/run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstop-bench-") as name:
        os.chmod(name, 0o755)
        cluster, work = server(given.server, pathlib.Path(name))
        work.mkdir()
        try:
            with database_work.database(cluster, work, databases.example(given.size)) as made:
                for _number in range(given.runs):
                    for line in lines(made):
                        print(line, flush=True)
        finally:
            cluster.destroy()


if __name__ == "__main__":
    main()
