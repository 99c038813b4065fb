# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times; and the progress of a long task, in a file that can be read on the host while it runs."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, TypeVar

from .amounts import human_size, human_time
from .durable_files import PRIVATE_DIRECTORY, write_volatile

#: How often progress is written, in seconds.
SHOW_SECONDS = 1.0
#: The part of a phase from which on the time left is estimated.
FIRST_PART = 0.05
#: Directory in a store for the progress of modules that run.
TASKS = "progress"
_T = TypeVar("_T")


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def timestamp(moment: Optional[datetime.datetime] = None, timespec: str = "milliseconds") -> str:
    """A time as RFC 3339 text in UTC.

    :param timespec: precision, as in :meth:`datetime.datetime.isoformat`
    """
    moment = (moment or utc_now()).astimezone(datetime.timezone.utc)
    return moment.replace(tzinfo=None).isoformat(timespec=timespec) + "Z"


def parse_timestamp(text: str) -> datetime.datetime:
    """The time that timestamp() wrote."""
    return datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc)


class Progress:
    """How far a long task is: its phase and, where they are known, bytes and tables done.

    It is written to a file and passed on to other progresses. Without a file nothing is written. Nothing here fails the
    work, not even a full disk. Its methods can be called by several threads.
    """

    def __init__(self, directory: Optional[str] = None, name: str = "progress.json") -> None:
        self._path = os.path.join(directory, name) if directory else None
        self._started = timestamp()
        self._also: List[Progress] = []
        self._lock = threading.RLock()
        self._state: Dict[str, Any] = {}
        self._phase_began = self._shown = 0.0
        #: seconds since the phase began, and the part of it that was done then
        self._samples: List[Tuple[float, float]] = [(0.0, 0.0)]
        #: seconds from the beginning to the end of the phase, as estimated when the last sample was taken
        self._length: Optional[float] = None

    def also(self, other: Optional["Progress"]) -> None:
        """Show everything there too."""
        if other is not None and other is not self and other not in self._also:
            self._also.append(other)

    def read(self) -> Dict[str, Any]:
        """The latest progress, of any process; empty without one, or when a crash of the host damaged it."""
        try:
            with open(str(self._path), encoding="utf-8") as stream:
                return dict(json.load(stream))
        except (OSError, ValueError, TypeError):
            return {}

    @property
    def name(self) -> str:
        """The phase; empty before the first."""
        return str(self._state.get("phase", ""))

    def phase(
        self, name: str, *, bytes_total: Optional[int] = None, tables_total: Optional[int] = None, **facts: Any
    ) -> None:
        """Enter a phase, such as "dumping".

        :param bytes_total: the whole work of this phase, if it is known; see done()
        :param tables_total: the same in tables, or in what the fact ``unit`` names
        """
        with self._lock:
            self._state = {"phase": name, "started": self._started, "since": timestamp(), "pid": os.getpid(), **facts}
            if bytes_total:
                self._state.update(bytes=0, bytes_total=int(bytes_total))
            if tables_total:
                self._state.update(tables=0, tables_total=tables_total)
            self._phase_began = time.monotonic()
            self._samples, self._length = [(0.0, 0.0)], None
            self._publish()

    def done(
        self, bytes_done: float, tables_done: Optional[int] = None, part: Optional[float] = None, **facts: Any
    ) -> None:
        """How much of the phase is done. Written at most once a second, so that it may be called for every table.

        :param part: of the phase's time, from 0 to 1, where bytes do not tell it
        """
        with self._lock:
            now = time.monotonic()
            for unit, amount in (("bytes", int(bytes_done)), ("tables", tables_done)):
                if amount is not None and unit in self._state:
                    # Sizes are estimates, and a poll may see less than the one before.
                    self._state[unit] = max(self._state[unit], min(amount, self._state[unit + "_total"]))
            if not self._state or now < self._shown + SHOW_SECONDS:
                return
            self._state.update(facts)
            if "bytes" in self._state:
                seconds, done, total = now - self._phase_began, self._state["bytes"], self._state["bytes_total"]
                self._state.update(rate=int(done / seconds) if 0 < done < total and seconds else None, left=None)
                part = done / total if part is None else part
                # Until more is done the last estimate runs down: one part of the work may take long.
                if part > self._samples[-1][1]:
                    self._length = estimate(seconds, part, [one for one in self._samples if one[0] <= seconds / 2][-1])
                    self._samples.append((seconds, part))
                if self._length is not None and self._length >= seconds:
                    self._state["left"] = round(self._length - seconds, 1)
            self._publish()

    def each(self, name: str, tables: Sequence[_T]) -> Iterator[_T]:
        """A phase that takes one table after the other. How long one takes differs too much for an estimate."""
        self.phase(name, tables_total=len(tables))
        for number, table in enumerate(tables):
            self.done(0, number)
            yield table
        self.done(0, len(tables))

    def copy(self, state: Dict[str, Any]) -> None:
        """Show the progress of another process, such as one that is waited for; see read()."""
        with self._lock:
            if state and state != self._state:
                self._state = dict(state)
                self._publish()

    def _publish(self) -> None:
        self._shown = time.monotonic()
        for one in (self, *self._also):
            one.show(dict(self._state))

    def show(self, state: Dict[str, Any]) -> None:
        if self._path:
            with contextlib.suppress(OSError):
                write_volatile(self._path, (json.dumps(state, sort_keys=True, default=str) + "\n").encode())


class TaskProgress(Progress):
    """The progress of one module, in a file of the store that Ansible's action plugin reads while it runs.

    The file is removed when the module ends, and after a day if it was killed.
    """

    def __init__(self, store: str, task: str) -> None:
        self._store, self._directory = store, os.path.join(store, TASKS)
        super().__init__(self._directory, task + ".json")

    def show(self, state: Dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            # Whether the store may be created is not decided here.
            if os.path.isdir(self._store):
                os.makedirs(self._directory, PRIVATE_DIRECTORY, exist_ok=True)
        super().show(state)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            for entry in os.scandir(self._directory):
                if entry.path == self._path or entry.stat().st_mtime < time.time() - 86400:
                    os.unlink(entry.path)
            # Fails while it is used by others.
            os.rmdir(self._directory)


def task_file(store: str, task: str) -> str:
    """The file of a TaskProgress."""
    return "%s/%s/%s.json" % (store.rstrip("/"), TASKS, task)


def estimate(seconds: float, part: float, since: Tuple[float, float] = (0.0, 0.0)) -> Optional[float]:
    """Seconds from the beginning of a phase to its end; None in its first twentieth.

    :param part: of the phase that is done, from 0 to 1
    :param since: an earlier moment of the phase and the part that was done then: the pace may change, for instance when
        the digests beside a dump are finished
    """
    elapsed, recent = seconds - since[0], part - since[1]
    if elapsed <= 0 or recent <= 0 or part < FIRST_PART:
        return None
    return seconds + (1 - part) * elapsed / recent


@contextlib.contextmanager
def followed(report: Callable[[], None], begin: Optional[Callable[[], None]] = None) -> Iterator[None]:
    """Call ``report`` by a thread while the block runs: once a second, less often if it takes long.

    Its first error ends it: progress is not worth one.

    :param begin: called once before, such as to connect; how long that takes does not count
    """
    ended = threading.Event()

    def follow() -> None:
        pause = SHOW_SECONDS
        with contextlib.suppress(Exception):
            if begin is not None and not ended.wait(pause):
                begin()
                pause = 0
            while not ended.wait(pause):
                began = time.monotonic()
                report()
                pause = max(SHOW_SECONDS, min(5 * SHOW_SECONDS, 100 * (time.monotonic() - began)))

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def described(state: Mapping[str, Any]) -> str:
    """A progress as one line: "dumping, 12 of 48 tables, 310 MB of 1.2 GB, 52 MB/s, 17 s left"."""
    parts = [str(state["phase"])]
    if "tables_total" in state:
        parts.append("%d of %d %s" % (state["tables"], state["tables_total"], state.get("unit", "tables")))
    if state.get("indexes"):
        parts.append("%d of %d indexes and foreign keys" % (state["indexes"], state["indexes_total"]))
    if "bytes_total" in state:
        parts.append("%s of %s" % (human_size(state["bytes"]), human_size(state["bytes_total"])))
    if state.get("rate"):
        parts.append(human_size(state["rate"]) + "/s")
    if state.get("left") is not None:
        parts.append(human_time(state["left"]) + " left")
    return ", ".join(parts)
