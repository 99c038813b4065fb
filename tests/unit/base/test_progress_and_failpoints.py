# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run's progress, and the failpoints at which a test can interrupt it."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from typing import Any, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import progress as progress_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import (
    Progress,
    TaskProgress,
    described,
    estimate,
    followed,
    task_file,
    timestamp,
)

SCRIPT = """
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.failpoints import reach
for name in ("one", "two", "two", "three"):
    reach(name)
    print(name, flush=True)
"""


def reached(**variables):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BACKSTOP_FAIL")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**environment, **variables}, stdout=subprocess.PIPE, check=False, text=True
    )
    return done.returncode, done.stdout.split()


def test_failpoints(tmp_path):
    assert reached() == (0, ["one", "two", "two", "three"])
    assert reached(BACKSTOP_FAILPOINT="two") == (-signal.SIGKILL, ["one"])
    assert reached(BACKSTOP_FAILPOINT="two#2") == (-signal.SIGKILL, ["one", "two"])
    assert reached(BACKSTOP_FAILPOINT="two#3")[0] == 0
    log = tmp_path / "log"
    reached(BACKSTOP_FAILPOINT_LOG=str(log), BACKSTOP_FAILPOINT="three")
    assert log.read_text().split() == ["one", "two", "two", "three"]


def test_progress(tmp_path):
    progress = Progress(str(tmp_path))
    progress.phase("dumping", database="shop")
    progress.phase("comparing", table=3)
    found = json.loads((tmp_path / "progress.json").read_text())
    assert found["phase"] == "comparing" and found["table"] == 3 and found["pid"] == os.getpid()
    assert found["started"] <= found["since"]
    Progress().phase("silent")


class Clock:
    """In place of the module ``time``."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress_module, "time", made)
    return made


def test_work_is_written_at_most_once_a_second(tmp_path, clock) -> None:
    progress = Progress(str(tmp_path))
    progress.done(5)
    assert progress.read() == {}, "there is no phase yet"
    progress.phase("dumping", bytes_total=1000, tables_total=4)
    clock.now += 0.5
    progress.done(100, 1)
    assert progress.read()["bytes"] == 0
    clock.now += 0.5
    progress.done(200, 2)
    found = progress.read()
    assert [found[key] for key in ("bytes", "tables", "rate", "left")] == [200, 2, 200, 4.0]
    clock.now += 1
    progress.done(150, 1)
    assert progress.read()["bytes"] == 200, "work is never taken back"
    clock.now += 1
    progress.done(5000, 9)
    found = progress.read()
    assert [found[key] for key in ("bytes", "tables", "left")] == [1000, 4, 0.0], "sizes are estimates"
    progress.phase("reading")
    progress.done(7)
    assert "bytes" not in progress.read()


def test_others_see_it_too_and_a_full_disk_stops_nothing(tmp_path) -> None:
    other = Progress(str(tmp_path))
    progress = Progress("/dev/null/nowhere")
    for _time in range(2):
        progress.also(other)
    progress.also(progress)
    progress.also(None)
    progress.phase("dumping")
    assert other.read()["phase"] == "dumping" and progress.read() == {}
    (tmp_path / "progress.json").write_text("")
    assert other.read() == {}


def test_the_progress_of_a_task(tmp_path) -> None:
    progress = TaskProgress(str(tmp_path / "store"), "5" * 16)
    progress.phase("checking")
    assert not (tmp_path / "store").exists(), "it does not make the store"
    (tmp_path / "store").mkdir()
    progress.phase("dumping")
    file = pathlib.Path(task_file(str(tmp_path / "store"), "5" * 16))
    assert json.loads(file.read_text())["phase"] == "dumping"
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    killed, running = file.parent / "killed.json", file.parent / "running.json"
    for other in (killed, running):
        other.write_text("{}")
    os.utime(killed, (1, 1))
    progress.close()
    assert list(file.parent.iterdir()) == [running]
    running.unlink()
    progress.close()
    assert not file.parent.exists()
    progress.close()


@pytest.mark.parametrize(
    "seconds, part, length",
    [(0, 0, None), (10, 0, None), (10, 0.04, None), (10, 0.1, 100), (10, 1, 10), (3, 0.25, 12)],
)
def test_estimates(seconds, part, length) -> None:
    assert estimate(seconds, part) == (None if length is None else pytest.approx(length))


def test_the_second_half_so_far_counts(tmp_path, clock) -> None:
    """Rates change: those of a dump when its digests are finished."""
    progress = Progress(str(tmp_path))
    progress.phase("restoring", bytes_total=1000)
    for _second in range(4):
        clock.now += 1
        progress.done(progress.read()["bytes"] + 100)
    assert progress.read()["left"] == 6.0
    for _second in range(4):
        clock.now += 1
        progress.done(progress.read()["bytes"] + 25)
    assert [progress.read()[key] for key in ("bytes", "rate", "left")] == [500, 62, 20.0]
    clock.now += 8
    progress.done(500)
    assert progress.read()["left"] == 12.0, "one part of the work takes long"
    clock.now += 13
    progress.done(500)
    assert progress.read()["left"] is None, "it takes longer than that"


def test_a_part_of_the_time_tells_more_than_bytes(tmp_path, clock) -> None:
    """A restore builds indexes after the rows."""
    progress = Progress(str(tmp_path))
    progress.phase("restoring", bytes_total=1000, tables_total=2, indexes_total=3)
    clock.now += 10
    progress.done(1000, 2, 0.25, indexes=1)
    found = progress.read()
    assert [found[key] for key in ("bytes", "left", "indexes")] == [1000, 30.0, 1]
    assert described(found) == "restoring, 2 of 2 tables, 1 of 3 indexes and foreign keys, 1 kB of 1 kB, 30 s left"


def test_as_a_line() -> None:
    known = {"tables": 12, "tables_total": 48, "bytes": 310_000_000, "bytes_total": 1_200_000_000}
    assert described({"phase": "rehearsing", "migrations": ["a"]}) == "rehearsing"
    assert described({"phase": "dumping", **known, "rate": None, "left": None}) == (
        "dumping, 12 of 48 tables, 310 MB of 1.2 GB"
    )
    assert described({"phase": "dumping", **known, "rate": 52_000_000, "left": 17.1}) == (
        "dumping, 12 of 48 tables, 310 MB of 1.2 GB, 52 MB/s, 17 s left"
    )


def test_followed_work(monkeypatch) -> None:
    """The reports end with the block or with their first error, which is not raised."""
    calls: List[Any] = []
    reported = threading.Event()
    with followed(reported.set, lambda: calls.append("begun")):
        pass
    assert not calls, "a short block connects to nothing"
    monkeypatch.setattr(progress_module, "SHOW_SECONDS", 0)
    with followed(reported.set, lambda: calls.append(reported.is_set())):
        assert reported.wait(10)
    assert calls == [False], "once, and before the first report"
    calls.clear()

    def fail() -> None:
        calls.append(threading.current_thread())
        raise OSError

    with followed(fail):
        while not calls:
            pass
        calls[0].join(10)
    assert len(calls) == 1
    with pytest.raises(KeyError), followed(reported.set):
        raise KeyError


def test_timestamps_are_utc_to_the_millisecond():
    moment = datetime.datetime(2025, 11, 8, 2, 0, 0, 123999, tzinfo=datetime.timezone.utc)
    assert timestamp(moment) == "2025-11-08T02:00:00.123Z"
    east = moment.astimezone(datetime.timezone(datetime.timedelta(hours=2)))
    assert timestamp(east) == timestamp(moment)
