# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The questions that an auditor asks of an operation, answered from its report in sentences."""

from __future__ import annotations

import dataclasses
from typing import List, Optional

from .backup_facts import BEFORE, KEPT, RESTORED, ROLES, BackupFacts
from .figures import counted, duration, joined, moment, number, size
from .operation_report import FAILED, WAIVED, OperationReport, TableLoss
from .store_report import StoreReport

#: What an answer means: nothing to worry about, something to know, something bad, nothing to tell.
GOOD, NOTE, BAD, NONE = "good", "note", "bad", "none"

OUTCOMES = {
    "done": (GOOD, "Done"),
    "rolled_back": (BAD, "Failed and rolled back"),
    "failed": (BAD, "Failed"),
    "abandoned": (NOTE, "Abandoned"),
    None: (NOTE, "Not finished"),
}
KINDS = {"deploy": "Deploy", "rollback": "Rollback", "undo": "Undo"}
#: By the names of ways.choose.
WAYS = {
    "restore": "A database that was built from the backup took over the name",
    "in_place": "The database was restored in place, in one transaction",
    "drop": "The migrations were reverted by their down-SQL",
    "code_only": "Only the release was changed",
    "leftovers": "What the failed migration left was removed",
    "table": "One table was restored, in one transaction",
}


@dataclasses.dataclass(frozen=True)
class Answer:
    question: str
    state: str
    lines: List[str]


def answers(report: OperationReport) -> List[Answer]:
    return [
        _changed(report),
        _who(report),
        _backup(report),
        _verified(report),
        _compared(report),
        _gates(report),
        _lost(report),
        _service(report),
        Answer("How to go back now?", NONE, [report.next.text + ":"]),
    ]


def title(report: OperationReport) -> str:
    return "%s of %s" % (KINDS.get(report.kind, report.kind), report.database)


def short(commit: str) -> str:
    """A commit as people write it."""
    return commit[:12]


def _changed(report: OperationReport) -> Answer:
    change, lines = report.change, []
    applied = [one.name for one in change.migrations if one.seconds is not None or report.outcome == "done"]
    if report.kind == "deploy":
        if applied:
            took = " in %s" % duration(change.seconds) if change.seconds is not None else ""
            lines.append("%s applied%s: %s." % (counted(len(applied), "migration").capitalize(), took, joined(applied)))
            effects = ["It adds " + joined(change.added_tables)] if change.added_tables else []
            effects += [text[:1].upper() + text[1:] for text in change.destroys] or ["It destroys nothing"]
            lines.append(". ".join(effects) + ".")
        else:
            lines.append("No migration was applied.")
    if change.way:
        undone = report.kind == "undo" and change.way == "restore"
        line = "The retired database got its name back" if undone else WAYS.get(change.way, change.way)
        lines.append(line + (": %s." % change.table if change.table else "."))
    if change.retired:
        lines.append("The former database is kept as %s." % change.retired)
    if change.release_after and change.release_after != change.release_before:
        before = "from %s " % short(change.release_before) if change.release_before else ""
        done = "was changed" if report.outcome == "done" else "was to be changed"
        lines.append("The release %s %sto %s." % (done, before, short(change.release_after)))
    if report.reason:
        lines.append(report.reason)
    return Answer("What was changed?", OUTCOMES.get(report.outcome, (NOTE, ""))[0], lines or ["Nothing."])


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _who(report: OperationReport) -> Answer:
    lines = []
    for one in report.runners:
        who = one.user or "a user whose name was not recorded"
        what = "Started by" if one.event == "began" else "Taken up after an interruption by"
        lines.append("%s %s on %s, %s." % (what, who, one.host or "an unknown host", moment(one.at)))
    if report.ended:
        lines.append("Ended %s, after %s." % (moment(report.ended), duration(report.seconds)))
    else:
        lines.append("It has not ended.")
    return Answer("Who ran it, and when?", NONE, lines)


def _main(report: OperationReport) -> Optional[BackupFacts]:
    return report.backup(BEFORE, RESTORED, KEPT)


def _backup(report: OperationReport) -> Answer:
    lines, state = [], GOOD
    for one in report.backups:
        if one.problem:
            lines.append("%s (%s): %s." % (one.id, ROLES[one.role], one.problem.rstrip(".")))
            state = NOTE
        else:
            held = "%s of %s, %s" % (counted(one.rows, "row"), counted(one.tables, "table"), size(one.size))
            locked = ", encrypted" if one.encrypted else ""
            lines.append("%s (%s): %s%s, %s." % (one.id, ROLES[one.role], held, locked, moment(one.created)))
    question = "Which backup stood behind it?"
    return Answer(question, state if lines else NONE, lines or ["None: nothing was backed up in this operation."])


def _verified(report: OperationReport) -> Answer:
    question = "How was it verified, and how long does a restore take?"
    drilled = [one for one in report.backups if one.recovery_seconds is not None]
    one = _main(report)
    lines, state = [], GOOD
    if one is not None and one.level:
        words = {"checksum": "its files match their checksums", "readable": "its whole archive was decoded"}
        words["restored"] = "it was restored and compared with its source"
        lines.append("Verified to level %s: %s." % (one.level, words[one.level]))
    elif one is not None and not one.problem:
        lines, state = ["It was not verified."], BAD
    for drill in drilled:
        who = " by role %s on PostgreSQL %s" % (drill.drilled_as, drill.drilled_on) if drill.drilled_on else ""
        took = duration(drill.recovery_seconds)
        lines.append("Last restored %s%s, in %s: %s." % (moment(drill.drilled), who, took, drill.id))
    if not drilled and one is not None:
        lines.append("It was not restored in a drill, so the recovery time was not measured.")
        state = BAD if state == BAD else NOTE
    return Answer(question, state if one is not None else NONE, lines or ["There was no backup to verify."])


def _compared(report: OperationReport) -> Answer:
    found, one, lines, state = report.comparison, _main(report), [], NONE
    if found.tables is not None:
        state = GOOD
        what = "%s of %s, by digest, and every definition" % (
            counted(found.rows, "row"),
            counted(found.tables, "table"),
        )
        lines.append("%s: %s. All equal." % (_sentence(found.method or "compared"), what))
    if found.exact:
        lines.append("Right before the change the live database was still equal to the backup.")
    elif found.exact is False:
        lines.append("Rows were written after the backup (%s), so a final one was made." % joined(found.differences, 3))
    if found.not_covered:
        named = ["%(kind)s %(name)s (%(reason)s)" % each for each in found.not_covered]
        lines.append("Not covered: %s." % joined(named, 4))
        state = NOTE
    elif one is not None and not one.problem:
        lines.append("Not covered: nothing.")
    return Answer("What was compared, and what is not covered?", state, lines or ["Nothing was compared."])


def _gates(report: OperationReport) -> Answer:
    question = "What did the gates say?"
    if not report.gates:
        text = "They were not evaluated." if report.kind == "deploy" else "A rollback has no gates: it counts its loss."
        return Answer(question, NONE, [text])
    closed = [one for one in report.gates if one.result == FAILED]
    waived = [one for one in report.gates if one.result == WAIVED]
    passed = len(report.gates) - len(closed) - len(waived)
    lines = ["%s passed, %s waived, %s failed." % (number(passed), len(waived) or "none", len(closed) or "none")]
    lines += ["Waived: %s. Reason: %s." % (one.name, one.reason.rstrip(".")) for one in waived]
    lines += ["Failed: %s. %s." % (one.name, one.found.rstrip(".")) for one in closed]
    if report.rollback:
        ways = {"swap": "a swap, which destroys nothing", "in_place": "a restore in place", "refused": "not possible"}
        lines.append("A complete rollback would be %s." % ways.get(report.rollback, report.rollback))
    return Answer(question, BAD if closed else NOTE if waived else GOOD, lines)


def loss_line(loss: TableLoss) -> str:
    if loss.unreadable:
        return "%s could not be counted, the table is damaged" % loss.table
    parts = [(loss.inserted, "inserted"), (loss.updated, "updated"), (loss.deleted, "deleted")]
    said = ", ".join("%s %s" % (number(count), what) for count, what in parts if count)
    return "%s: %s" % (loss.table, said or "nothing")


def _lost(report: OperationReport) -> Answer:
    question, loss, lines = "What was lost or carried over?", report.loss, []
    if not loss.counted:
        if report.kind == "deploy" and not report.change.way:
            return Answer(question, GOOD if report.outcome == "done" else NONE, ["Nothing: no rollback took place."])
        return Answer(question, NONE, ["No loss was counted in this operation."])
    ours = [one for one in loss.tables if not one.by_migration]
    if loss.rows or loss.objects:
        lines.append(
            "%s lost%s." % (counted(loss.rows, "row"), ": " + joined(list(map(loss_line, ours))) if ours else "")
        )
    else:
        lines.append("Counted exactly, with writers shut out: nothing was lost.")
    if loss.objects:
        lines.append("%s lost: %s." % (counted(len(loss.objects), "object"), joined(loss.objects)))
    kept = sorted({one.kept for one in ours if one.kept})
    if kept:
        lines.append("The rows are kept in files below %s." % report.directory)
    if loss.carried:
        lines.append(_sentence(loss.carried).rstrip(".") + ".")
    if loss.not_counted:
        lines.append("Not counted, because damaged: %s." % joined(loss.not_counted))
    return Answer(question, NOTE if loss.rows or loss.objects or loss.not_counted else GOOD, lines)


def _service(report: OperationReport) -> Answer:
    if not report.windows:
        return Answer("How long were users without service?", GOOD, ["Not at all: the application was not stopped."])
    lines = ["%s in all." % duration(report.downtime_seconds)]
    for one in report.windows:
        lines.append("From %s until %s." % (moment(one.began), moment(one.ended) if one.ended else "now, and still"))
    lasting = any(one.ended is None for one in report.windows)
    return Answer("How long were users without service?", BAD if lasting else NOTE, lines)


def story(report: OperationReport) -> List[str]:
    """All answers as lines of text, for a terminal."""
    state, outcome = OUTCOMES.get(report.outcome, (NOTE, str(report.outcome)))
    lines = ["%s, %s: %s" % (title(report), report.id, outcome.lower() if state != NONE else outcome)]
    for one in answers(report):
        lines += ["", one.question, *("  " + line for line in one.lines)]
    return lines + ["  " + line for line in (report.next.preview, report.next.command) if line]


def store_story(report: StoreReport) -> List[str]:
    """The state of a store in a few lines."""
    newest, drills = report.newest, report.drills
    lines = ["Store %s: %s of %s." % (report.store, counted(len(report.backups), "backup"), joined(report.databases))]
    if newest is None:
        lines.append("There is no verified backup.")
    else:
        lines.append("The newest verified one, %s, is %s old." % (newest.id, duration(newest.age_seconds)))
    if drills:
        last = drills[-1]
        lines.append("The last drill, %s, restored in %s." % (moment(last.drilled), duration(last.recovery_seconds)))
    else:
        lines.append("No backup was restored in a drill, so the recovery time is not known.")
    unverified = len(report.backups) - len(report.verified)
    if unverified:
        lines.append("%s not verified." % counted(unverified, "backup is", "backups are"))
    lines.append("On disk: %s, %s free." % (size(sum(report.sizes.values())), size(report.free_bytes)))
    ended = [one for one in report.operations if one.outcome != "done"]
    text = "%s without success" % len(ended) if ended else "all done"
    lines.append("%s%s." % (counted(len(report.operations), "operation"), ", " + text if report.operations else ""))
    lines += ["Retired database %s, since %s." % (one.name, moment(one.since)) for one in report.retired]
    return lines
