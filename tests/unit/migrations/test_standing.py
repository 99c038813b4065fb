# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deploy's progress, from its journal; and what must be done before it stops and starts the application."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.standing import (
    forecast,
    require_before,
    standing_of,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation

PROOFS = ["gates", "backup", "drill", "rehearsal"]


@pytest.fixture
def deploy(tmp_path):
    """A deploy that did these steps."""

    def make(*steps: str, pending=("m1",), **facts) -> Operation:
        made = Operation.create(Store(str(tmp_path / "store")), "deploy", {"facts": {"pending": list(pending)}})
        for step in steps:
            made.write(step, "done", **facts.get(step, {}))
        return made

    return make


@pytest.mark.parametrize(
    "steps, application",
    [
        ([], "untouched"),
        (PROOFS, "untouched"),
        ([*PROOFS, "stop"], "stopped"),
        ([*PROOFS, "stop", "migrate"], "stopped"),
        (["stop", "started"], "serving"),
        (["stop", "started", "stop"], "stopped"),
    ],
)
def test_where_the_application_stands(deploy, steps, application) -> None:
    assert standing_of(deploy(*steps)).application == application


def test_a_migration_that_began_is_not_one_that_was_applied(deploy) -> None:
    made = deploy(*PROOFS)
    before = standing_of(made)
    assert before.proved and not before.migration_began and not before.migrated
    made.write("migrate", "began")
    began = standing_of(made)
    assert began.migration_began and not began.migrated
    made.write("migrate", "done", applied=["m1"])
    assert standing_of(made).migrated and standing_of(made).applied == ["m1"]


def test_the_newest_facts_count(deploy) -> None:
    made = deploy("backup", "backup", backup={"backup": "first"})
    made.write("backup", "done", backup="final")
    made.write("backup", "began")
    assert standing_of(made).backup == "final"


@pytest.mark.parametrize(
    "state, needed",
    [
        ("stop", PROOFS),
        ("started", ["stop", "migrate"]),
        ("done", ["started"]),
    ],
)
def test_what_was_left_out_is_refused(deploy, state, needed) -> None:
    require_before(deploy(*needed), state)
    for left_out in needed:
        with pytest.raises(Refused, match="was left out") as caught:
            require_before(deploy(*[step for step in needed if step != left_out]), state)
        assert "has not done: " + left_out in caught.value.found


def test_a_release_without_migrations_needs_no_proofs(deploy) -> None:
    require_before(deploy("gates", pending=()), "stop")
    require_before(deploy("stop", pending=()), "started")


def test_what_people_are_told(deploy) -> None:
    facts = {
        "gates": {"waived": {"disk": "rented"}, "rollback": "swap"},
        "rehearsal": {"summary": "adds t", "seconds": 0.4},
        "fence": {"ended_sessions": ["psql of tariro"]},
        "migrate": {"applied": ["m1"]},
    }
    made = deploy("gates", "rehearsal", "fence", "migrate", **facts)
    assert standing_of(made).story == [
        "Migrations applied: m1.",
        "What they did, as rehearsed: adds t.",
        "Gates waived: disk: rented. A complete rollback would be: swap.",
        "Sessions that were ended: psql of tariro.",
    ]
    assert forecast(made.store) == {
        "size": "there is no backup yet",
        "times": "no drill was measured yet; the newest rehearsal ran 0.4 s; no downtime was measured yet",
    }
