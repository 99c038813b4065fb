# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows that users write into tables of an extension (jobs, configuration): a dump contains those that the extension
marked, so they are compared, counted and restored like all others; rows that come with the extension are not."""

from __future__ import annotations

import os
import pathlib
import tempfile

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.cluster_drill import run_cluster_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import build_database, compare
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import scratch_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.reapply import Reapply
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import catalog
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.manifest import load
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import revert_in_place
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    restore_table,
)
from support.databases import Databases, start_cluster
from support.own_extensions import install

EXTENSION = """
CREATE SEQUENCE job_number;
CREATE TABLE job (id bigint PRIMARY KEY DEFAULT nextval('job_number'), command text NOT NULL);
CREATE TABLE tariff (code integer PRIMARY KEY, name text, own boolean NOT NULL DEFAULT true);
INSERT INTO tariff SELECT g, 'standard ' || g, false FROM generate_series(1, 5) g;
CREATE TABLE cache (id integer);
SELECT pg_extension_config_dump('job', '');
SELECT pg_extension_config_dump('job_number', '');
SELECT pg_extension_config_dump('tariff', 'WHERE tariff.own');
"""
MADE = """
CREATE SCHEMA jobs; CREATE EXTENSION jobs SCHEMA jobs;
INSERT INTO jobs.job (command) VALUES ('VACUUM'), ('ANALYZE'), ('REINDEX');
INSERT INTO jobs.tariff VALUES (101, 'ours'), (102, 'ours too'); INSERT INTO jobs.cache VALUES (1);
"""
EVERYTHING = 10**9


@pytest.fixture(scope="module")
def server(cluster, tmp_path_factory):
    bin_dir = install(tmp_path_factory.mktemp("programs"), cluster, {"jobs": EXTENSION})
    made = start_cluster(tmp_path_factory.mktemp("server"), bin_dir)
    yield made
    made.destroy()


@pytest.fixture
def live(server, tmp_path):
    with Databases(server, tmp_path / "store").dropped_afterwards() as made:
        live = made.make("shop", user=None)
        live.execute(MADE)
        yield live


def ours(live):
    return (
        live.rows("SELECT id, command FROM jobs.job ORDER BY 1"),
        live.rows("SELECT code, name FROM jobs.tariff ORDER BY 1"),
    )


def test_they_are_backed_up_and_drilled(live):
    live.execute("UPDATE jobs.tariff SET name = 'changed by hand' WHERE code = 1")
    place = live.backup()
    manifest = load(place)
    rows = {entry.name: entry.digest.rows for entry in manifest.tables if entry.schema == "jobs"}
    assert rows == {"job": 3, "tariff": 2} and manifest.sequences["jobs.job_number"] == 3
    reasons = {one.name: one.reason for one in manifest.not_covered if one.name.startswith("jobs.")}
    assert set(reasons) >= {"jobs.cache", "jobs.tariff"} and "WHERE tariff.own" in reasons["jobs.tariff"]
    name = scratch_name(new_id(), "new")
    assert build_database(live.site, place, name).rows == manifest.rows
    assert live.rows("SELECT name FROM jobs.tariff WHERE code IN (1, 101) ORDER BY code", name) == [
        ("standard 1",),
        ("ours",),
    ]
    live.execute(
        "DELETE FROM jobs.job WHERE id = 2; UPDATE jobs.tariff SET name = '' WHERE code = 102;"
        "UPDATE jobs.tariff SET name = '' WHERE code = 2; DELETE FROM jobs.cache",
        name,
    )
    with live.site.connect(name) as session, pytest.raises(BackstopError) as caught:
        compare(live.site, session, manifest)
    told = ["table jobs.job has 2 rows, not 3", "table jobs.tariff has 2 rows with other contents"]
    assert caught.value.details["differences"] == told
    with tempfile.TemporaryDirectory(prefix="backstop-test-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o711)
        assert run_cluster_drill(live.site, place, folder).rows > 5


def written(live):
    live.execute(
        "INSERT INTO jobs.job (command) VALUES ('CLUSTER'); UPDATE jobs.job SET command = 'FREEZE' WHERE id = 1;"
        "DELETE FROM jobs.tariff WHERE code = 102; UPDATE jobs.tariff SET name = 'not ours' WHERE NOT own"
    )


def test_a_swap_counts_keeps_and_carries_them(live):
    place = live.backup()
    before = ours(live)
    written(live)
    run = live.begun("rollback", {"backup": place.backup_id})
    build_successor(run, place)
    with pytest.raises(BackstopError, match="jobs.job: 1 inserted, 1 updated; jobs.tariff: 1 deleted"):
        revert(run, place, LossPolicy(0))
    result = revert(run, place, LossPolicy(3))
    assert result.changed and result.lost_rows == 3 and ours(live) == before
    kept = pathlib.Path(run.operation.file("lost-rows"), "jobs.job.copy").read_text()
    assert "CLUSTER" in kept and "FREEZE" in kept and "ANALYZE" not in kept
    assert live.value("SELECT nextval('jobs.job_number')") == 5, "a number would be given out twice"
    run.operation.close("done")
    place = live.backup()
    written(live)
    run = live.begun("rollback", {"backup": place.backup_id})
    build_successor(run, place)
    result = revert(run, place, LossPolicy(0, reapply=Reapply("apply", deletes=True)))
    assert result.lost_rows == 0 and live.value("SELECT count(*) FROM jobs.tariff WHERE own") == 1
    assert live.rows("SELECT command FROM jobs.job ORDER BY 1") == [
        ("ANALYZE",),
        ("CLUSTER",),
        ("FREEZE",),
        ("REINDEX",),
    ]


def test_a_restore_in_place_counts_them(live):
    place = live.backup()
    before = ours(live)
    written(live)
    run = live.begun("rollback", {"backup": place.backup_id})
    with pytest.raises(BackstopError, match="jobs.job: 1 inserted, 1 updated; jobs.tariff: 1 deleted"):
        revert_in_place(run, place, LossPolicy(0))
    assert revert_in_place(run, place, LossPolicy(EVERYTHING)).lost_rows == 3
    assert ours(live) == before


def test_one_of_their_tables_is_restored(live):
    place = live.backup()
    written(live)
    for name in ("jobs.job", "jobs.tariff"):
        run = live.begun("rollback", {"scenario": "corrupted_table", "table": name})
        assert restore_table(run, TableRestoreRequest(name, policy=LossPolicy(1)), place.backup_id).changed
        run.operation.close("done")
    jobs, tariffs = ours(live)
    assert jobs == [(1, "VACUUM"), (2, "ANALYZE"), (3, "REINDEX")]
    # The extension's own rows are not in the backup: they are left unchanged.
    assert tariffs == [*((code, "not ours") for code in range(1, 6)), (101, "ours"), (102, "ours too")]


def test_a_backup_of_such_a_table_alone(live):
    place = live.backup("daily", tables=["jobs.tariff"])
    (entry,) = load(place).tables
    assert entry.digest.rows == 2
    with live.site.connect() as session:
        assert entry.table == catalog.find_table(session, "jobs.tariff")
