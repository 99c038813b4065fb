# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a dump, a restore and a comparison report of themselves, on a real server."""

from __future__ import annotations

import dataclasses
import os
import shutil
from typing import Any, Dict, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import run_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.options import BackupOptions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import progress as progress_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import Progress
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.count import count_losses
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog, copy_progress
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.offsite import Offsite
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import revert_in_place
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    restore_table,
)

ROWS = """
CREATE TABLE early AS SELECT g AS id, repeat(md5(g::text), 4) AS text FROM generate_series(1, 60000) g;
CREATE TABLE late AS SELECT * FROM early;
CREATE INDEX ON early (text); CREATE INDEX ON late (text); ALTER TABLE late ADD PRIMARY KEY (id);
ANALYZE;
"""


class Seen(Progress):
    """Keeps everything that is reported."""

    def __init__(self) -> None:
        super().__init__()
        self.states: List[Dict[str, Any]] = []

    def show(self, state: Dict[str, Any]) -> None:
        self.states.append(state)

    def of(self, phase: str) -> List[Dict[str, Any]]:
        return [state for state in self.states if state["phase"] == phase]


@pytest.mark.parametrize("form", ["custom", "directory"])
def test_bytes_and_tables_are_reported_while_they_are_worked_on(plain, monkeypatch, form) -> None:
    monkeypatch.setattr(progress_module, "SHOW_SECONDS", 0.005)
    plain.as_owner(ROWS)
    seen = Seen()
    site = dataclasses.replace(plain.site, watched_by=seen)
    options = BackupOptions(format=form, jobs=2 if form == "directory" else 1)
    place = make_backup(site, "pre-migration", form=options)
    drilled = run_drill(site, place, keep=True).database
    for phase in ("dumping", "restoring"):
        found = seen.of(phase)
        amounts = [state["bytes"] for state in found]
        assert amounts == sorted(amounts) and amounts[0] == 0, phase
        assert [amount for amount in amounts if 0 < amount < found[0]["bytes_total"]], (phase, amounts)
        assert found[0]["tables_total"] == len(manifests.load(place).tables)
    assert seen.of("dumping")[0]["bytes_total"] > 2 * 60000 * 128
    assert any(state["left"] for state in seen.of("dumping") if state["bytes"])
    manifest = manifests.load(place)
    restoring = copy_progress.Restoring(
        {(entry.schema, entry.name): (entry.table.size, entry.digest.rows) for entry in manifest.tables},
        manifest.definitions,
        1,
    )
    with site.connect(drilled) as session:
        done = restoring.poll(session)
    assert done[1:] == (len(manifest.tables), 1, len(restoring.after_rows)) and done[3] >= 3, "nothing is left"
    assert seen.of("restoring")[-1]["indexes"], "they are counted while they are made"
    compared = seen.of("comparing")
    assert compared[-1]["bytes_total"] and compared[0]["tables"] == 0
    assert seen.of("checking the files")[-1]["bytes_total"] == place_size(place)
    read = [state["bytes"] for state in seen.of("reading the archive back")]
    assert read[-1] > read[0] == 0, "of all files of the archive"
    assert seen.of("dropping the scratch database") == [], "it is kept"


def place_size(place: Any) -> int:
    return sum(entry.size for entry in manifests.load(place).files.values())


def test_rows_that_a_repair_reads_are_reported(plain, monkeypatch) -> None:
    """Those of one table, and of the whole database in place."""
    monkeypatch.setattr(progress_module, "SHOW_SECONDS", 0.005)
    plain.as_owner(ROWS)
    place = plain.backup()
    plain.as_owner("DELETE FROM late WHERE id % 3 = 0")
    table, seen = Seen(), Seen()
    run = plain.begun("rollback", {"scenario": "corrupted_table", "table": "late"})
    run.operation.progress.also(table)
    assert restore_table(run, TableRestoreRequest("late"), place.backup_id).changed
    run.operation.close("done")
    run = plain.begun("rollback", {"backup": place.backup_id})
    run.operation.progress.also(seen)
    revert_in_place(run, place, LossPolicy(0))
    run.operation.close("done")
    read = table.of("reading the backup")
    assert (read[0]["unit"], read[0]["tables"], read[0]["tables_total"]) == ("rows", 0, 60000)
    assert [state for state in read if 0 < state["tables"] <= 60000 and 0 < state["bytes"] <= state["bytes_total"]]
    restored = [state["bytes"] for state in seen.of("restoring")]
    assert restored[-1] > restored[0] == 0 and seen.of("comparing")[0]["tables_total"]


@pytest.mark.offsite
def test_copies_of_a_backup_report_what_is_written(tmp_path, monkeypatch) -> None:
    """There and back, by a real rclone; the speed is limited, so that it takes longer than a reading."""
    monkeypatch.setattr(progress_module, "SHOW_SECONDS", 0.01)
    # Its own variables are not passed on to it.
    limited = tmp_path / "bin" / "rclone"
    limited.parent.mkdir()
    limited.write_text('#!/bin/sh\nexec "%s" --bwlimit=2M "$@"\n' % shutil.which("rclone"), "utf-8")
    limited.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:%s" % (limited.parent, os.environ["PATH"]))
    seen, folder = Seen(), tmp_path / "some"
    folder.mkdir()
    (folder / "archive.dump").write_bytes(os.urandom(3 << 20))
    offsite = Offsite(str(tmp_path / "remote"))
    seen.phase("copying", bytes_total=3 << 20)
    offsite.put(str(folder), offsite.at("daily", "one"), [], seen)
    written = [state["bytes"] for state in seen.of("copying")]
    assert [amount for amount in written if 0 < amount < 3 << 20] and written == sorted(written)


def test_tables_are_counted_one_after_the_other(plain, monkeypatch) -> None:
    monkeypatch.setattr(progress_module, "SHOW_SECONDS", 0.0)
    plain.as_owner("CREATE TABLE one (id integer); CREATE TABLE two (id integer)")
    seen = Seen()
    with plain.site.connect() as live, plain.site.connect() as base:
        tables = len(catalog.tables(live))
        assert count_losses(live, base, progress=seen) == []
    found = seen.of("counting what would be lost")
    assert [state["tables"] for state in found] == [0, *range(tables + 1)] and found[-1]["tables_total"] == tables
    assert "left" not in found[-1], "how long a table takes is not known"


def test_a_server_that_cannot_be_asked_again_fails_nothing(plain, monkeypatch) -> None:
    """As with a limit of connections that is reached."""
    monkeypatch.setattr(progress_module, "SHOW_SECONDS", 0.0)
    seen = Seen()
    site = dataclasses.replace(plain.site, watched_by=seen)
    connect, number = type(site).connect, []

    def second_fails(self: Any, *arguments: Any, **keywords: Any) -> Any:
        number.append(1)
        if len(number) > 1:
            raise Refused("too many connections")
        return connect(self, *arguments, **keywords)

    monkeypatch.setattr(type(site), "connect", second_fails)
    assert make_backup(site, "pre-migration")
    assert seen.of("dumping")
