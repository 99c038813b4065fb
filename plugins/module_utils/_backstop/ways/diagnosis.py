# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The diagnosis: which scenario the facts indicate. A pure function of the facts.

If several fit, the result is ``ambiguous``, with the candidates: a user decides.
"""

from __future__ import annotations

import dataclasses
from typing import List

from .baseline import old_release_proved
from .facts import Facts

FAILED_MIGRATION, APPLICATION_ERRORS = "failed_migration", "application_errors"
CORRUPTED_TABLE, COMPLETE = "corrupted_table", "complete"
NOTHING, AMBIGUOUS = "nothing", "ambiguous"
_RELEASE_ALONE = "The last deploy changed the release only; the application is unhealthy since."


@dataclasses.dataclass
class Verdict:
    """The scenario, and the candidates if it is ambiguous."""

    scenario: str
    candidates: List[str] = dataclasses.field(default_factory=list)
    why: str = ""


def judge(facts: Facts) -> Verdict:
    """The scenario that the facts indicate."""
    if facts.running:
        return Verdict(AMBIGUOUS, [NOTHING, FAILED_MIGRATION], "A migration is running; what looks failed may succeed.")
    if facts.failed:
        return Verdict(FAILED_MIGRATION, why="A migration is marked as failed.")
    if facts.without_trace:
        why = "The history lists migrations as applied of which nothing is in the database."
        return Verdict(FAILED_MIGRATION, why=why)
    if facts.unreadable:
        return Verdict(CORRUPTED_TABLE, why="A table cannot be read.")
    if facts.history_unreadable or facts.place is None:
        return _judge_without_backup(facts)
    if facts.healthy is None and (facts.applied_since or facts.shrunk):
        candidates = [NOTHING, APPLICATION_ERRORS] + ([CORRUPTED_TABLE] if facts.shrunk else [])
        return Verdict(AMBIGUOUS, candidates, "The health of the application was not checked.")
    return _judge_healthy(facts) if facts.healthy is not False else _judge_unhealthy(facts)


def _judge_without_backup(facts: Facts) -> Verdict:
    if facts.healthy is False and facts.release_alone:
        return Verdict(COMPLETE, why=_RELEASE_ALONE)
    if facts.healthy is False:
        return Verdict(
            AMBIGUOUS,
            [NOTHING, APPLICATION_ERRORS, COMPLETE],
            "The application is not healthy, and there is nothing to compare the database with.",
        )
    return Verdict(NOTHING, why="no migration is marked as failed")


def _judge_healthy(facts: Facts) -> Verdict:
    drift = facts.gone or not facts.applied_since and (facts.missing or facts.changed)
    candidates = [NOTHING]
    if facts.shrunk:
        candidates.append(CORRUPTED_TABLE)
    if drift or any(table.gone for table in facts.tables):
        candidates.append(COMPLETE)
    if len(candidates) > 1:
        return Verdict(AMBIGUOUS, candidates, "The application is healthy, but something is missing.")
    return Verdict(NOTHING, why="no migration is marked as failed")


def _judge_unhealthy(facts: Facts) -> Verdict:
    if facts.gone:
        return Verdict(COMPLETE, why="The history lists migrations as applied, but what they created is missing.")
    if facts.release_alone:
        return Verdict(COMPLETE, why=_RELEASE_ALONE)
    if not facts.applied_since:
        if facts.missing or facts.changed or facts.history_differences:
            return Verdict(COMPLETE, why="The schema was changed by something other than a migration.")
        if facts.shrunk:
            return Verdict(CORRUPTED_TABLE, why="A table has fewer rows than the backup; no migration ran since.")
        return Verdict(NOTHING, why="The database lost nothing that the backup has: look at the application.")
    if facts.shrunk:
        candidates = [APPLICATION_ERRORS, CORRUPTED_TABLE, COMPLETE]
        return Verdict(AMBIGUOUS, candidates, "After the migration the application is unhealthy, and rows are missing.")
    if old_release_proved(facts.deploy) or facts.only_added:
        return Verdict(
            APPLICATION_ERRORS, why="A migration was applied since the backup; the application is unhealthy."
        )
    return Verdict(COMPLETE, why="The migration removed or changed what was there: only the backup has it.")
