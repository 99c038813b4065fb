# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups of the script for Windows, as far as they can be made without Windows.

The script's argument lists and queries are extracted from its text and run by PostgreSQL's programs here; its manifest
is filled in as its text says. This collection reads the result as a backup.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import subprocess

import jsonschema
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import (
    sha256_of,
    write_json,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import CouldNotVerify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import timestamp, utc_now
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace, new_id
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import (
    Policy,
    decide,
    read_items,
)
from support.windows_templates import backup_script

SCRIPT = backup_script()
SCHEMA = json.loads((pathlib.Path(__file__).resolve().parents[3] / "docs" / "manifest.schema.json").read_text("utf-8"))


class Client:
    """PostgreSQL's programs with the script's arguments and variables."""

    def __init__(self, live):
        self._live = live
        settings = live.site.connection
        self._environment = {
            **live.cluster.environment(live.name),
            "PGUSER": settings.user,
            "PGPASSWORD": settings.password,
            "PGHOST": settings.host,
            "PGPORT": str(settings.port),
            "PGDATABASE": live.name,
        }
        table = SCRIPT.table("$Connection")
        self._environment.update(
            {key: value.strip("'") for key, value in table.items() if key in ("PGOPTIONS", "PGCLIENTENCODING")}
        )
        assert set(table) == {"PGDATABASE", "PGOPTIONS", "PGCLIENTENCODING"}

    def run(self, program, arguments):
        done = subprocess.run(
            [str(self._live.cluster.bin_dir / program), *arguments],
            env=self._environment,
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def query(self, variable):
        (query,) = SCRIPT.strings(variable)
        return self.run("psql", [*SCRIPT.strings("$QueryArguments"), "--command=" + query]).strip()


def filled(table, values):
    """A hash table of the script with a value for each of its expressions."""
    return {key: filled(value, values) if isinstance(value, dict) else values[value] for key, value in table.items()}


def not_covered(text):
    found = re.findall(r"'kind' = '([^']+)'; 'name' = '([^']+)'; 'reason' = '([^']+)'", text)
    return [dict(zip(("kind", "name", "reason"), entry)) for entry in found]


def as_the_script_makes_it(live):
    """A backup, step by step as New-Backup does."""
    client = Client(live)
    fields = client.query("$SourceQuery").split("|")
    assert len(fields) == 7
    live.store.prepare()
    backup_id = "%s-%s" % (live.name, new_id())
    place = BackupPlace("daily", backup_id, live.store.backup_path("daily", backup_id))
    os.mkdir(place.path, 0o700)
    archive, roles = place.file("archive.dump"), place.file("roles.sql")
    client.run("pg_dump", [*SCRIPT.strings("$DumpArguments"), "--file=" + archive])
    client.run("pg_dumpall", [*SCRIPT.strings("$RolesArguments"), "--file=" + roles])
    assert "-- PostgreSQL database cluster dump complete" in pathlib.Path(roles).read_text("utf-8")
    client.run("pg_restore", ["--file=" + os.devnull, archive])
    files = manifests.describe_files(place.path, ["archive.dump", "roles.sql"])
    described = {name: dataclasses.asdict(file) for name, file in files.items()}
    table = SCRIPT.table("$manifest")
    manifest = filled(
        table,
        {
            "1": 1,
            "'1'": "1",
            "''": "",
            "$null": None,
            "@()": [],
            "'daily'": "daily",
            "'custom'": "custom",
            "'archive.dump'": "archive.dump",
            "$id": backup_id,
            "Get-UtcText": timestamp(),
            "$Database": live.name,
            "$Source.created": fields[0],
            "$Source.major": int(fields[1]) // 10000,
            "$Source.version": fields[2],
            "$Source.oid": int(fields[3]),
            "$Source.size": int(fields[4]),
            "$Source.lsn": fields[5],
            "$Source.transactions": fields[6],
            "$Source.identity": client.query("$IdentityQuery"),
            "$Source.tool": re.search(r"\d+(\.\d+)*", client.run("pg_dump", ["--version"])).group(),
            "(Get-Item -LiteralPath $archive).Length": os.path.getsize(archive),
            "Get-Description $archive": described["archive.dump"],
            "Get-Description $roles": described["roles.sql"],
            "[math]::Round($dumped, 3)": 0.1,
            "[math]::Round($decoded, 3)": 0.1,
            table["not_covered"]: not_covered(table["not_covered"]),
        },
    )
    write_json(place.file("manifest.json"), manifest)
    level = filled(
        SCRIPT.table("$level"),
        {
            "Get-UtcText": timestamp(),
            "$true": True,
            "$manifest.seconds.decode": 0.1,
            "'the whole archive was decoded'": "the whole archive was decoded",
        },
    )
    verification = SCRIPT.table("$verification")
    assert verification["levels"] == {"readable": "$level"} and set(verification) == {"levels", "manifest_sha256"}
    write_json(
        place.file("verification.json"),
        {"levels": {"readable": level}, "manifest_sha256": sha256_of(place.file("manifest.json"))},
    )
    return place


@pytest.fixture(scope="module")
def made(shared_databases):
    live = shared_databases.make("shop")
    return live, as_the_script_makes_it(live)


def test_it_is_read_as_any_other(made):
    live, place = made
    manifest = manifests.load(place).to_json()
    jsonschema.Draft202012Validator(SCHEMA).validate(manifest)
    assert [found.backup_id for found in live.store.backups()] == [place.backup_id]
    assert manifests.level_of(place) == "readable"
    assert {entry["kind"] for entry in manifest["not_covered"]} == {"digests", "definitions"}
    ours = manifests.load(live.backup("emergency")).to_json()
    assert set(manifest) < set(ours) and manifest["server"] == ours["server"]
    # The server may vacuum or extend the database between the two backups.
    assert manifest["database"].pop("size") > 0 and ours["database"].pop("size") > 0
    assert manifest["database"] == {key: ours["database"][key] for key in manifest["database"]}
    assert set(manifest["archive"]) <= set(ours["archive"])


def test_it_counts_for_retention(made):
    live, place = made
    (found,) = [item for item in read_items(live.store) if item.backup_id == place.backup_id]
    assert found.problem is None
    assert found.group == (live.name, manifests.load(place).server.system_identifier, "")
    (decision,) = decide([found], Policy(), utc_now())
    assert "the newest verified backup of its database" in decision.reasons


def test_it_is_verified_as_far_as_it_can_be(made):
    live, place = made
    assert verify(live.site, place, "readable").level == "readable"
    before = live.names()
    with pytest.raises(CouldNotVerify, match="cannot be compared with its source") as caught:
        verify(live.site, place, "restored")
    assert "the script for Windows" in caught.value.found and "pg_restore" in caught.value.hint
    assert live.names() == before and manifests.level_of(place) == "readable"


def test_its_archive_restores(made):
    live, place = made
    client = Client(live)
    client.run("createdb", ["by_hand"])
    client.run("pg_restore", ["--exit-on-error", "--no-owner", "--dbname=by_hand", place.file("archive.dump")])
    counted = 'SELECT count(*) FROM "TokenPurchase"'
    assert live.value(counted, "by_hand") == live.value(counted)
