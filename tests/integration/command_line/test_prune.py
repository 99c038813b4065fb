# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``backstop prune``: what it deletes, what it shows, and the exit status of each outcome. No server is running."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, Dict, List

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.main import make_parser
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.run_records import RunRecords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from support.backstop_command import Ended, call_command
from support.made_backups import made_backup, utc

OK, FAILED, USAGE, LOCKED = 0, 1, 2, 5
RETENTION = {"keep_days": 2, "keep_weeks": 1, "time_zone": "UTC"}


class Host:
    """A store with backups of two databases, and the configuration of one of them, whose server is down."""

    def __init__(self, tmp_path: pathlib.Path) -> None:
        self.folder = tmp_path / "etc"
        self.folder.mkdir()
        self.store = Store(str(tmp_path / "store"))
        days = [utc("2025-06-%02dT12:00" % day) for day in (2, 9, 10, 11)]
        self.shop, self.other = [
            [made_backup(self.store, "daily", day, database=database).backup_id for day in days]
            for database in ("shop", "other")
        ]
        self.configure()

    def configure(self, **changes: Any) -> None:
        content: Dict[str, Any] = {
            "connection": {"host": "localhost", "port": 1, "user": "owner", "database": "shop"},
            "store": self.store.root,
            "textfile": str(self.folder / "shop.prom"),
            "retention": RETENTION,
            **changes,
        }
        path = self.folder / "shop.conf"
        path.write_text(json.dumps(content), "utf-8")
        path.chmod(0o600)

    def prune(self, *arguments: str) -> Ended:
        return call_command(self.folder, "prune", *arguments)

    @property
    def listed(self) -> List[str]:
        return [place.backup_id for place in self.store.backups()]

    @property
    def tree(self) -> Dict[str, bytes]:
        """Every file below the store and the configurations."""
        places = [path for root in (self.store.root, self.folder) for path in pathlib.Path(root).rglob("*")]
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in places}

    @property
    def last_run(self) -> Dict[str, Any]:
        return RunRecords(self.store, "shop").last("prune") or {}


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


def test_the_whole_store_is_pruned_while_the_server_is_down(host):
    ended = host.prune("shop")
    assert (ended.status, ended.stderr) == (OK, "")
    *lines, summary = ended.stdout.splitlines()
    told = dict(line.split(": ", 1) for line in lines)
    words = ["deleted", "deleted", "kept", "kept"]
    for backups in (host.shop, host.other):
        assert [place in host.listed for place in backups] == [False, False, True, True]
        assert all("%s (daily) %s" % pair in told for pair in zip(backups, words))
    assert all(told.values()) and summary.startswith("4 of 8 backups deleted, ")
    assert host.last_run["passed"] and host.last_run["exit_status"] == OK
    assert 'backstop_last_run_success{configuration="shop",database="shop",job="prune"} 1.0' in (
        host.folder / "shop.prom"
    ).read_text("utf-8")
    again = host.prune("shop", "--json")
    assert again.status == OK and (again.json["deleted"], again.json["freed"]) == ([], 0)


def test_check_has_no_effect(host):
    before = host.tree
    told = host.prune("shop", "--check")
    assert told.status == OK and told.stdout.count(" would be deleted: ") == 4 and "8 backups would be" in told.stdout
    asked = host.prune("shop", "--check", "--json").json
    assert host.tree == before
    # The real run does the same, and reports it in the same words.
    assert host.prune("shop", "--json").json == asked
    assert set(asked["deleted"]) == set(before_ids(host)) - set(host.listed) and asked["freed"] > 0


def before_ids(host):
    return host.shop + host.other


def test_json(host):
    found = host.prune("shop", "--json").json
    assert sorted(found) == ["deleted", "freed", "items", "row_files"]
    decisions = {item["backup"]: item["decision"] for item in found["items"]}
    assert decisions == dict(zip(host.other + host.shop, ["delete", "delete", "keep", "keep"] * 2))
    assert all(item["reason"] for item in found["items"])


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_too_much_at_once(host, check):
    host.configure(retention={**RETENTION, "max_delete_share": 0.25})
    ended = host.prune("shop", *check)
    assert ended.status == FAILED and ended.stdout == ""
    assert "would delete 4 of 8" in ended.stderr and "max_delete_share in the configuration" in ended.stderr
    assert ended.stderr.count(" would be deleted: ") == 4 and ended.stderr.count(" kept: ") == 4
    assert sorted(host.listed) == sorted(before_ids(host))
    assert (host.last_run == {}) if check else (host.last_run["passed"] is False)
    status = call_command(host.folder, "status", "shop")
    assert (status.status, "prune of" in status.stdout) == ((OK, False) if check else (FAILED, True))


def test_the_defaults_of_the_module(host):
    host.configure(retention={})
    assert host.prune("shop", "--check", "--json").json["deleted"] == []


@pytest.mark.parametrize(
    "arguments, retention, told",
    [
        ([], RETENTION, "DATABASE"),
        (["shp"], RETENTION, "perhaps shop"),
        (["shop", "--dry-run"], RETENTION, "unrecognized"),
        (["shop"], {"keep_day": 1}, "did you mean keep_days?"),
        (["shop"], {"keep_days": 0}, "retention.keep_days"),
    ],
)
def test_what_cannot_be_meant(host, arguments, retention, told):
    host.configure(retention=retention)
    before = host.tree
    ended = host.prune(*arguments)
    assert ended.status == USAGE and told in ended.stderr and ended.stdout == "" and host.tree == before


@pytest.mark.parametrize("database", ["shop", "other"])
def test_another_run_is_at_work_on_a_database_of_the_store(host, database):
    with FileLock(RunRecords(host.store, database).lock_path).held():
        ended = host.prune("shop")
        assert ended.status == LOCKED and "working on the backups of %s" % database in ended.stderr
        assert sorted(host.listed) == sorted(before_ids(host)) and host.last_run == {}
        assert host.prune("shop", "--check").status == OK
    assert host.prune("shop").status == OK


def test_no_password_is_needed(host):
    host.configure(password_file=os.path.join(host.store.root, "nowhere"), textfile=str(host.folder / "x.prom"))
    assert host.prune("shop").status == OK


def test_the_help_says_that_it_is_about_the_store(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_args(["prune", "--help"])
    assert "those of other databases" in " ".join(capsys.readouterr().out.split())
