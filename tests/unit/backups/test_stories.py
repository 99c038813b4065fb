# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the steps of a run say: short lines, and the command to run next last."""

from __future__ import annotations

from typing import List

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import AnsibleWords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups import story as of_backups
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import METHOD, Verified
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import BackupSummary
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.options import BackupOptions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import in_words_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.short_lines import LONGEST, packed
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates import story as of_gates
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.evaluation import GATES, Gate
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import begin
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.story import Summary, ended

GO_BACK = "ansible-playbook backstop.postgres.rollback_complete"
MADE = BackupSummary("shop-1", "database", "/store/daily/shop-1", None, False, 100, 2, 5, {}, "readable")


def gates(**closed: str) -> List[Gate]:
    names = ["connection", *(name for name, _expected, _check in GATES)]
    return [Gate(name, name not in closed, closed.get(name, "all is well")) for name in names]


def test_a_long_list_is_packed_on_lines_that_need_no_breaking() -> None:
    names = ["table_%d" % number for number in range(100)]
    lines = packed("DELETE User: deletes rows of", names)
    assert max(map(len, lines)) <= LONGEST and " ".join(line.strip() for line in lines).endswith(", ".join(names))
    assert packed("Applied:", ["one"]) == ["Applied: one"]


def test_the_gates_are_a_compact_table_that_omits_none() -> None:
    found = gates(store="1 GiB free", drift="table Old is only in the database")
    found[2].waived = "the volume grows"
    next(gate for gate in found if gate.name == "safety_copy").found = "not requested"
    lines = of_gates.table(found)
    assert [line.split()[:2] for line in lines[:3]] == [
        ["CLOSED", "store"],
        ["CLOSED", "drift"],
        ["waived", "administration_connection"],
    ]
    assert lines[2].endswith("  the volume grows; found: all is well")
    told = " ".join(lines).replace(",", "").split()
    assert all(told.count(gate.name) == 1 for gate in found)
    assert len(lines) <= 14 and all(line.startswith(("CLOSED  ", "waived  ", "open    ", "  ")) for line in lines)
    refusal = of_gates.refusal(found)
    assert refusal.startswith("2 of %d gates are closed. " % len(found)) and "store: 1 GiB free" in refusal
    assert of_gates.refusal([gate for gate in found if gate.passed]) == ""


def test_the_plan_of_a_deploy_ends_with_the_way_back() -> None:
    wanted = of_gates.Wanted("new", "", ["m1", "m2"], ["web1", "web2"], True)
    forecast = {"size": "small", "times": "no drill was measured yet; no downtime was measured yet"}
    with in_words_of(AnsibleWords()):
        lines = of_gates.would_do(gates(), "swap", forecast, wanted)
    assert "would rehearse and then apply: m1, m2" in lines and "beside none" in lines
    shown = " ".join(" ".join(lines).split())
    assert "would ask first, then stop, migrate, start and check the application on: web1, web2" in shown
    assert lines[-1].endswith("later: " + GO_BACK) and max(map(len, lines)) <= LONGEST


def test_a_backup_and_its_verification() -> None:
    assert of_backups.backed_up(MADE, True)[0].startswith("Backup shop-1 was there already, verified")
    drilled = Verified("restored", "shop-1", METHOD, rows=5, tables=2, recovery_seconds=1.5, tolerated=["a comment"])
    assert of_backups.verified(drilled, "cluster") == [
        "Restored shop-1 into a scratch cluster in 1.5 s.",
        "It equals its source: 5 rows of 2 tables, all definitions.",
        "Not brought back by a restore: a comment",
    ]
    assert of_backups.verified(Verified("readable", "shop-1", METHOD), "database")[0].endswith(
        "verified to level readable; it was not restored."
    )
    assert "nothing would be done" in of_backups.would_verify("shop-1", "restored", "database", True)[0]
    assert len(of_backups.would_verify("shop-1", "restored", "database", False)) == 2
    form = BackupOptions(tables=["User"], schema_only=True)
    assert of_backups.would_back_up(form, "postgresql://x@db/shop", 45_000_000, "daily", "/store") == [
        "would back up table User of postgresql://x@db/shop (45.0 MB, definitions only)",
        "as daily into /store",
    ]


def test_the_end_of_an_operation(tmp_path) -> None:
    store = Store(str(tmp_path / "store"))
    deploy, _adopted = begin(store, "deploy", "shop", {}, None)
    given = {"release": "new", "hosts": ["web1"], "not_restarted": {"web1": ["cron"], "web2": None}}
    with in_words_of(AnsibleWords()):
        lines = ended(deploy, "none", Summary.of(given))
        assert lines[-2:] == ["Release new runs and is healthy on: web1", "To go back: " + GO_BACK]
        assert "Not restarted on web1, so still of its former release: cron" in lines and "web2" not in "".join(lines)
        assert not [line for line in ended(deploy, "none", Summary()) if "rollback_complete" in line]
        assert ended(deploy, "none", Summary(next="Undo: it"))[-1] == "Undo: it"
