# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Monitored runs: exclusive on their database, with the outcome recorded, exported as metrics and posted."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Callable, Dict, Iterator

from ..base.durable_files import FileLock
from ..base.errors import BackstopError, Locked
from ..base.progress import timestamp
from ..command_line import metrics
from ..site import Site, database_lock
from ..store.layout import Store
from ..store.lifecycle import require_no_running
from ..store.retention import read_items
from .configuration import Configuration
from .notification import notify
from .run_records import RunRecords
from .standing import read_standing

Warn = Callable[[str], None]


@contextlib.contextmanager
def exclusive(site: Site, wait_seconds: float, *, besides_operations: bool = False) -> Iterator[Site]:
    """Hold the lock of this database's runs; child processes of the yielded site keep it open.

    store.begin_backup() keeps two backups from taking each other for debris, but not from running at the same time.

    :param wait_seconds: for another run
    :param besides_operations: the work may run during a deploy or rollback
    :raises Locked: another run, or a step of an operation, is running
    """
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(_run_lock(site.store, site.database, wait_seconds))
        if not besides_operations:
            require_no_running(site.store, site.database)
            # A dump would block a migration, and a deploy would find its locks taken. 0 would wait for ever.
            stack.enter_context(database_lock(site, max(1, wait_seconds)))
        yield site.under(lock)


@contextlib.contextmanager
def alone_on_store(store: Store, database: str, wait_seconds: float) -> Iterator[None]:
    """Hold the run locks of every database that has backups in the store; no server is asked.

    An old backup must not disappear while a run reads it. Operations need no lock here: retention keeps what they need.

    :param database: the run's database; it may have no backups yet
    :raises Locked: another run is running
    """
    databases = {item.database for item in read_items(store) if item.database}
    with contextlib.ExitStack() as stack:
        # In the same order for all, to avoid deadlocks.
        for each in sorted(databases | {database}):
            stack.enter_context(_run_lock(store, each, wait_seconds))
        yield


@contextlib.contextmanager
def _run_lock(store: Store, database: str, wait_seconds: float) -> Iterator[FileLock]:
    store.prepare()
    lock = FileLock(RunRecords(store, database).lock_path)
    try:
        lock.acquire(wait_seconds)
    except Locked as error:
        raise Locked(
            "Another run is working on the backups of %s" % database, found=error.found, hint=error.hint
        ) from None
    try:
        yield lock
    finally:
        lock.release()


def watched(
    configuration: Configuration, job: str, act: Callable[[], Dict[str, Any]], warn: Warn, failure: str = "failure"
) -> Dict[str, Any]:
    """Run a job; record, export and post its outcome. A run that did not get its lock is not recorded.

    :param warn: gets errors of recording, which must not turn a good backup into a failed one
    :param failure: the event of a failure
    """
    began = time.monotonic()
    try:
        facts = act()
    except Locked:
        raise
    except BackstopError as error:
        _after(configuration, job, began, warn, failure, {"message": str(error), "exit_status": error.exit_status})
        raise
    except Exception as error:
        _after(configuration, job, began, warn, failure, {"message": type(error).__name__, "exit_status": 1})
        raise
    _after(configuration, job, began, warn, "success", {"exit_status": 0, **facts})
    return facts


#: The facts of a run that its record keeps.
_KEPT = ("backup", "message", "exit_status", "recovery_seconds")


def _after(configuration: Configuration, job: str, began: float, warn: Warn, event: str, facts: Dict[str, Any]) -> None:
    run: Dict[str, Any] = {
        "at": timestamp(),
        "passed": event == "success",
        "seconds": round(time.monotonic() - began, 3),
        **{key: facts[key] for key in _KEPT if key in facts},
    }
    records = RunRecords(configuration.store, configuration.database)
    for part in (
        lambda: records.write(job, run),
        lambda: refresh_metrics(configuration),
        lambda: notify(configuration, event, job=job, **{key: run[key] for key in run if key != "at"}),
    ):
        try:
            part()
        except BackstopError as error:
            warn(str(error))


def refresh_metrics(configuration: Configuration) -> None:
    if configuration.textfile is not None:
        metrics.write(configuration, read_standing(configuration))
