# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The status of a database's backups, for any clock and any store."""

from __future__ import annotations

import datetime
import hashlib
import json
import pathlib

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import (
    BackstopError,
    CouldNotVerify,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import timestamp
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line import metrics
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.configuration import (
    Configuration,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.exit_statuses import TooOld
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.run_records import RunRecords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.standing import read_standing
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store

NOW = datetime.datetime(2026, 3, 29, 3, 0, tzinfo=datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)
DAY = 24 * 3600


@pytest.fixture
def configuration(tmp_path):
    settings = Settings(database="shop", user="backup")
    store = Store(str(tmp_path / "store"))
    store.prepare()
    return Configuration("shop", "/etc/backstop/shop.conf", settings, settings, store, max_age=DAY)


def put(configuration, age_hours, kind="daily", passed=True, level="readable", database="shop"):
    """A backup in the store, as far as its status is concerned."""
    created = NOW - age_hours * HOUR
    folder = pathlib.Path(configuration.store.backup_path(kind, "%s-%s" % (database, age_hours)))
    folder.mkdir()
    manifest = {
        "format": 1,
        "id": folder.name,
        "kind": kind,
        "created": timestamp(created),
        "database": {"name": database, "oid": 16384, "size": 1},
        "server": {"system_identifier": "", "major": 15, "version": "15.0"},
        "archive": {"file": "archive.dump", "format": "custom", "compression": "gzip", "size": 1000, "tool": "15.0"},
        "files": {"archive.dump": {"size": 1000, "sha256": ""}},
        "tables": [],
        "snapshot": {},
        "seconds": {"dump": 1.5, "decode": 0.5},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if level:
        digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
        known = {"levels": {level: {"at": timestamp(created), "passed": passed}}, "manifest_sha256": digest}
        (folder / "verification.json").write_text(json.dumps(known))
    return folder


def judged(configuration, kind=None, max_age=DAY):
    standing = read_standing(configuration, NOW)
    if kind is None:
        standing.judge(max_age)
        return standing
    with pytest.raises(BackstopError) as caught:
        standing.judge(max_age)
    assert caught.value.exit_status == kind.exit_status
    return str(caught.value)


def test_no_backup(configuration):
    assert "There is no backup" in judged(configuration, TooOld)


def test_a_young_one(configuration):
    put(configuration, 30)
    put(configuration, 23, kind="weekly")
    put(configuration, 1, database="other")
    standing = judged(configuration)
    assert standing.age == 23 * 3600 and standing.newest.place.kind == "weekly"
    assert standing.describe() == "shop-23 (weekly) is 23 h old, 1 kB, readable"


def test_too_old(configuration):
    put(configuration, 25)
    assert "shop-25 (daily) is 25 h old" in judged(configuration, TooOld)
    judged(configuration, max_age=26 * 3600)
    judged(configuration, max_age=None)


def test_only_verified_ones_count(configuration):
    put(configuration, 1, level=None)
    put(configuration, 2, passed=False)
    put(configuration, 3, level="checksum")
    assert "None of the backups is verified" in judged(configuration, CouldNotVerify)
    put(configuration, 30)
    assert "shop-30" in judged(configuration, TooOld)


def test_the_clock_was_ahead(configuration):
    """A backup dated next year must not hide for a year that no others are made."""
    put(configuration, -24 * 365)
    assert "dated in the future" in judged(configuration, TooOld)
    put(configuration, 2)
    assert "1 dated in the future" in judged(configuration).describe()


def test_the_clock_was_set_back_a_little(configuration):
    put(configuration, -0.05)
    assert judged(configuration).age == 0


def test_a_manifest_that_cannot_be_read_hides_no_other(configuration):
    put(configuration, 1)
    for name, content in (("torn", b'{"format": 1, "id'), ("other", b'{"format": 2}'), ("odd", b"[]")):
        folder = pathlib.Path(configuration.store.backup_path("daily", name))
        folder.mkdir()
        (folder / "manifest.json").write_bytes(content)
    standing = judged(configuration)
    assert standing.newest.place.backup_id == "shop-1"
    assert sorted(standing.unreadable) == ["odd", "other", "torn"] and all(standing.unreadable.values())


@pytest.mark.parametrize("job", ["backup", "drill"])
def test_the_last_run_failed(configuration, job):
    put(configuration, 1)
    records = RunRecords(configuration.store, "shop")
    records.write(job, {"at": timestamp(NOW), "passed": False, "message": "No PostgreSQL server answers"})
    assert "No PostgreSQL server answers" in judged(configuration, BackstopError)
    records.write(job, {"at": timestamp(NOW), "passed": True})
    judged(configuration)


def test_records_of_a_database_with_an_odd_name(configuration):
    name = "Ä/%s é 100%"
    RunRecords(configuration.store, name).write("backup", {"passed": True})
    assert RunRecords(configuration.store, name).last("backup") == {"passed": True}
    assert RunRecords(configuration.store, "other").last("backup") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"backup": 1, "scratch_id": []}'])
def test_a_damaged_record_of_runs_keeps_nothing_from_being_done(configuration, content):
    put(configuration, 1)
    records = RunRecords(configuration.store, "shop")
    records.write("backup", {})
    (path,) = pathlib.Path(configuration.store.root).glob(".runs-*")
    path.write_bytes(content)
    judged(configuration)
    assert records.scratch_id() == records.scratch_id()
    records.write("backup", {"passed": True})
    assert records.last("backup") == {"passed": True}


def test_metrics(configuration):
    put(configuration, 2)
    put(configuration, 30, kind="emergency")
    RunRecords(configuration.store, "shop").write(
        "drill", {"at": timestamp(NOW), "passed": True, "seconds": 4.5, "recovery_seconds": 3.25}
    )
    lines = metrics.render(read_standing(configuration, NOW), retired=2).splitlines()
    labels = '{configuration="shop",database="shop"}'
    for line in (
        "backstop_last_success_timestamp_seconds%s %r" % (labels, (NOW - 2 * HOUR).timestamp()),
        "backstop_last_success_duration_seconds%s 2.0" % labels,
        "backstop_last_success_size_bytes%s 1000.0" % labels,
        "backstop_last_success_level%s 2.0" % labels,
        'backstop_backups{configuration="shop",database="shop",kind="daily"} 1.0',
        'backstop_backups{configuration="shop",database="shop",kind="weekly"} 0.0',
        'backstop_backups_bytes{configuration="shop",database="shop",kind="emergency"} 1000.0',
        'backstop_last_run_success{configuration="shop",database="shop",job="drill"} 1.0',
        "backstop_recovery_seconds%s 3.25" % labels,
        "backstop_retired_databases%s 2.0" % labels,
        "backstop_server_up%s 1.0" % labels,
        "backstop_max_age_seconds%s 86400.0" % labels,
    ):
        assert line in lines, line
    assert len([line for line in lines if line.startswith("# TYPE")]) == len(
        {line.split("{")[0] for line in lines} - {line for line in lines if line.startswith("#")}
    )


def test_metrics_without_anything(configuration):
    text = metrics.render(read_standing(configuration, NOW), retired=None)
    assert "last_success_timestamp" not in text and "retired_databases" not in text
    assert 'backstop_server_up{configuration="shop",database="shop"} 0.0' in text
    assert 'backstop_last_success_level{configuration="shop",database="shop"} 0.0' in text
