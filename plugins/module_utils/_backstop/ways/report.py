# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans and facts as lines for users, made from what was read; reads nothing."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..base.remedies import BY_SCENARIO, Action, Given, Setting, Start
from ..loss.lost_objects import LostObjects
from ..postgres import definitions
from ..store.lifecycle import to_continue
from ..store.operation import Operation
from ..store.steps import CODE
from .asked import Asked
from .baseline import old_release_answer
from .choose import DOWN_SQL, LEFTOVERS, TABLE
from .diagnosis import (
    AMBIGUOUS,
    APPLICATION_ERRORS,
    COMPLETE,
    CORRUPTED_TABLE,
    FAILED_MIGRATION,
    NOTHING,
    Verdict,
)
from .facts import Facts
from .forecast import ForeseenLoss
from .way import HALF_DONE, IN_FORCE, Outcome, Plan, Settled

SCENARIOS = {
    FAILED_MIGRATION: "1, a migration failed",
    APPLICATION_ERRORS: "2, the migration succeeded but the application has errors",
    CORRUPTED_TABLE: "3, the data of a table is corrupted",
    COMPLETE: "4, everything has to be reverted to before the migration",
    NOTHING: "there is nothing to roll back",
    AMBIGUOUS: "not clear: the facts fit more than one",
}

UNKNOWN = "not known: "


def evidence(facts: Facts) -> List[str]:
    """The facts, as texts."""
    lines: List[str] = []

    def say(text: str, names: Sequence[str]) -> None:
        if names:
            lines.append("%s: %s" % (text, ", ".join(names)))

    health = {True: "is healthy", False: "is NOT healthy", None: "was not asked for its health"}
    lines.append("the application %s" % health[facts.healthy])
    say("migrating right now", facts.running)
    say("migrations marked as failed", facts.failed)
    say("migrations applied since the backup", facts.applied_since)
    say("made by applied migrations but missing", shown_objects(facts.gone))
    say("migrations in the release but not applied", facts.pending)
    say("migrations applied but not in the release that runs", facts.unknown)
    say("differences from the history of the backup", [] if facts.applied_since else facts.history_differences)
    say("objects added since the backup", shown_objects(facts.added))
    say("objects of the backup that are missing", shown_objects(facts.missing))
    say("objects changed since the backup", facts.changed)
    say("invalid indexes", facts.invalid_indexes)
    say("cannot be read", facts.unreadable)
    say("fewer rows than in the backup", ["%s %d of %d" % (t.name, t.rows_now or 0, t.rows_then) for t in facts.shrunk])
    same = sum(1 for table in facts.tables if table.same)
    if facts.tables:
        lines.append("%d of %d tables hold exactly the rows of the backup" % (same, len(facts.tables)))
    if facts.deploy is not None and facts.applied_since:
        lines.append("the release before deploy %s %s" % (facts.deploy.id, old_release_answer(facts.deploy)))
    for operation, word in ((facts.open_operation, "was interrupted"), (facts.last_operation, "")):
        if operation is not None and (word or operation.id != getattr(facts.open_operation, "id", None)):
            lines.append(
                "%s %s %s" % (operation.kind, operation.id, word or "ended: %s" % (operation.outcome or "still open"))
            )
    return lines + [UNKNOWN + text for text in facts.unavailable]


def next_step(scenario: str, verdict: Verdict, facts: Facts, check: bool, asked: Asked) -> str:
    """The command to run next; if the plan found its scenario by itself, first in check mode."""
    operation = facts.open_operation
    if facts.running:
        return "wait until the migration has ended, then run %s again" % Action.PLAN
    if operation is not None and operation.kind != "deploy":
        return str(to_continue(operation))
    if scenario == COMPLETE and facts.release_before and not facts.release_alone and facts.place:
        asked = dataclasses.replace(asked, backup=facts.place.backup_id)
    if scenario in (FAILED_MIGRATION, APPLICATION_ERRORS, COMPLETE):
        return str(Start(BY_SCENARIO[scenario], tuple(asked.given(scenario)), check))
    if scenario == CORRUPTED_TABLE:
        table = [*facts.unreadable, *(table.typed_name for table in facts.shrunk), "NAME"][0]
        return str(Start(Action.CORRUPTED_TABLE, (Given(Setting.TABLE, table),), check))
    if scenario == AMBIGUOUS:
        shown = [name for name in verdict.candidates if name != NOTHING] or [COMPLETE]
        return "decide, then %s" % Start(BY_SCENARIO[shown[0]], check=check)
    if operation is not None:
        return str(to_continue(operation))
    return "nothing"


def report(found: Dict[str, Any], plan: Plan, asked: Asked, runs: bool) -> List[str]:
    """The plan as lines for a user under stress.

    :param runs: it is done now: its steps follow anyway, and of the facts only what is not known still matters
    """
    lines = ["SCENARIO: %s (%s)" % (found["scenario"], SCENARIOS[found["scenario"]])]
    if found["found_scenario"] != found["scenario"]:
        suggested = found["found_scenario"]
        other = "another scenario: %s (%s)" % (suggested, SCENARIOS[suggested])
        lines.append("The facts suggest %s" % ("no rollback" if suggested == NOTHING else other))
    if found["candidates"]:
        lines.append("It may be: " + "; or ".join("%s (%s)" % (name, SCENARIOS[name]) for name in found["candidates"]))
    lines += ["Fact: " + fact.rstrip(".") for fact in found["evidence"] if not runs or fact.startswith(UNKNOWN)]
    if not runs:
        lines += ["Step %d: %s" % pair for pair in enumerate(found["steps"], 1)]
    if found["steps"]:
        lines += _cost_lines(found)
    if found["scenario"] in (COMPLETE, APPLICATION_ERRORS):
        lines += ["Loss: " + text for text in loss_lines(plan, asked)]
    elif found["scenario"] == FAILED_MIGRATION:
        lines += ["Loss: " + text for text in _object_lines(plan.objects, asked)]
    lines += ["Note: " + text for text in found["notes"]]
    return lines if runs else [*lines, "RUN NEXT: " + found["next"]]


def _cost_lines(found: Dict[str, Any]) -> List[str]:
    def seconds(value: Optional[float]) -> str:
        return "not measured" if value is None else "%g s" % value

    return [
        "Backup: %s, verified to level %s" % (found["backup"] or "none", found["level"] or "none"),
        "Measured recovery time: %s; expected downtime: %s; disk needed: %.1f MB"
        % (seconds(found["recovery_seconds"]), seconds(found["downtime_seconds"]), found["disk_needed"] / 1e6),
    ]


def _counts(loss: ForeseenLoss) -> str:
    counts = {"inserted": loss.inserted, "updated": loss.updated, "deleted": loss.deleted}
    text = ", ".join("%d %s" % (rows, how) for how, rows in counts.items() if rows)
    return ("" if loss.exact else "at least ") + text if text else "not known"


def loss_lines(plan: Plan, asked: Asked) -> List[str]:
    rows, text = _row_lines(plan.losses, asked), _object_lines(plan.objects, asked)
    return text if text and rows == ["none"] else [*rows[:-1], *text, rows[-1]]


def _object_lines(objects: Optional[LostObjects], asked: Asked) -> List[str]:
    """All of them: a list that ends in "and more" would hide losses."""
    if objects is None or not objects.names:
        return []
    if objects.unknown:
        return ["objects, made by hand or by migrations that no deploy rehearsed: " + ", ".join(objects.names)]
    accepted = objects.total <= asked.accept_lost_objects
    needed = Given(Setting.ACCEPT_LOST_OBJECTS, objects.total)
    consent = "accepted" if accepted else "refused unless %s allows it" % needed
    return ["objects that the migrations did not create: %s; %s" % (", ".join(objects.names), consent)]


def _row_lines(losses: Sequence[ForeseenLoss], asked: Asked) -> List[str]:
    lossy = [loss for loss in losses if loss.total or not loss.exact]
    if not lossy:
        return ["none"]
    lines = ["%s: %s%s" % (loss.table, _counts(loss), _carrying(loss, asked)) for loss in lossy]
    exact = all(loss.exact for loss in lossy)
    total = sum(loss.total for loss in lossy)
    lost = total - (sum(map(asked.carried, lossy)) if asked.reapply == "apply" else 0)
    text = "%s%d rows in all" % ("" if exact else "at least ", total)
    if lost < total:
        text += ", of which %d cannot be carried over" % lost
    accepted = asked.accept_lost_rows
    if lost > accepted:
        text += ": refused unless %s allows it" % Given(Setting.ACCEPT_LOST_ROWS, lost if exact else "N")
    elif accepted:
        text += ": accepted%s, %d may be lost" % ("" if exact else " if there are no more than that", accepted)
    return [*lines, text + ". They are counted again when writers are blocked, and kept in files."]


def _carrying(loss: ForeseenLoss, asked: Asked) -> str:
    """The effect of carrying rows over on a loss; whether a row can be carried is only proved then."""
    if asked.reapply == "off":
        return ""
    applies = Given(Setting.REAPPLY, "apply")
    would = "would be carried over" if asked.reapply == "apply" else "could be carried over with %s" % applies
    if asked.carried(loss) == loss.total:
        return "; all %s" % would
    if not loss.in_backup:
        return "; none %s: the backup does not have the table" % would
    return "; the inserted and updated ones %s" % would


def shown_objects(keys: Sequence[str]) -> List[str]:
    """Objects for users, without the columns and constraints of relations that are listed themselves."""
    kinds = tuple(kind + " " for kind in ("relation", *definitions.RELATIONS))
    relations = tuple(key[len(kind) :] + "." for key in keys for kind in kinds if key.startswith(kind))
    parts = ("column ", "constraint ", "trigger ")
    return [key for key in keys if not (key.startswith(parts) and key.split(" ", 1)[1].startswith(relations))]


# Texts during a rollback


def nothing_to_do(scenario: str, plan: Mapping[str, Any], commit: str) -> str:
    """The message of a rollback that was done already."""
    if scenario == CORRUPTED_TABLE:
        return _table_is_right(plan) + " Nothing was changed."
    runs = "release %s runs and is healthy" % commit
    if scenario == "undo":
        undone = "Operation %s was undone already" % plan["undoes"]
        by = plan.get("undone_by")
        redo = ["To undo that undo: %s" % Start(Action.UNDO, (Given(Setting.OPERATION, by),))] if by else []
        about = undone if plan.get("table") else "%s, %s" % (undone, runs)
        return " ".join([about + ". Nothing was changed.", *redo])
    if scenario == APPLICATION_ERRORS:
        return "%s, by the method %s. Nothing was changed." % (runs.capitalize(), plan["method"])
    if scenario == FAILED_MIGRATION:
        return "No migration is marked as failed, %s. Nothing was changed." % runs
    reverted = "The database was reverted to %s already" % plan["backup"]
    return "%s, %s. Nothing was changed." % (
        reverted if plan["backup"] else "The last deploy changed the release only", runs,
    )  # fmt: skip


def _table_is_right(plan: Mapping[str, Any]) -> str:
    if plan.get("done_before"):
        return "Operation %s did this already; %s does it again." % (plan["done_before"], Given(Setting.AGAIN, True))
    if plan.get("only_reports"):
        return "This was only a report: with mode repair, choose rows by %s or %s." % (Setting.WHERE, Setting.KEYS)
    return "The table is as in the backup."


def undo_lines(plan: Mapping[str, Any], commit: str) -> List[str]:
    """What an undo would do; shown before the loss."""
    if plan["table"]:
        return ["Operation %(undoes)s is undone: table %(table)s gets back what backup %(backup)s holds." % plan]
    what = {
        "swap": "%s gets the live name back" % plan["retired"],
        "in_place": "the database becomes what its emergency backup holds",
    }.get(plan["method"], "the database stays")
    return ["Operation %s would be undone: %s, release %s runs again." % (plan["undoes"], what, commit)]


def release_alone_lines(commit: str) -> List[str]:
    return [
        "The database is already as this rollback leaves it. Release %s would be started and asked for its health."
        % commit
    ]


def what_next(operation: Operation, way: str, outcome: Outcome) -> str:
    """What a user can do after a successful rollback."""
    if operation.kind == "undo":
        again = "this again" if way == TABLE else "this undo"
        return "To undo %s: %s" % (again, Start(Action.UNDO, (Given(Setting.OPERATION, operation.id),)))
    if way == LEFTOVERS:
        return "Fix the migration, then deploy again."
    if way == DOWN_SQL:
        kept = " The lost rows go back with the commands in %s." % operation.file("lost-rows/README.txt")
        return "To have the migration again: deploy the fixed release again." + (kept if outcome.losses else "")
    return "Undo: %s" % Action.UNDO


@dataclasses.dataclass(frozen=True)
class AfterFailure:
    """What to do after a failed run of an operation, and the texts for it."""

    #: precedes the error message
    before_error: str
    #: a second run completes the operation, so it is not closed
    keep_open: bool = False
    #: the current state, and what to do, after the error message
    after_error: str = ""
    next: str = ""
    #: the release that the database needs, and the actions to start it on each host
    release: str = ""
    attempt: Sequence[str] = ("start",)


def after_failure(operation: Operation, settled: Settled) -> AfterFailure:
    """From the server's state of the operation."""
    former = operation.former_commit or ""
    table = operation.request.get("scenario") == CORRUPTED_TABLE
    if settled.state == HALF_DONE:
        return _half_done(operation, settled, former)
    if settled.way == TABLE or table:
        return AfterFailure("The table is as it was: ", release=former)
    if settled.way == LEFTOVERS:
        return AfterFailure(
            "What the failed migration left is gone and it is marked as rolled back,"
            " but the application is unhealthy: ",
            after_error="The database is as it was before the migration and release %s runs." % former,
            next="Next: fix the release and deploy it.",
            release=former,
        )
    if settled.state == IN_FORCE:
        return _in_force(operation, settled, former)
    if operation.facts(CODE) is not None:
        return _release_changed(operation, former)
    after = "The database is as it was and the application runs again as before."
    return AfterFailure("Nothing was rolled back: ", after_error=after, release=former)


def _half_done(operation: Operation, settled: Settled, former: str) -> AfterFailure:
    command = to_continue(operation)
    if settled.way == TABLE:
        return AfterFailure("The restore was interrupted at its end: ", True, next="To finish it: %s." % command)
    then = "When that is fixed: %s. Journal: %s" % (command, operation.path)
    return AfterFailure("The clean-up after the failed migration was interrupted: ", True, next=then, release=former)


def _in_force(operation: Operation, settled: Settled, former: str) -> AfterFailure:
    done = "The migration was taken out of the database" if settled.way == DOWN_SQL else "The database was swapped"
    then = "Fix the application, then: %s. Journal: %s" % (to_continue(operation), operation.path)
    release = operation.first_facts.get("commit") or former
    text = done + ", but the application is unhealthy: "
    return AfterFailure(text, True, next=then, release=release, attempt=("activate", "start"))


def _release_changed(operation: Operation, former: str) -> AfterFailure:
    wanted = operation.result(CODE).commit
    restore = Start(Action.APPLICATION_ERRORS, (Given(Setting.METHOD, "restore"),))
    return AfterFailure(
        "Release %s is unhealthy on the current schema: " % wanted,
        after_error="The database was not touched and release %s runs again." % former,
        next="To change the database too: %s" % restore if operation.kind == "rollback" else "",
        release=former,
        attempt=("stop", "activate", "start") if former else ("start",),
    )
