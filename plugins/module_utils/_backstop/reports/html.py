# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports as HTML: one self-contained page below 1 MB, without scripts and without network.

The only import of Jinja2, which Ansible's controllers have; on hosts it is optional. Charts are small SVG of our own:
pygal adds 23 kB and scripts to each, altair needs 130 MB on the controller.
"""

from __future__ import annotations

import dataclasses
import json
import pkgutil
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..base.errors import BackstopError
from ..base.progress import parse_timestamp
from . import figures
from .answers import BAD, GOOD, NOTE, OUTCOMES, answers, title
from .backup_facts import AFTER, ROLES
from .operation_report import FAILED, WAIVED, OperationReport
from .phases import DONE, INTERRUPTED, Phase, seconds_between
from .phases import FAILED as PHASE_FAILED
from .store_report import StoreReport

_FILES = ("page.css", "base.html.j2", "macros.html.j2", "operation.html.j2", "store.html.j2")
#: What a page shows at most; report.json has everything.
MOST_TABLES, MOST_FACTS, MOST_FACT, MOST_JOURNAL = 1000, 14, 240, 250_000
#: What each lock mode blocks, by PostgreSQL's table of conflicts ("Table-Level Locks"), as an application sees it.
BLOCKS = {
    "AccessExclusiveLock": "reading and writing",
    "ExclusiveLock": "writing",
    "ShareRowExclusiveLock": "writing",
    "ShareLock": "writing",
    "ShareUpdateExclusiveLock": "nothing that an application does",
    "RowExclusiveLock": "nothing that an application does",
    "RowShareLock": "nothing that an application does",
    "AccessShareLock": "nothing that an application does",
}


def _environment() -> Any:
    """:raises BackstopError: this Python has no Jinja2"""
    try:
        import jinja2
    except ImportError:
        raise BackstopError(
            "The report cannot be written as HTML here",
            found="a Python without Jinja2",
            hint="install it (Debian: python3-jinja2, others: pip install jinja2), or take the report as JSON",
        ) from None
    sources = {name: _file(name) for name in _FILES}
    made = jinja2.Environment(
        loader=jinja2.DictLoader(sources),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        moment=figures.moment,
        duration=figures.duration,
        size=figures.size,
        number=_or_dash,
        count=_or_dash,
        took=_took,
        blocks=lambda mode: BLOCKS.get(mode, "not known"),
        outcome=lambda outcome: _outcome(outcome)[1].lower(),
        outcome_state=lambda outcome: _outcome(outcome)[0],
    )
    return made


def _file(name: str) -> str:
    """A file of the folder ``page``, also within the zip file of the command."""
    content = pkgutil.get_data(__package__ or "", "page/" + name)
    if content is None:
        raise AssertionError("no file " + name)
    return content.decode()


def _or_dash(count: Optional[int]) -> str:
    return "–" if count is None else figures.number(count)


def _took(seconds: Optional[float]) -> str:
    if seconds is None:
        return "–"
    return "%d ms" % round(seconds * 1000) if seconds < 1 else figures.duration(seconds)


def _clock(moment: str) -> str:
    return parse_timestamp(moment).strftime("%H:%M:%S")


def _outcome(outcome: Optional[str]) -> Tuple[str, str]:
    return OUTCOMES.get(outcome, (NOTE, str(outcome)))


def _render(template: str, **values: Any) -> str:
    return str(_environment().get_template(template).render(**values))


# Operation


@dataclasses.dataclass(frozen=True)
class _Bar:
    """A phase in the timeline, in thousandths of its length."""

    phase: Phase
    clock: str
    took: str
    state: str
    x: float
    width: float


@dataclasses.dataclass(frozen=True)
class _Line:
    clock: str
    step: str
    event: str
    facts: Sequence[Tuple[str, str]]


def operation_page(report: OperationReport) -> str:
    """:raises BackstopError: this Python has no Jinja2"""
    state, outcome = _outcome(report.outcome)
    journal, left = _journal(report.journal)
    bars, bands = _timeline(report)
    order = {FAILED: 0, WAIVED: 1}
    sections = [
        ("answers", "In short", True),
        ("timeline", "Timeline", bars),
        ("gates", "Gates", report.gates),
        ("migrations", "Migrations", report.change.migrations),
        ("loss", "Plan and loss", report.plan.lines or report.plan.losses or report.loss.tables),
        ("tables", "Tables", report.tables),
        ("backups", "Backups", report.backups),
        ("journal", "Journal", True),
    ]
    return _render(
        "operation.html.j2",
        report=report,
        title=title(report),
        state=state,
        outcome=outcome,
        answers=answers(report),
        figures=_figures(report),
        sections=[(name, text) for name, text, there in sections if there],
        bars=bars,
        bands=bands,
        gates=sorted(report.gates, key=lambda gate: order.get(gate.result, 2)),
        tables=report.tables[:MOST_TABLES],
        tables_left=max(0, len(report.tables) - MOST_TABLES),
        has_after=report.backup(AFTER) is not None,
        roles=ROLES,
        journal=journal,
        journal_left=left,
    )


def _figures(report: OperationReport) -> List[Tuple[str, str, str]]:
    """The few numbers at the top."""
    found = [
        ("Downtime", figures.duration(report.downtime_seconds), "") if report.windows else ("Downtime", "none", "")
    ]
    drilled = [one for one in report.backups if one.recovery_seconds is not None]
    if drilled:
        found.append(("Measured restore", figures.duration(drilled[0].recovery_seconds), "of the backup, compared"))
    elif report.backups:
        found.append(("Measured restore", "none", "not restored in a drill"))
    compared = report.comparison
    if compared.tables is not None:
        what = "rows of %s compared" % figures.counted(compared.tables, "table")
        found.append(("Compared", figures.number(compared.rows), what))
    if report.gates:
        open_gates = [gate for gate in report.gates if gate.result == "passed"]
        waived = sum(gate.result == WAIVED for gate in report.gates)
        text = "%d waived" % waived if waived else "none waived"
        found.append(("Gates passed", "%d of %d" % (len(open_gates), len(report.gates)), text))
    if report.loss.counted or report.kind == "deploy":
        lost = figures.number(report.loss.rows) if report.loss.rows else "none"
        found.append(("Rows lost", lost, "counted exactly" if report.loss.counted else "no rollback"))
    return found


def _timeline(report: OperationReport) -> Tuple[List[_Bar], List[Tuple[float, float]]]:
    """The bars, and the times without service: x and width of each."""
    if not report.phases:
        return [], []
    last = report.ended or max([report.made, *(phase.ended or phase.began for phase in report.phases)])
    whole = max(seconds_between(report.began, last), 0.001)

    def x_of(moment: str) -> float:
        return round(min(max(seconds_between(report.began, moment) / whole * 1000, 0), 1000), 1)

    def width_of(began: str, ended: Optional[str]) -> float:
        return round(max(x_of(ended or last) - x_of(began), 3), 1)

    states = {DONE: "good", PHASE_FAILED: "bad", INTERRUPTED: "note"}
    bars = [
        _Bar(
            phase,
            _clock(phase.began),
            "" if phase.seconds == 0 else _took(phase.seconds),
            states[phase.result],
            min(x_of(phase.began), 997),
            width_of(phase.began, phase.ended or phase.began),
        )
        for phase in report.phases
    ]
    return bars, [(x_of(one.began), width_of(one.began, one.ended)) for one in report.windows]


def _journal(entries: Sequence[Dict[str, Any]]) -> Tuple[List[_Line], int]:
    """The lines, and how many are left out of a very long one."""
    lines: List[_Line] = []
    room = MOST_JOURNAL
    for entry in entries:
        facts = [
            (key, _fact(key, value))
            for key, value in sorted(entry.items())
            if key not in ("at", "step", "event") and value not in (None, "", [], {})
        ]
        left = len(facts) - MOST_FACTS
        facts = facts[:MOST_FACTS] + ([("and", "%d more" % left)] if left > 0 else [])
        room -= 200 + sum(len(key) + len(value) + 30 for key, value in facts)
        if room < 0:
            break
        lines.append(_Line(_clock(str(entry["at"])), str(entry["step"]), str(entry["event"]), facts))
    return lines, len(entries) - len(lines)


def _fact(key: str, value: Any) -> str:
    if key == "gates" and isinstance(value, list):
        return "%d, see above" % len(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= MOST_FACT else text[:MOST_FACT] + "…"


# Store


@dataclasses.dataclass(frozen=True)
class _Chart:
    title: str
    #: what it shows, for those who do not see it
    caption: str
    top: str
    first: str
    last: str
    #: x from 0 to 1000 by time, y from 0 to 100, downwards
    dots: List[Tuple[float, float]]


def store_page(report: StoreReport) -> str:
    """:raises BackstopError: this Python has no Jinja2"""
    newest_first = list(reversed(report.backups))
    unfit = [one for one in report.backups if one.problem or one.drill_passed is False]
    state, line = (GOOD, "In order") if report.newest else (BAD, "No verified backup")
    if unfit:
        state, line = NOTE, "%s not in order" % figures.counted(len(unfit), "backup")
    sections = [
        ("trends", "Over time", True),
        ("backups", "Backups", report.backups),
        ("operations", "Operations", report.operations),
        ("disk", "Disk and retired databases", True),
    ]
    most = max([*report.sizes.values(), 1])
    return _render(
        "store.html.j2",
        report=report,
        state=state,
        summary=line,
        figures=_store_figures(report),
        sections=[(name, text) for name, text, there in sections if there],
        charts=_charts(report),
        backups=newest_first[:MOST_TABLES],
        backups_left=max(0, len(newest_first) - MOST_TABLES),
        operations=list(reversed(report.operations))[:MOST_TABLES],
        disk=[
            (kind, sum(one.kind == kind for one in report.backups), size, round(size / most * 1000, 1))
            for kind, size in report.sizes.items()
        ],
    )


def _store_figures(report: StoreReport) -> List[Tuple[str, str, str]]:
    newest, drills = report.newest, report.drills
    verified = len(report.verified)
    age = figures.duration(newest.age_seconds) if newest else "none"
    restore = figures.duration(drills[-1].recovery_seconds) if drills else "none"
    drilled = "drill of " + figures.moment(drills[-1].drilled).split(",")[0] if drills else "no drill yet"
    return [
        ("Newest verified", age, "old, %s" % newest.level if newest else ""),
        ("Last measured restore", restore, drilled),
        ("Verified", "%d of %d" % (verified, len(report.backups)), "backups"),
        ("On disk", figures.size(sum(report.sizes.values())), "%s free" % figures.size(report.free_bytes)),
        (
            "Operations",
            figures.number(len(report.operations)),
            figures.counted(len(report.retired), "retired database"),
        ),
    ]


def _charts(report: StoreReport) -> List[_Chart]:
    restores = [(str(one.drilled), float(one.recovery_seconds or 0)) for one in report.drills]
    sizes = [(str(one.created), float(one.size)) for one in report.backups if one.created]
    return [
        _chart("Recovery time", "No backup was restored in a drill yet.", restores, figures.duration),
        _chart("Backup size on disk", "There is no backup yet.", sizes, figures.size),
    ]


def _chart(
    title: str, nothing: str, points: List[Tuple[str, float]], shown: Callable[[Optional[float]], str]
) -> _Chart:
    if not points:
        return _Chart(title, nothing, "", "", "", [])
    points = points[-MOST_TABLES:]
    first, last, most = points[0][0], points[-1][0], max(value for _at, value in points)
    whole = seconds_between(first, last)
    dots = [
        (
            round(seconds_between(first, at) / whole * 1000, 1) if whole else 500.0,
            round(100 - value / most * 100, 1) if most else 100.0,
        )
        for at, value in points
    ]
    text = "%s, from %s to %s" % (
        figures.counted(len(points), "point"),
        *(shown(f([v for _a, v in points])) for f in (min, max)),
    )
    days = [figures.moment(at).split(",")[0] for at in (first, last)]
    return _Chart(title, text, shown(most), days[0], days[1], dots)
