# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill in a separate server: everything is restored without the live server, and nothing is left behind."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import tempfile

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.cluster_drill import run_cluster_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.options import BackupOptions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import sha256_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.client_tools import (
    find_client_tools,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import connect
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.scratch_server import (
    SUPERUSER,
    scratch_server,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from support.databases import OWNER
from support.module_runner import run_module


@pytest.fixture
def folder():
    """Short enough for a socket, and reachable for an unprivileged account."""
    with tempfile.TemporaryDirectory(prefix="backstop-test-", dir="/var/tmp") as path:
        os.chmod(path, 0o711)
        yield path


def servers(folder):
    """Processes that name the folder."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if folder.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def gone(folder):
    return os.listdir(folder) == [] and servers(folder) == []


def test_the_server_is_private_and_leaves_nothing(cluster, folder):
    tools = find_client_tools(cluster.major, str(cluster.bin_dir))
    with scratch_server(tools, folder) as settings:
        with connect(settings) as session:
            assert session.value("SHOW listen_addresses") == ""
            assert session.value("SELECT current_user") == SUPERUSER
        state = os.stat(settings.host)
        assert state.st_mode & 0o077 == 0
        assert servers(folder)
    assert gone(folder)
    with pytest.raises(ZeroDivisionError), scratch_server(tools, folder):
        raise ZeroDivisionError
    assert gone(folder)


def test_a_realistic_database_comes_back_with_its_roles(realistic, folder):
    place = realistic.backup(form=BackupOptions(format="directory", jobs=2))
    facts = run_cluster_drill(realistic.site, place, folder)
    manifest = manifests.load(place)
    assert facts.rows == manifest.rows
    assert (facts.role, facts.backup) == (SUPERUSER, place.backup_id) and "scratch cluster" in facts.method
    assert manifests.level_of(place) == "restored"
    kept = manifests.verification(place)["levels"]["restored"]
    assert kept["method"] == facts.method and kept["recovery_seconds"] == facts.recovery_seconds
    assert gone(folder)
    assert [name for name in realistic.names() if name.startswith("backstop_")] == []


def test_it_needs_no_live_server(plain, folder):
    place = plain.backup()
    nowhere = dataclasses.replace(plain.site.connection, port=1)
    site = dataclasses.replace(plain.site, connection=nowhere, administration=nowhere)
    assert run_cluster_drill(site, place, folder).rows > 900


def test_a_role_that_the_backup_lacks(plain, folder):
    """The drill reports a role that was removed from roles.sql, long before a real restore needs it."""
    place = plain.backup()
    path = pathlib.Path(place.file("roles.sql"))
    path.write_text("".join(line for line in path.read_text().splitlines(True) if OWNER not in line))
    manifest = manifests.load(place).to_json()
    manifest["files"]["roles.sql"] = {"size": path.stat().st_size, "sha256": sha256_of(str(path))}
    pathlib.Path(place.file("manifest.json")).write_text(json.dumps(manifest))
    with pytest.raises(BackstopError, match=OWNER):
        run_cluster_drill(plain.site, place, folder)
    assert manifests.verification(place)["levels"]["restored"]["passed"] is False
    assert gone(folder)


def test_what_is_refused(plain, folder):
    with pytest.raises(Refused, match="the schema and no row"):
        run_cluster_drill(plain.site, plain.backup(form=BackupOptions(schema_only=True)), folder)
    place = plain.backup()
    with open(place.file("roles.sql"), "a") as stream:
        stream.write("CREATE TABLESPACE fast OWNER postgres LOCATION '/srv/fast';\n")
    with pytest.raises(Refused, match="has tablespaces"):
        run_cluster_drill(plain.site, place, folder)
    assert gone(folder)


def test_the_module(plain, folder, tmp_path):
    place = plain.backup()
    arguments = {
        "connection": {"url": plain.cluster.url("shop", user=OWNER)},
        "store": plain.store.root,
        "client_bin_dir": str(plain.cluster.bin_dir),
        "where": "cluster",
        "scratch_directory": folder,
    }
    refused = run_module(tmp_path, "pg_backup_verify", {**arguments, "keep_scratch": True})
    assert refused.failed and "always removed" in refused.result["msg"]
    answer = run_module(tmp_path, "pg_backup_verify", arguments)
    assert not answer.failed and answer.result["changed"], answer.printed
    assert "scratch cluster" in answer.result["method"] and answer.result["backup"] == place.backup_id
    assert gone(folder)
