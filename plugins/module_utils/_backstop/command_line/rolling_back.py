# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``backstop plan``, ``rollback`` and ``undo``: rollbacks of the database.

They use the same operations and journals as Ansible, so that either can finish what the other began.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Dict, List

from ..base.errors import BackstopError
from ..base.remedies import Remedy, remedy
from ..loss.reapply import MODES
from ..postgres.relay import relayed
from ..prisma.cli import Prisma
from ..prisma.project import Project
from ..site import Run, exclusive
from ..store.lifecycle import Beginning, begin, this_controller
from ..store.steps import STARTED, STOP
from ..ways.asked import AUTO, Asked
from ..ways.choose import METHODS
from ..ways.diagnosis import APPLICATION_ERRORS, COMPLETE, CORRUPTED_TABLE, FAILED_MIGRATION
from ..ways.plan import plan_of, release_of
from ..ways.report import after_failure, what_next
from ..ways.rollback import apply, clean_up, prepare, settle
from ..ways.table import REPAIR, REPLACE
from ..ways.undo import UNDO
from ..ways.way import Outcome, Programs, Way
from . import jobs
from .configuration import Configuration
from .exit_statuses import OK, UsageError
from .output import say

_BY_OPERATOR = "this command does not stop or start the application: "
_START = _BY_OPERATOR + "start release %s"


def plan(call: Any) -> int:
    """Which rollback applies, what it would lose, and what to run next; reads only."""
    site = call.configuration().site(call.progress)
    found = plan_of(site, _asked(call.options, release_of(site)), runs=False)
    call.output.result(found, _lines(found))
    return OK


def rollback(call: Any) -> int:
    return _take_back(call)


def undo(call: Any) -> int:
    return _take_back(call)


def _take_back(call: Any) -> int:
    configuration, options = call.configuration(), call.options
    site = configuration.site(call.progress)
    asked = _asked(options, release_of(site))
    found = plan_of(site, asked, runs=not options.check)
    if not found["needed"] and not found["interrupted"]:
        call.output.result({**found, "changed": False}, [_as_it_is(found)])
        return OK
    if options.check:
        call.output.result({**found, "changed": False}, _lines(found))
        return OK
    if asked.scenario != CORRUPTED_TABLE and not found.get("table"):
        _require_way_to_stop(configuration, options)
    with jobs.exclusive(site, options.wait, besides_operations=True) as alone:
        controller = this_controller()
        backup = found.get("backup") or ""
        facts = {"former_commit": asked.running or "", "commit": found["commit"], "backup": backup}
        operation, _adopted = begin(
            site.store,
            found["kind"],
            site.database,
            found["request"],
            controller,
            Beginning(facts, options.take_over, call.output.warn, call.progress),
        )
        with exclusive(alone.run(operation, controller)) as run:
            run.require_current()
            result = _Rollback(call, configuration, run).carry_out(asked)
    call.output.result(result, result["story"])
    return OK


def _lines(found: Dict[str, Any]) -> List[str]:
    return [str(line) for line in found["report"]]


def _as_it_is(found: Dict[str, Any]) -> str:
    """The application's hosts are not asked, so the report omits what runs there."""
    if found.get("table") or not found["commit"]:
        return str(found["nothing_to_do"])
    return "The database is as this leaves it already. Release %s belongs to it. Nothing was changed." % found["commit"]


def _require_way_to_stop(configuration: Configuration, options: argparse.Namespace) -> None:
    if configuration.application is None and not options.application_stopped and not sys.stdin.isatty():
        raise UsageError(
            "The application must be stopped while the database changes",
            found="no commands for that in the configuration, and no terminal",
            hint="stop it, then run this again with --application-stopped. Nothing was changed",
        )


class _Rollback:
    """One operation, from preparation to end."""

    def __init__(self, call: Any, configuration: Configuration, run: Run) -> None:
        self._call = call
        self._application = configuration.application
        self._run = run
        self._stopped = False

    def carry_out(self, asked: Asked) -> Dict[str, Any]:
        operation = self._run.operation
        programs, consent = _programs(self._call.options), asked.consent
        try:
            way, _ready, reasons = prepare(self._run, programs, consent)
            self._say(reasons)
            if way.stops_application:
                self._stop()
            way, outcome = apply(self._run, programs, consent)
            if self._stopped:
                self._start(str(operation.first_facts.get("commit") or ""))
        except BackstopError as error:
            self._return(error)
            raise
        self._end("done")
        return self._result(way, outcome)

    def _say(self, lines: List[str]) -> None:
        for line in lines:
            say(line, error=True)

    def _stop(self) -> None:
        if self._application is None and not self._call.options.application_stopped:
            say("All is prepared. Stop the application now, then type: stopped", error=True)
            if sys.stdin.readline().strip() != "stopped":
                raise UsageError("The application was not stopped", hint="nothing was changed")
        self._run.operation.write(STOP, "done")
        self._stopped = True
        if self._application is not None:
            self._application.stop_it()

    def _start(self, release: str) -> None:
        if self._application is None:
            return
        self._application.start_it(release)
        self._run.operation.write(STARTED, "done")

    def _return(self, error: BackstopError) -> None:
        """Start the application again as before, and report the state; the database is asked, not the journal."""
        operation = self._run.operation
        try:
            settled = settle(self._run)
        except BackstopError:
            error.hint = remedy(
                "%s. It is not known whether the database was changed: when the server answers, run the same again",
                error.remedy or "see the error",
            )
            return
        after = after_failure(operation, settled)
        error.message = after.before_error + error.message
        more: List[Any] = [part for part in (error.remedy, after.next.rstrip(".")) if part]
        if self._stopped:
            more.append(self._brought_back(after.release))
        error.hint = Remedy(". ".join(["%s"] * len(more)), tuple(more))
        if after.keep_open:
            operation.leave(reason=error.message)
        else:
            self._end("failed", reason=error.message)

    def _end(self, outcome: str, **facts: Any) -> None:
        self._run.operation.close(outcome, **facts)
        try:
            clean_up(self._run)
        except BackstopError as error:
            self._call.output.warn("Scratch databases or old safety copies may be left: %s" % error)

    def _brought_back(self, release: str) -> str:
        if self._application is None:
            return _START % (release or "that ran before")
        try:
            self._start(release)
        except BackstopError as trouble:
            return "the application could not be started again: %s" % trouble
        return "the application was started again, release %s" % (release or "that ran before")

    def _result(self, way: Way, outcome: Outcome) -> Dict[str, Any]:
        operation = self._run.operation
        release = operation.first_facts.get("commit") or "that ran then"
        story = [*outcome.story, "Operation %s, journal in %s." % (operation.id, operation.path)]
        if self._stopped:
            story.append("Downtime: %s s." % operation.downtime())
            if self._application is None:
                story.append((_START % release).capitalize() + ".")
        story.append(str(what_next(operation, way.name, outcome)))
        return {
            **outcome.to_json(),
            "operation": operation.id,
            "way": way.name,
            "release": operation.first_facts.get("commit"),
            "story": story,
        }


# Options


def _asked(options: argparse.Namespace, running: Any) -> Asked:
    given = {name: value for name, value in vars(options).items() if name in Asked.__dataclass_fields__}
    scenario = options.scenario
    if given.get("table"):
        if scenario not in (None, CORRUPTED_TABLE):
            raise UsageError("--table is of another scenario", found=scenario, expected=CORRUPTED_TABLE)
        scenario = CORRUPTED_TABLE
    return Asked(**{**given, "scenario": scenario or COMPLETE, "running": running})


def _programs(options: argparse.Namespace) -> Programs:
    project = getattr(options, "project", None)
    keywords: Dict[str, Any] = {}
    if project:
        keywords["prisma"] = lambda: Prisma(Project(project, node_bin_dir=options.node_bin_dir), relay=relayed)
    return Programs(
        old_project=getattr(options, "old_project", None),
        down_sql_file=getattr(options, "down_sql_file", None),
        **keywords,
    )


def _whole_number(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError("%r; expected a whole number" % text)
    return int(text)


def _json_list(text: str) -> List[Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise argparse.ArgumentTypeError("%r; expected a JSON list" % text)
    return found


def what_to_lose(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--accept-lost-rows", metavar="N", type=_whole_number, default=0, help="rows that may be lost (default: 0)")
    add(
        "--accept-lost-objects",
        metavar="N",
        type=_whole_number,
        default=0,
        help="objects that may be lost (default: 0)",
    )
    add("--accept-cascade", action="store_true", help="foreign keys may change rows of other tables")
    add("--accept-unreadable", action="store_true", help="discard rows that the server can no longer read")
    add("--reapply", choices=MODES, default="off", help="carry rows written since over (default: off)")
    add("--reapply-deletes", action="store_true", help="carry deletions over too")


def which_scenario(parser: argparse.ArgumentParser) -> None:
    known = (COMPLETE, FAILED_MIGRATION, APPLICATION_ERRORS, CORRUPTED_TABLE)
    default = "default: %s; with --table: %s" % (COMPLETE, CORRUPTED_TABLE)
    parser.add_argument("--scenario", choices=known, help=default)
    _common(parser)
    add = parser.add_argument
    add("--table", help="the table to repair")
    add("--mode", choices=(REPLACE, REPAIR), default=REPLACE, help="all of its rows, or some (default: replace)")
    add("--where", metavar="CONDITION", help="which rows of the table")
    add("--keys", metavar="JSON", type=_json_list, default=[], help="the rows with these primary keys, as a JSON list")
    add("--again", action="store_true", help="repair the table again")
    add("--project", metavar="PATH", help="the release whose migrations are in the database, where Prisma is needed")
    add("--old-project", metavar="PATH", help="the release from before them, to make down-SQL")
    add("--node-bin-dir", metavar="PATH", help="directory of the program node")
    add("--down-sql-file", metavar="FILE", help="SQL that reverts the migrations")


def any_scenario(parser: argparse.ArgumentParser) -> None:
    known = (AUTO, COMPLETE, FAILED_MIGRATION, APPLICATION_ERRORS)
    parser.add_argument("--scenario", choices=known, default=AUTO, help="default: the one that the facts point to")
    _common(parser)


def _common(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--backup", metavar="ID", help="default: the newest pre-migration backup, of a table the newest that holds it")
    add("--method", choices=("auto", *METHODS), default="auto", help="after application errors (default: auto)")
    add("--restore-method", choices=("swap", "in_place"), default="swap", help="of a complete rollback (default: swap)")
    add("--release", dest="revision", metavar="COMMIT", help="the release that is to run afterwards")
    add("--migrations", dest="migrations_path", metavar="PATH", help="the migrations of the release that runs")


def which_operation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--operation", dest="undo", metavar="ID", help="default: the newest change")
    parser.set_defaults(scenario=UNDO)


def acting(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--check", action="store_true", help="change nothing: show the plan and what would be lost")
    add("--application-stopped", action="store_true", help="the application is stopped already")
    add("--take-over", action="store_true", help="continue an operation that another host began and that is dead")
