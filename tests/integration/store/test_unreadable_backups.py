# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups whose manifest or verification cannot be read: listed with the reason, never selected, no obstacle to
others, and removed only by hand."""

from __future__ import annotations

import datetime
import json
import pathlib

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import Request
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.options import BackupOptions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.prune import prune
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.reuse import reusable_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.catalog import find_family
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import Policy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.baseline import (
    backup_to_revert_to,
    newest_backup_with,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.retired import retired_databases
from ansible_collections.backstop.postgres.plugins.modules import pg_backup_info

BROKEN = {
    "torn": b'{"format": 1, "id',
    "of a newer version": b'{"format": 2}',
    "no object": b"[]",
    "of wrong types": json.dumps(
        {
            "format": 1,
            "id": "x",
            "kind": "daily",
            "created": "2025-01-01T00:00:00.000Z",
            "database": "shop",
            "server": {},
            "archive": {},
            "files": {},
            "tables": [],
            "snapshot": {},
        }
    ).encode(),
}


@pytest.fixture
def among_broken(plain):
    """A good backup among others that cannot be read, one of them only because of its verification."""
    good = plain.backup()
    for name, content in BROKEN.items():
        folder = pathlib.Path(plain.store.backup_path("pre-migration", name))
        folder.mkdir(mode=0o700)
        (folder / "manifest.json").write_bytes(content)
    unverified = plain.backup()
    pathlib.Path(unverified.file("verification.json")).write_bytes(b"torn")
    return plain, good, {*BROKEN, unverified.backup_id}


def info(store, backup=None):
    parameters = {"store": store.root, "kind": None, "backup": backup, "undo_window": 7}
    return pg_backup_info.act(Request(parameters, False, False, lambda text: None))


def test_they_are_listed_with_the_reason(among_broken):
    live, good, broken = among_broken
    told = info(live.store)
    assert [one["backup"] for one in told["backups"]] == [good.backup_id]
    assert {one["backup"] for one in told["unreadable"]} == broken
    assert all(one["reason"] and one["path"] for one in told["unreadable"])
    assert info(live.store, good.backup_id)["backups"][0]["manifest"]["id"] == good.backup_id
    with pytest.raises(BackstopError, match="format"):
        info(live.store, "of a newer version")


@pytest.mark.fault("archive", "unreadable backups beside a good one", by="listed with the reason, never selected")
def test_nobody_who_does_not_need_them_is_stopped(among_broken):
    live, good, _broken = among_broken
    with live.site.connect() as session:
        family = find_family(session, "TokenPurchase", live.site.connection.schema)
    assert backup_to_revert_to(live.site, None) == good
    assert newest_backup_with(live.site, family) == good
    assert reusable_backup(live.site, "pre-migration", 3600, BackupOptions()) == good
    with live.site.administer() as admin:
        assert retired_databases(live.site, admin) == []
    # Another one, made, restored and compared.
    assert verify(live.site, live.backup("daily"), "restored").level == "restored"


@pytest.mark.fault("archive", "unreadable backups when old ones are pruned", by="kept")
def test_retention_keeps_them(among_broken):
    live, _good, broken = among_broken
    later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=4000)
    decisions = {one.item.backup_id: one for one in prune(live.store, Policy(), max_share=1, now=later)}
    assert all(decisions[name].keep and "by hand only" in "; ".join(decisions[name].reasons) for name in broken)
    assert broken <= {place.backup_id for place in live.store.backups()}
