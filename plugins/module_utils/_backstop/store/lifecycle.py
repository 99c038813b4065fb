# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Beginning operations, and what an open operation means for the next one."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import shutil
import signal
import socket
import time
from typing import Any, Callable, Dict, Optional, Tuple

from ..base.durable_files import FileLock
from ..base.errors import Locked, Refused
from ..base.processes import stat_fields
from ..base.progress import Progress, parse_timestamp, utc_now
from ..base.remedies import BY_SCENARIO, Action, Given, Setting, Start, remedy
from .layout import Store
from .operation import KINDS, Operation, open_operations
from .steps import STOP

Notify = Callable[[str], None]
#: How long to wait for an earlier run that cannot be seen and still holds its lock, in seconds.
PREDECESSOR_SECONDS = 60
#: Maximum age of a running operation's last journal line, if its controller cannot be seen.
FRESH_SECONDS = 3600
#: Keys of a request, and the corresponding settings.
_SETTINGS = {
    "backup": Setting.BACKUP,
    "keys": Setting.KEYS,
    "method": Setting.METHOD,
    "mode": Setting.MODE,
    "table": Setting.TABLE,
    "undoes": Setting.OPERATION,
    "where": Setting.WHERE,
}


@dataclasses.dataclass(frozen=True)
class Beginning:
    """The state at the beginning of an operation, and what to do about an earlier run."""

    #: kept in the header
    facts: Dict[str, Any] = dataclasses.field(default_factory=dict)
    #: continue although it is unknown whether the earlier run is still alive
    take_over: bool = False
    #: see wait_for_job()
    notify: Optional[Notify] = None
    progress: Optional[Progress] = None


def begin(
    store: Store,
    kind: str,
    database: str,
    request: Dict[str, Any],
    controller: Dict[str, Any],
    how: Optional[Beginning] = None,
) -> Tuple[Operation, bool]:
    """Begin an operation, or continue the open one with the same request.

    :param request: the parameters; equal requests of a kind are the same operation
    :param controller: process that runs the playbook: host, boot_id, pid, start
    :returns: the operation, and whether it existed already
    :raises Locked: the earlier run is alive
    """
    # A module may have outlived the run that started it, so wait for it before deciding.
    if kind not in KINDS:
        raise Refused("There is no such kind of operation", found=kind, expected=", ".join(KINDS))
    how = how or Beginning()
    store.prepare()
    for operation in open_operations(store, database):
        _require_dead(operation, controller, how.take_over)
        wait_for_job(operation, how.notify, how.progress)
    with FileLock(os.path.join(store.root, "operations", "lock")).held(10):
        _remove_debris(store)
        for operation in open_operations(store, database):
            _require_dead(operation, controller, how.take_over)
            if operation.kind == kind and operation.request == request:
                operation.write("operation", "adopted", controller=controller)
                return operation, True
            _set_aside(operation, kind)
        header = {"database": database, "request": request, "controller": controller, "facts": how.facts}
        return Operation.create(store, kind, header), False


def _remove_debris(store: Store) -> None:
    """Remove the directory of a run that was killed before it wrote its operation's header."""
    for operation_id in store.operation_ids():
        path = store.operation_path(operation_id)
        if not os.path.exists(os.path.join(path, "operation.json")):
            shutil.rmtree(path)


def _set_aside(operation: Operation, kind: str) -> None:
    """Close an open operation of a dead run with another request, if that leaves nothing half done."""
    if operation.kind == "deploy" and (kind != "deploy" or operation.last(STOP) is None):
        operation.close("abandoned", reason="another operation began")
        return
    raise Refused(
        "Operation %s was interrupted and has another request" % operation.id,
        found="%s of %s: %s" % (operation.kind, operation.database, _shown(operation.request)),
        hint=remedy("%s", to_continue(operation)),
    )


def to_continue(operation: Operation) -> Start:
    """The action that continues an open operation, with the settings for the same request."""
    request = operation.request
    if operation.kind not in ("rollback", "undo"):
        return Start(Action.DEPLOY, as_before=True)
    scenario = request.get("scenario", "complete")
    given = {_SETTINGS[key]: value for key, value in sorted(request.items()) if key in _SETTINGS and value}
    # A complete revert determines by itself whether only the release must change.
    if scenario == "complete" and given.pop(Setting.METHOD, None) == "in_place":
        given[Setting.RESTORE_METHOD] = "in_place"
    action = Action.UNDO if operation.kind == "undo" else BY_SCENARIO[scenario]
    return Start(action, tuple(Given(setting, value) for setting, value in given.items()), as_before=True)


def _shown(request: Any) -> str:
    return ", ".join("%s=%s" % pair for pair in sorted(request.items())) if isinstance(request, dict) else str(request)


def holder_of(operation: Operation) -> Dict[str, Any]:
    """The controller that began an operation or adopted it last."""
    entries = [entry for entry in operation.journal() if entry.get("event") == "adopted"]
    return dict(entries[-1]["controller"] if entries else operation.header.get("controller") or {})


def require_held(operation: Operation, controller: Dict[str, Any]) -> None:
    """Refuse a controller that lost an operation to another one, or never had it while another one is alive.

    :raises Locked: names the other controller
    """
    holders = [dict(operation.header.get("controller") or {})]
    holders += [dict(entry["controller"]) for entry in operation.journal() if entry.get("event") == "adopted"]
    held_before = any(_same_process(one, controller) for one in holders[:-1])
    if _same_process(holders[-1], controller) or not (held_before or is_alive(holders[-1])):
        return
    raise Locked(
        "Operation %s belongs to another run" % operation.id,
        found="process %s on %s continues it" % (holders[-1].get("pid"), holders[-1].get("host")),
        hint="nothing was changed here; its progress is in " + operation.file("progress.json"),
    )


def work_on(operation: Operation) -> None:
    """Record in the operation's lock, which is held, that this process works on it: see wait_for_job()."""
    operation.lock.write(json.dumps(this_controller()))


def wait_for_job(operation: Operation, notify: Optional[Notify] = None, progress: Optional[Progress] = None) -> None:
    """Send SIGTERM to a process that works on an operation, and wait until it has ended: only then its journal is
    final.

    A process in uninterruptible work, such as a migration, ends afterwards, however long it takes.

    :param notify: gets a sentence on what was waited for
    :param progress: gets that process's progress
    :raises Locked: it cannot be seen from here, and holds its lock for longer than PREDECESSOR_SECONDS
    """
    lock = FileLock(operation.lock.path)
    asked: Dict[str, Any] = {}
    began = unseen_since = time.monotonic()
    while not FileLock.is_free(lock.path):
        job = _job(lock)
        if job.get("pid") == os.getpid() and is_alive(job):
            return
        if is_alive(job):
            unseen_since = time.monotonic()
            if job != asked:
                asked = job
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(job["pid"]), signal.SIGTERM)
        if progress is not None:
            progress.copy(_waiting(job, operation.progress.read()))
        if time.monotonic() > unseen_since + PREDECESSOR_SECONDS:
            lock.acquire()
            lock.release()
        time.sleep(0.1)
    if asked and notify:
        notify(
            "A module of the interrupted run was still running: process %s, last %s. Ending it took %.0f s"
            % (asked["pid"], operation.progress.read().get("phase", "beginning"), time.monotonic() - began)
        )


def _waiting(job: Dict[str, Any], state: Dict[str, Any]) -> Dict[str, Any]:
    whom = "process %s" % job["pid"] if job else "another process"
    return {**state, "phase": "waiting for %s to end: %s" % (whom, state.get("phase", "beginning"))}


def _job(lock: FileLock) -> Dict[str, Any]:
    try:
        found = json.loads(lock.read())
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def require_no_running(store: Store, database: str) -> None:
    """Refuse while an operation on this database runs, also between its steps, when it holds no lock.

    An operation of another host cannot be seen from here; it counts as running while its journal is fresh.

    :raises Locked: names the operation
    """
    for operation in open_operations(store, database):
        alive = is_alive(holder_of(operation))
        if alive is None:
            moments = [parse_timestamp(entry["at"]) for entry in operation.journal()[-1:]]
            moments = moments or [parse_timestamp(operation.began)]
            alive = abs((utc_now() - moments[-1]).total_seconds()) < FRESH_SECONDS
        if alive:
            raise Locked(
                "A %s of database %s is running" % (operation.kind, database),
                found="operation %s; its progress is in %s" % (operation.id, operation.file("progress.json")),
                hint="wait for it to end, then run this again",
            )


def _require_dead(operation: Operation, controller: Dict[str, Any], take_over: bool) -> None:
    holder = holder_of(operation)
    if _same_process(holder, controller):
        return
    alive = is_alive(holder)
    if alive is False or (alive is None and take_over):
        return
    if alive:
        raise Locked(
            "Another %s of database %s is running" % (operation.kind, operation.database),
            found="operation %s, process %s on %s" % (operation.id, holder.get("pid"), holder.get("host")),
            hint="wait for it to end; its progress is in %s" % operation.file("progress.json"),
        )
    raise Locked(
        "Another %s of database %s may be running" % (operation.kind, operation.database),
        found="operation %s, begun from host %s; from here it cannot be seen" % (operation.id, holder.get("host")),
        hint=remedy(
            "run this from that host, or, when you know that it is dead, with %s", Given(Setting.TAKE_OVER, True)
        ),
    )


def _same_process(one: Dict[str, Any], other: Dict[str, Any]) -> bool:
    keys = ("host", "boot_id", "pid", "start")
    return all(one.get(key) == other.get(key) for key in keys)


def this_controller(pid: Optional[int] = None) -> Dict[str, Any]:
    """Identifies a process (default: this one) uniquely, also after a reboot. Its user is taken to be ours."""
    pid = os.getpid() if pid is None else pid
    process = {"host": socket.gethostname(), "boot_id": _boot_id(), "pid": pid, "start": _start_time(pid)}
    return {**process, "user": _user()}


def _user() -> str:
    """The login name of this process's user, and of the one who called sudo."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # In a container, a user without an entry in passwd.
        name = "uid %d" % os.geteuid()
    caller = os.environ.get("SUDO_USER")
    return "%s (sudo by %s)" % (name, caller) if caller and caller != name else name


def is_alive(controller: Dict[str, Any]) -> Optional[bool]:
    """Whether a controller still runs; None when it runs on another host, which cannot be seen from here."""
    if not controller:
        return False
    if controller.get("host") != socket.gethostname():
        return None
    if controller.get("boot_id") != _boot_id():
        return False
    started = _start_time(int(controller["pid"]))
    return started is not None and started == controller.get("start")


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def _start_time(pid: int) -> Optional[str]:
    """Start time of a process in clock ticks since boot; None if it has ended."""
    fields = stat_fields(pid)
    return None if not fields or fields[0] == "Z" else fields[19]
