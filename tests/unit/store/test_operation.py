# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Operations and their journal: readable after any crash."""

from __future__ import annotations

import json
import os
import pathlib
import resource

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import parse_timestamp, utc_now
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import Action
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import (
    Operation,
    open_operations,
    operations,
    operations_of,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.steps import (
    RESTORE_TABLE,
    TableRestored,
)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture
def operation(store):
    return Operation.create(store, "deploy", {"database": "shop", "request": {"revision": "x"}})


def journal_of(operation):
    return pathlib.Path(operation.file("journal.jsonl"))


def test_what_was_written_is_read_by_another_process(store, operation):
    operation.write("backup", "began")
    operation.write("backup", "done", backup="shop-1", note="电")
    again = Operation.load(store, operation.id)
    assert (again.kind, again.database, again.request) == ("deploy", "shop", {"revision": "x"})
    assert again.done("backup")["backup"] == "shop-1" and again.facts("backup") == {"backup": "shop-1", "note": "电"}
    assert again.done("drill") is None and again.facts("drill") is None and again.last("drill") is None


def test_what_a_step_left_by_its_type(operation):
    """Also from journals of other versions, with more or fewer fields."""
    assert operation.result(RESTORE_TABLE) == TableRestored()
    operation.write(RESTORE_TABLE, "done", table="public.t", where=None, emergency=None, changed=True, of_another=1)
    found = operation.result(RESTORE_TABLE)
    assert found == TableRestored(table="public.t", changed=True) and (found.where, found.keys) == (None, [])
    assert operation.facts("restore_table")["of_another"] == 1


def test_a_step_that_began_again_is_not_done(operation):
    operation.write("backup", "done", backup="one")
    operation.write("backup", "began")
    assert operation.done("backup") is None and operation.facts("backup") == {"backup": "one"}


TORN = [b'{"step": "drill", "event": "do', b"{", b"\xff\xfe", b'{"step": "drill"', b"\0" * 50]


@pytest.mark.parametrize("torn", TORN)
def test_a_line_that_a_crash_cut_short(operation, torn):
    operation.write("backup", "done")
    with journal_of(operation).open("ab") as stream:
        stream.write(torn)
    assert operation.done("backup") and len(operation.journal()) == 1
    operation.write("drill", "began")
    assert [entry["step"] for entry in operation.journal()] == ["backup", "drill"]
    assert journal_of(operation).read_bytes().count(b"\n") == 3


def test_a_journal_with_lines_that_are_no_entries(operation):
    """Such lines, whatever wrote them, must not break reading the journal."""
    operation.write("backup", "done")
    with journal_of(operation).open("ab") as stream:
        stream.write(b'1\n[]\nnull\n"x"\n{}\n\n')
    assert operation.done("backup") and operation.last("backup")["event"] == "done" and operation.is_open


def test_steps(operation):
    with operation.step("fence") as facts:
        assert operation.last("fence")["event"] == "began"
        facts["same"] = True
    assert operation.facts("fence") == {"same": True}
    with pytest.raises(BackstopError), operation.step("fence"):
        raise BackstopError("It broke", found="x")
    last = operation.last("fence")
    assert last["event"] == "failed" and "It broke" in last["error"] and operation.done("fence") is None
    with pytest.raises(KeyError), operation.step("fence"):
        raise KeyError("a mistake of ours")
    assert operation.last("fence")["event"] == "began"


def test_required_steps(operation):
    operation.write("backup", "done")
    operation.require(["backup"], "no")
    with pytest.raises(Refused, match="not applied") as caught:
        operation.require(["backup", "drill", "gates"], "The migration is not applied")
    assert "drill, gates" in caught.value.found and str(caught.value.hint) == str(Action.ALL_STEPS)


def test_outcomes(store, operation):
    assert operation.is_open and operation.outcome is None
    assert [op.id for op in open_operations(store)] == [operation.id]
    operation.close("done", seconds=3)
    operation.close("failed")
    assert operation.outcome == "done" and open_operations(store) == []
    assert [op.id for op in operations(store)] == [operation.id]


def test_operations_of_one_second_keep_their_order(store):
    """Their ids have a resolution of one second, and are in random order within it."""
    made = []
    for _number in range(20):
        made.append(Operation.create(store, "rollback", {"database": "shop"}).id)
    assert [op.id for op in operations(store)] == made != sorted(made)


def test_operations_of_one_database(store, operation):
    other = Operation.create(store, "deploy", {"database": "shop2"})
    assert [op.id for op in operations_of(store, "shop")] == [operation.id]
    assert [op.id for op in open_operations(store, "shop2")] == [other.id]
    other.close("done")
    assert open_operations(store, "shop2") == [] != open_operations(store)


def test_a_directory_without_header_is_none(store, operation):
    os.makedirs(store.operation_path("20250101T000000Z-abcdef"))
    (pathlib.Path(store.root) / "operations" / "lost+found").mkdir()
    assert [op.id for op in operations(store)] == [operation.id]
    with pytest.raises(Refused, match="There is no operation"):
        Operation.load(store, "20250102T000000Z-abcdef")


def test_files_are_private(operation):
    operation.write("backup", "done")
    operation.progress.phase("x")
    names = ["operation.json", "journal.jsonl", "progress.json"]
    assert [os.stat(operation.file(name)).st_mode & 0o777 for name in names] == [0o600] * 3
    assert os.stat(operation.path).st_mode & 0o777 == 0o700
    assert json.loads(pathlib.Path(operation.file("operation.json")).read_text())["id"] == operation.id


def test_a_full_disk_is_told(operation):
    """Simulated by a limit on the size of files: the system writes a part of the line and refuses the rest."""
    operation.write("gates", "done")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal_of(operation).stat().st_size + 10, hard))
    try:
        with pytest.raises(BackstopError, match="The journal could not be written") as caught:
            operation.write("backup", "done")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "journal.jsonl" in caught.value.found
    assert operation.done("backup") is None and operation.done("gates")
    operation.write("backup", "done")
    assert operation.done("backup")


def test_a_step_that_was_done_once(operation):
    """A run that was interrupted in its second backup had completed a first one."""
    operation.write("backup", "done")
    operation.write("backup", "began")
    operation.require(["backup"], "left out", once=True)
    with pytest.raises(Refused, match="left out") as caught:
        operation.require(["backup"], "left out")
    assert "has not done: backup" in caught.value.found
    with pytest.raises(Refused):
        operation.require(["backup", "drill"], "left out", once=True)


def write_journal(operation, *entries):
    lines = [json.dumps({"at": "2026-11-30T10:00:%sZ" % at, "step": step, "event": "done", "outcome": "done", **more})
             for at, step, more in entries]  # fmt: skip
    pathlib.Path(operation.file("journal.jsonl")).write_text("\n".join(lines) + "\n", "utf-8")


def test_every_window_counts_as_downtime(operation):
    """A run that was interrupted while the application was stopped leaves it stopped until the next run starts it."""
    assert operation.downtime() == 0
    closed = ("50.000", "operation", {"event": "closed"})
    write_journal(operation, ("10.000", "stop", {}), ("12.250", "stop", {}), ("14.719", "started", {}), closed)
    assert operation.downtime() == 4.7
    write_journal(
        operation, ("10.000", "stop", {}), ("11.000", "started", {}), ("20.000", "stop", {}), ("23.500", "started", {}),
        ("40.000", "stop", {}), closed,
    )  # fmt: skip
    assert operation.downtime() == 1 + 3.5 + 10
    assert [(began[17:19], str(ended)[17:19], seconds) for began, ended, seconds in operation.windows()] == [
        ("10", "11", 1), ("20", "23", 3.5), ("40", "50", 10),
    ]  # fmt: skip
    write_journal(operation, ("10.000", "stop", {}))
    assert operation.windows()[0][1] is None
    assert operation.downtime() > 1 or parse_timestamp("2026-11-30T10:00:10.000Z") > utc_now()
