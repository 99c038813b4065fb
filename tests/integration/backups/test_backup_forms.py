# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The formats of a backup: a directory, an additional plain SQL file, the schema only; and reusing a backup."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import pathlib
import stat
import subprocess

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verified_before, verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.options import BackupOptions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.reuse import reusable_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import timestamp, utc_now
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import (
    quote_identifier,
    scratch_name,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.fence import fence
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.leftovers import leftovers
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.baseline import backup_to_revert_to
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor
from support.databases import OWNER, PASSWORD
from support.module_runner import run_module
from support.prisma_project import SCHEMA, PrismaProject, tools

DIRECTORY = BackupOptions(format="directory", jobs=2)


def test_a_directory_comes_back_as_a_file_does(realistic):
    place = realistic.backup(form=DIRECTORY)
    manifest = manifests.load(place)
    found = manifest.archive
    assert (found.file, found.format, found.jobs, found.plain) == ("archive", "directory", 2, None)
    files = sorted(os.listdir(place.file("archive")))
    assert "toc.dat" in files and len(files) > 10
    assert found.size == sum(os.path.getsize(place.file("archive/" + name)) for name in files)
    assert {"archive/" + name for name in files} <= set(manifest.files)
    assert stat.S_IMODE(os.stat(place.file("archive")).st_mode) == 0o700
    assert {stat.S_IMODE(os.stat(place.file("archive/" + name)).st_mode) for name in files} == {0o600}
    assert verify(realistic.site, place, "readable").level == "readable"
    facts = verify(realistic.site, place, "restored")
    assert facts.rows == manifest.rows
    assert manifests.level_of(place) == "restored"


@pytest.mark.fault(
    "archive", "directory format: a file cut by one byte, or gone", by="size and list of files in the manifest"
)
def test_a_file_of_a_directory_that_was_damaged_or_lost(plain):
    place = plain.backup(form=DIRECTORY)
    largest = max(pathlib.Path(place.file("archive")).glob("*.dat*"), key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    largest.write_bytes(whole[:-1])
    with pytest.raises(BackstopError, match="was changed") as caught:
        verify(plain.site, place, "checksum")
    assert largest.name in caught.value.found
    largest.unlink()
    with pytest.raises(BackstopError, match="lacks a file"):
        verify(plain.site, place, "restored")


def test_jobs_need_a_directory(plain):
    for form in (BackupOptions(jobs=2), BackupOptions(format="tar"), BackupOptions(format="directory", jobs=0)):
        with pytest.raises(Refused):
            plain.backup(form=form)
    with pytest.raises(Refused, match="not of both"):
        plain.backup(form=BackupOptions(schema_only=True, tables=["User"]))
    assert not os.path.exists(plain.store.root)


def psql(live, database, path):
    argv = [str(live.cluster.bin_dir / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", path]
    return subprocess.run(
        argv, env={**os.environ, **live.cluster.environment(database)}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("format", ["custom", "directory"])
def test_plain_sql_is_the_same_and_is_in_the_manifest(plain, format):
    place = plain.backup(form=BackupOptions(format=format, plain=True))
    manifest = manifests.load(place)
    assert manifest.archive.plain == "plain.sql" and "plain.sql" in manifest.files
    path = place.file("plain.sql")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    copy = scratch_name(new_id(), "plain")
    plain.execute("CREATE DATABASE %s TEMPLATE template0 OWNER %s" % (quote_identifier(copy), OWNER), "postgres")
    done = psql(plain, copy, path)
    assert done.returncode == 0, done.stderr
    digest = 'SELECT count(*), sum(hashtextextended((r__.*)::text, 0)::numeric) FROM "TokenPurchase" r__'
    assert plain.rows(digest, copy) == plain.rows(digest)
    with open(path, "ab") as stream:
        stream.write(b"-- harmless?\n")
    with pytest.raises(BackstopError, match="was changed"):
        verify(plain.site, place, "checksum")


@pytest.mark.prisma
def test_prismas_schema_is_kept_as_sql(plain, tmp_path):
    schema = SCHEMA + "model Kept {\n  id Int @id\n}\n"
    project = PrismaProject.create(tmp_path / "release", {}, schema=schema)
    arguments = {
        "connection": {"url": plain.cluster.url("shop", user=OWNER)},
        "store": plain.store.root,
        "client_bin_dir": str(plain.cluster.bin_dir),
        "prisma": {
            "project": str(project.path),
            "node_bin_dir": str(tools().node.bin_dir),
            "environment": tools().environment,
        },
    }
    answer = run_module(tmp_path, "pg_dump", arguments)
    assert not answer.failed, answer.printed
    place = plain.store.find_backup(answer.result["backup"])
    assert 'CREATE TABLE "Kept"' in pathlib.Path(place.file("prisma-schema.sql")).read_text("utf-8")
    assert "prisma-schema.sql" in manifests.load(place).files and PASSWORD not in answer.printed


# The schema only


@pytest.fixture
def schema(plain):
    return plain.backup(form=BackupOptions(schema_only=True, plain=True))


def test_the_schema_alone_has_every_definition_and_no_row(plain, schema):
    manifest = manifests.load(schema)
    assert (manifest.scope, manifest.tables, manifest.sequences) == ("schema", (), {})
    with plain.site.connect() as session:
        assert manifest.definitions == definitions.definitions(session)
    text = pathlib.Path(schema.file("plain.sql")).read_text("utf-8")
    assert 'CREATE TABLE public."TokenPurchase"' in text and "COPY " not in text and "p000001" not in text
    assert manifests.level_of(schema) == "readable"
    assert verify(plain.site, schema, "readable").level == "readable"


def test_the_schema_alone_is_never_taken_for_a_full_backup(plain, schema):
    refused = "holds the schema and no row"
    with pytest.raises(Refused, match=refused):
        verify(plain.site, schema, "restored")
    assert manifests.level_of(schema) == "readable", "that it is none for a drill says nothing against it"
    with pytest.raises(Refused, match=refused):
        build_successor(plain.begun("rollback"), schema)
    with pytest.raises(Refused, match=refused):
        backup_to_revert_to(plain.site, schema.backup_id)
    with pytest.raises(Refused, match="no backup"):
        backup_to_revert_to(plain.site, None)
    with pytest.raises(Refused, match=refused):
        fence(plain.site, schema, 0)
    with plain.site.connect() as session, pytest.raises(Refused, match=refused):
        leftovers(plain.site, session, schema)
    assert reusable_backup(plain.site, "pre-migration", 3600, BackupOptions()) is None
    whole = plain.backup()
    assert backup_to_revert_to(plain.site, None).backup_id == whole.backup_id


# Reusing a backup


def age(place, seconds):
    """Make a backup older."""
    path = pathlib.Path(place.file("manifest.json"))
    manifest = json.loads(path.read_text())
    manifest["created"] = timestamp(utc_now() - datetime.timedelta(seconds=seconds))
    path.write_text(json.dumps(manifest))
    manifests.record_verification(place, "readable", {"passed": True, "method": "as before"})


def reused(live, max_age=3600, form=None, kind="pre-migration", commit=None):
    found = reusable_backup(live.site, kind, max_age, form or BackupOptions(), commit)
    return found.backup_id if found else None


def test_a_young_backup_is_used_again(plain):
    assert reused(plain) is None
    place = plain.backup()
    assert reused(plain) == place.backup_id
    assert reused(plain, kind="daily") is None and reused(plain, commit="a" * 40) is None
    assert reused(plain, form=BackupOptions(plain=True)) is None and reused(plain, form=DIRECTORY) is None
    age(place, 7200)
    assert reused(plain) is None and reused(plain, max_age=7300) == place.backup_id


def test_the_newest_is_used(plain):
    first, second = plain.backup(), plain.backup()
    age(first, 100)
    assert reused(plain) == second.backup_id
    age(second, 200)
    assert reused(plain) == first.backup_id


def test_another_history_or_database_needs_another_backup(plain, databases):
    plain.backup()
    assert reused(databases.make("other")) is None
    plain.execute("UPDATE _prisma_migrations SET rolled_back_at = now()")
    assert reused(plain) is None
    plain.execute("UPDATE _prisma_migrations SET rolled_back_at = NULL")
    assert reused(plain) is not None
    plain.execute("DROP TABLE _prisma_migrations")
    assert reused(plain) is None


def test_a_damaged_backup_is_not_used(plain):
    place = plain.backup()
    with open(place.file("roles.sql"), "ab") as stream:
        stream.write(b"x")
    assert reused(plain) is None


def test_a_drill_is_believed_while_it_is_young_and_no_file_changed(plain):
    place = plain.backup()
    assert verified_before(place, "restored", 3600) is None
    drilled = verify(plain.site, place, "restored")
    found = verified_before(place, "restored", 3600)
    assert found.verified_at and found.role == OWNER and "scratch database" in found.method
    assert found == dataclasses.replace(drilled, verified_at=found.verified_at, database=None, oid=None)
    assert verified_before(place, "restored", 0) is None
    with open(place.file("roles.sql"), "ab") as stream:
        stream.write(b"x")
    with pytest.raises(BackstopError, match="was changed"):
        verified_before(place, "restored", 3600)
    assert manifests.level_of(place) is None


def test_the_modules_change_nothing_the_second_time(plain, tmp_path):
    connection = {"url": plain.cluster.url("shop", user=OWNER)}
    common = {"connection": connection, "store": plain.store.root, "client_bin_dir": str(plain.cluster.bin_dir)}
    # A release from before the first migration has no migrations folder.
    arguments = {**common, "format": "directory", "jobs": 2, "plain": True, "max_age": 3600}
    arguments["migrations_path"] = str(tmp_path / "none")
    first = run_module(tmp_path, "pg_dump", arguments)
    assert not first.failed and first.result["changed"] and not first.result["reused"], first.printed
    assert "The backup holds no migrations: there is no folder" in " ".join(first.printed.split())
    for check in (True, False):
        second = run_module(tmp_path, "pg_dump", arguments, check=check)
        assert not second.result["changed"] and second.result["reused"]
        assert second.result["backup"] == first.result["backup"]
    assert os.path.isfile(first.result["plain"])
    wanted = {**common, "backup": first.result["backup"], "max_age": 3600}
    assert run_module(tmp_path, "pg_backup_verify", wanted, check=True).result["changed"]
    assert run_module(tmp_path, "pg_backup_verify", wanted).result["changed"]
    again = run_module(tmp_path, "pg_backup_verify", wanted)
    assert not again.result["changed"] and again.result["reused"] and again.result["rows"] > 900
    assert PASSWORD not in first.printed + again.printed
