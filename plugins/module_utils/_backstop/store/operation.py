# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Operations: one deploy, rollback or undo, with an id, a journal and a lock.

The journal, written by the process that works, only hints at how far a run came; each step checks the actual state too.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ..base.durable_files import (
    FileLock,
    file_error,
    fsync_directory,
    make_private_directory,
    read_json,
    write_json,
)
from ..base.errors import BackstopError, Refused
from ..base.failpoints import reach
from ..base.progress import Progress, parse_timestamp, timestamp, utc_now
from ..base.remedies import Action, remedy
from ..base.typed_json import from_json
from .layout import Store, new_id
from .steps import STARTED, STOP, F, Step

KINDS = ("deploy", "rollback", "undo")
#: The event of a failed run that leaves it open.
LEFT_OPEN = "left_open"
#: Fields of every journal line; the others are facts of the step.
_OWN_KEYS = ("at", "step", "event", "pid")


class Operation:
    """An operation of a store. Use create() or load() to get one."""

    def __init__(self, store: Store, operation_id: str, header: Dict[str, Any]) -> None:
        self.store = store
        self.id = operation_id
        self.header = header
        self.path = store.operation_path(operation_id)
        self.lock = FileLock(self.file("lock"))
        self.progress = Progress(self.path)

    @classmethod
    def create(cls, store: Store, kind: str, header: Dict[str, Any]) -> "Operation":
        """Begin an operation.

        :param header: the parameters: database, request, controller; never changed afterwards
        """
        store.prepare()
        operation_id = new_id()
        path = store.operation_path(operation_id)
        make_private_directory(path)
        reach("operation.directory")
        # More precise than a journal's times: what began later must sort later.
        began = timestamp(timespec="microseconds")
        header = {"id": operation_id, "kind": kind, "began": began, **header}
        write_json(os.path.join(path, "operation.json"), header)
        reach("operation.created")
        return cls(store, operation_id, header)

    @classmethod
    def load(cls, store: Store, operation_id: str) -> "Operation":
        path = store.operation_path(operation_id)
        if not os.path.isdir(path):
            raise Refused("There is no operation %s" % operation_id, found="none of that id in " + store.root)
        return cls(store, operation_id, read_json(os.path.join(path, "operation.json"), "operation's header"))

    @property
    def kind(self) -> str:
        return str(self.header["kind"])

    @property
    def began(self) -> str:
        """A time for sorting, with microseconds except in operations of early versions."""
        return str(self.header["began"])

    @property
    def database(self) -> Optional[str]:
        """The name of the live database that it is about."""
        return self.header.get("database")

    @property
    def request(self) -> Dict[str, Any]:
        """The parameters; equal requests of a kind are the same operation."""
        return dict(self.header.get("request") or {})

    @property
    def first_facts(self) -> Dict[str, Any]:
        """The state when it began."""
        return dict(self.header.get("facts") or {})

    @property
    def former_commit(self) -> Optional[str]:
        """The release that ran when it began; None or empty if unknown."""
        return (self.header.get("facts") or {}).get("former_commit")

    def file(self, name: str) -> str:
        return os.path.join(self.path, name)

    # Journal

    def write(self, step: str, event: str, **facts: Any) -> None:
        """Append a line and sync it."""
        line = json.dumps(
            {"at": timestamp(), "step": step, "event": event, "pid": os.getpid(), **facts}, sort_keys=True
        )
        try:
            self._append(line.encode() + b"\n")
        except OSError as error:
            raise file_error("The journal could not be written", self.file("journal.jsonl"), error) from error

    def _append(self, line: bytes) -> None:
        path = self.file("journal.jsonl")
        new = not os.path.exists(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            # This line must not be appended to one that a crash truncated.
            if size > 0 and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line
            while line:
                # On a full disk the first write is partial, and only the next one fails.
                line = line[os.write(descriptor, line) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            fsync_directory(self.path)

    def journal(self) -> List[Dict[str, Any]]:
        """All lines, except for one that a crash truncated."""
        path = self.file("journal.jsonl")
        entries: List[Dict[str, Any]] = []
        if os.path.isfile(path):
            with open(path, encoding="utf-8", errors="replace") as stream:
                for line in stream:
                    with contextlib.suppress(ValueError):
                        entries.append(json.loads(line))
        return [entry for entry in entries if isinstance(entry, dict) and "step" in entry and "event" in entry]

    def last(self, step: str) -> Optional[Dict[str, Any]]:
        """The last line of a step; None if it never began."""
        lines = [entry for entry in self.journal() if entry.get("step") == step]
        return lines[-1] if lines else None

    def done(self, step: str) -> Optional[Dict[str, Any]]:
        """The facts of a finished step; None if it is not done, or began again since."""
        last = self.last(step)
        return last if last and last["event"] == "done" else None

    def result(self, step: Step[F]) -> F:
        """The facts of a step by their type; defaults if it was never done, or if an earlier version did not write a
        fact."""
        return self.recorded(step) or step.facts()

    def recorded(self, step: Step[F]) -> Optional[F]:
        """The same; None if it was never done."""
        facts = self.facts(step)
        if facts is None:
            return None
        return from_json(step.facts, {name: one for name, one in facts.items() if one is not None})

    def facts(self, step: str) -> Optional[Dict[str, Any]]:
        """The facts of a step from when it was last done, even if it began again since, as in the journal; None if it
        was never done."""
        found = [entry for entry in self.journal() if entry.get("step") == step and entry.get("event") == "done"]
        return {key: found[-1][key] for key in found[-1] if key not in _OWN_KEYS} if found else None

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Dict[str, Any]]:
        """Journal the start and end of a step; what the body puts into the yielded dict is kept with ``done``."""
        self.write(name, "began")
        reach("step.%s.began" % name)
        facts: Dict[str, Any] = {}
        try:
            yield facts
        except BackstopError as error:
            self.write(name, "failed", error=str(error))
            raise
        reach("step.%s.acted" % name)
        self.write(name, "done", **facts)
        reach("step.%s.done" % name)

    def windows(self) -> List[Tuple[str, Optional[str], float]]:
        """The times for which the application was stopped, with their seconds: from each stop to the following start,
        or to the operation's end, which follows a start; to now, without an end, if neither has happened yet."""
        found: List[Tuple[str, Optional[str], float]] = []
        since = None
        for entry in self.journal():
            what = (entry["step"], entry["event"])
            if what == (STOP, "done") and since is None:
                since = str(entry["at"])
            elif what in ((STARTED, "done"), ("operation", "closed")) and since is not None:
                found.append(_window(since, str(entry["at"])))
                since = None
        return found if since is None else [*found, _window(since, None)]

    def downtime(self) -> float:
        """Seconds for which the application was stopped, all windows together."""
        return round(sum(seconds for _began, _ended, seconds in self.windows()), 1)

    def require(self, steps: List[str], why: str, *, once: bool = False) -> None:
        """Refuse unless these steps are done.

        :param once: it is enough that a step was done, even if an interrupted run began it again since
        :raises Refused: names the missing ones
        """
        was_done = self.facts if once else self.done
        missing = [step for step in steps if was_done(step) is None]
        if missing:
            raise Refused(
                why,
                found="operation %s has not done: %s" % (self.id, ", ".join(missing)),
                hint=remedy("%s", Action.ALL_STEPS),
            )

    # End

    @property
    def outcome(self) -> Optional[str]:
        """How it ended; None while it is open."""
        last = self.last("operation")
        return str(last["outcome"]) if last and last["event"] == "closed" else None

    @property
    def is_open(self) -> bool:
        return self.outcome is None

    def leave(self, **facts: Any) -> None:
        """Record that a run of it failed, and that another one is to continue it."""
        self.write("operation", LEFT_OPEN, **facts)

    def close(self, outcome: str, **facts: Any) -> None:
        if self.is_open:
            self.write("operation", "closed", outcome=outcome, **facts)
        reach("operation.closed")


def _window(began: str, ended: Optional[str]) -> Tuple[str, Optional[str], float]:
    until = parse_timestamp(ended) if ended else utc_now()
    return began, ended, (until - parse_timestamp(began)).total_seconds()


def operations(store: Store) -> List[Operation]:
    """Every operation of a store, oldest first. A directory that a crash left without a header is ignored.

    Sorted by start time: the time in ids has a resolution of one second.
    """
    found: List[Operation] = []
    for operation_id in store.operation_ids():
        if os.path.isfile(os.path.join(store.operation_path(operation_id), "operation.json")):
            found.append(Operation.load(store, operation_id))
    return sorted(found, key=lambda operation: (operation.began, operation.id))


def operations_of(store: Store, database: str) -> List[Operation]:
    """Every operation on one database, by its live name, oldest first."""
    return [operation for operation in operations(store) if operation.database == database]


def open_operations(store: Store, database: Optional[str] = None) -> List[Operation]:
    """The operations that have not ended, of one database or of all."""
    found = operations(store) if database is None else operations_of(store, database)
    return [operation for operation in found if operation.is_open]
