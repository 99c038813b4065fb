# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Encrypted backups: no plaintext on disk, verified as far as possible without a private key, and completely with
one. With real age."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import stat
import tempfile

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups import make as backup_module
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.cluster_drill import run_cluster_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.comparison import compare_tables
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.options import BackupOptions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import restore_beside
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.reuse import reusable_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import encryption
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import sha256_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import (
    BackstopError,
    CouldNotVerify,
    Refused,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.archive import start_dump
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import revert_in_place
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    restore_table,
)
from support.age_keys import Key, make_key
from support.databases import OWNER, REALISTIC
from support.module_runner import run_module

pytestmark = pytest.mark.offsite

#: In a row, a role's settings and the log of a failed migration.
SECRET = "kept-from-everybody"


@pytest.fixture
def key(tmp_path) -> Key:
    return make_key(tmp_path)


@pytest.fixture
def secret(plain, key):
    """A database with a secret in a row, whose backups are encrypted; no private key is on this host."""
    plain.execute("""INSERT INTO "User" ("id", "email", "name") VALUES ('s1', '%s', '')""" % SECRET)
    return dataclasses.replace(plain, site=dataclasses.replace(plain.site, recipients=(key.recipient,)))


def with_identity(live, path):
    return dataclasses.replace(live.site, identity=path)


def holds_secret(folder):
    return [path for path in pathlib.Path(folder).rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_a_backup_is_encrypted_while_it_is_written(secret, key, monkeypatch):
    seen = []

    def started(*arguments, **keywords):
        assert arguments[2] is None, "pg_dump was given a file"
        seen.append(arguments)
        return start_dump(*arguments, **keywords)

    monkeypatch.setattr(backup_module.archive, "start_dump", started)
    place = make_backup(secret.site, "daily")
    assert seen
    manifest = manifests.load(place)
    assert manifest.archive.file == "archive.dump.age" and manifest.archive.recipients == (key.recipient,)
    assert manifest.to_json()["archive"]["encryption"] == {"tool": "age", "recipients": [key.recipient]}
    found = {path.name for path in pathlib.Path(place.path).iterdir()}
    assert found == {"archive.dump.age", "roles.sql.age", "history.json", "manifest.json", "verification.json"}
    for name in ("archive.dump.age", "roles.sql.age"):
        assert pathlib.Path(place.file(name)).read_bytes().startswith(b"age-encryption.org/v1\n")
        assert stat.S_IMODE(os.stat(place.file(name)).st_mode) == 0o600
    assert holds_secret(place.path) == []
    roles = encryption.decrypt(encryption.Encrypted(place.file("roles.sql.age"), key.identity))
    assert b"PostgreSQL database cluster dump complete" in roles


def test_what_failed_migrations_said_of_rows_is_in_the_archive_alone(secret):
    secret.execute(
        "INSERT INTO _prisma_migrations (id, checksum, migration_name, started_at, applied_steps_count, logs)"
        " VALUES ('l1', 'c', '20250101000000_bad', now(), 0, 'Key (email)=(%s) exists')" % SECRET
    )
    place = make_backup(secret.site, "daily")
    assert holds_secret(place.path) == []
    rows = json.loads(pathlib.Path(place.file("history.json")).read_text("utf-8"))
    assert [row["logs"] for row in rows if row["id"] == "l1"] == [None]


def test_level_without_an_identity(secret):
    """It was read while it was written; after that only its checksum can be verified."""
    place = make_backup(secret.site, "daily")
    verified = manifests.verification(place)["levels"]
    assert manifests.level_of(place) == "readable" and "while it was encrypted" in verified["readable"]["method"]
    assert verify(secret.site, place, "checksum").level == "checksum"
    for level in ("readable", "restored"):
        with pytest.raises(CouldNotVerify, match="no identity"):
            verify(secret.site, place, level)
    assert manifests.level_of(place) == "readable" and secret.names() == [secret.name]


def test_everything_with_an_identity(secret, key):
    place = make_backup(secret.site, "pre-migration")
    site = with_identity(secret, key.identity)
    assert verify(site, place, "readable").level == "readable"
    assert verify(site, place, "restored").level == "restored"
    assert manifests.level_of(place) == "restored"
    restored = restore_beside(site, place, "brought_back", new_id()).database
    with site.connect(restored) as session:
        assert compare_tables(session, manifests.load(place)).tables == []


def test_a_realistic_database_with_large_objects(databases, key):
    live = databases.make("shop", REALISTIC, user=None)
    site = dataclasses.replace(live.site, recipients=(key.recipient,), identity=key.identity)
    place = make_backup(site, "daily")
    assert verify(site, place, "restored").level == "restored"


def test_the_drill_in_a_scratch_cluster_reads_the_roles(secret, key):
    place = make_backup(secret.site, "daily")
    with tempfile.TemporaryDirectory(prefix="backstop-test-", dir="/var/tmp") as folder:
        os.chmod(folder, 0o711)
        with pytest.raises(CouldNotVerify, match="no identity"):
            run_cluster_drill(secret.site, place, folder)
        assert run_cluster_drill(with_identity(secret, key.identity), place, folder).tables > 1


def changed(live):
    live.execute("""UPDATE "User" SET "name" = 'other'""")


def test_a_table_is_restored(secret, key):
    place = make_backup(secret.site, "daily")
    changed(secret)
    wanted = TableRestoreRequest("User", policy=LossPolicy(10**9))
    refused = secret.begun("rollback", {"scenario": "corrupted_table"})
    with pytest.raises(CouldNotVerify, match="no identity"):
        restore_table(refused, wanted, place.backup_id)
    refused.operation.close("abandoned")
    site = dataclasses.replace(
        secret.begun("rollback", {"scenario": "corrupted_table", "again": True}), identity=key.identity
    )
    assert restore_table(site, wanted, place.backup_id).changed
    assert secret.value("""SELECT count(*) FROM "User" WHERE "name" = 'other'""") == 0


def revert_by_swap(site, place, policy):
    build_successor(site, place)
    return revert(site, place, policy)


@pytest.mark.parametrize("act", [revert_by_swap, revert_in_place])
def test_a_revert(secret, key, act):
    place = make_backup(secret.site, "pre-migration")
    changed(secret)
    refused = secret.begun("rollback", {"scenario": "complete"})
    with pytest.raises(CouldNotVerify, match="no identity"):
        act(refused, place, LossPolicy(10**9))
    refused.operation.close("abandoned")
    assert secret.value("""SELECT count(*) FROM "User" WHERE "name" = 'other'""") > 0
    site = dataclasses.replace(secret.begun("rollback", {"scenario": "complete", "again": True}), identity=key.identity)
    assert act(site, place, LossPolicy(10**9)).changed
    assert secret.value("""SELECT count(*) FROM "User" WHERE "name" = 'other'""") == 0
    # Rows of the live database that it saved are encrypted too.
    assert all(manifests.load(one).is_encrypted for one in secret.store.backups())


def test_single_tables(secret, key):
    """Its table of contents is read from the stream."""
    place = make_backup(secret.site, "daily", form=BackupOptions(tables=["User"]))
    manifest = manifests.load(place)
    assert manifest.scope == "tables" and manifest.table_names == ["public.User"]
    assert verify(with_identity(secret, key.identity), place, "readable")


def test_another_identity_says_nothing_against_the_backup(secret, tmp_path):
    place = make_backup(secret.site, "daily")
    other = make_key(tmp_path, "other.txt")
    with pytest.raises(CouldNotVerify, match="is not a recipient"):
        verify(with_identity(secret, other.identity), place, "restored")
    assert manifests.level_of(place) == "readable" and secret.names() == [secret.name]


@pytest.mark.parametrize("content", ["nonsense\n", "AGE-SECRET-KEY-1QQQQ\n", ""])
def test_an_identity_that_is_none(secret, tmp_path, content):
    place = make_backup(secret.site, "daily")
    path = tmp_path / "bad.txt"
    path.touch(0o600)
    path.write_text(content, "utf-8")
    with pytest.raises(CouldNotVerify) as caught:
        verify(with_identity(secret, str(path)), place, "readable")
    assert "QQQQ" not in str(caught.value) and "nonsense" not in str(caught.value)
    assert manifests.level_of(place) == "readable"


def test_an_identity_that_others_can_read(secret, key):
    place = make_backup(secret.site, "daily")
    os.chmod(key.identity, 0o644)
    with pytest.raises(Refused, match="0644"):
        verify(with_identity(secret, key.identity), place, "readable")


def test_a_damaged_one(secret, key):
    place = make_backup(secret.site, "daily")
    path = pathlib.Path(place.file("archive.dump.age"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BackstopError, match="sha256"):
        verify(with_identity(secret, key.identity), place, "readable")
    # If the manifest was changed to match, age detects it.
    manifest = manifests.load(place).to_json()
    manifest["files"]["archive.dump.age"] = {"size": path.stat().st_size, "sha256": sha256_of(str(path))}
    pathlib.Path(place.file("manifest.json")).write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(BackstopError, match="cannot be decrypted") as caught:
        verify(with_identity(secret, key.identity), place, "readable")
    assert not isinstance(caught.value, CouldNotVerify) and "report unexpected" not in str(caught.value)
    assert manifests.level_of(place) is None


@pytest.mark.parametrize("form", [BackupOptions(plain=True), BackupOptions(format="directory", jobs=2)])
def test_forms_that_cannot_be_encrypted(secret, form):
    with pytest.raises(Refused, match="An encrypted backup is one file"):
        make_backup(secret.site, "daily", form=form)
    assert secret.store.backups() == []


@pytest.mark.parametrize("given", ["AGE-SECRET-KEY-1ABC", "age1short", "someone@example.com", "-o/etc/passwd"])
def test_recipients_that_are_none(secret, given):
    with pytest.raises(Refused, match="not a public key") as caught:
        make_backup(dataclasses.replace(secret.site, recipients=(given,)), "daily")
    assert given not in str(caught.value) and secret.store.backups() == []


def test_a_well_formed_recipient_that_is_none(secret, key):
    """Only age can detect it: its error is shown, and nothing is left."""
    wrong = key.recipient[:-1] + ("q" if key.recipient[-1] != "q" else "p")
    with pytest.raises(BackstopError, match="age could not encrypt"):
        make_backup(dataclasses.replace(secret.site, recipients=(wrong,)), "daily")
    assert list(pathlib.Path(secret.store.root, "daily").iterdir()) == []


def test_age_is_missing(secret, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="age is missing"):
        make_backup(secret.site, "daily")


@pytest.mark.fault("backup", "age ends while it encrypts", by="its exit status")
def test_age_dies(secret, monkeypatch, tmp_path):
    """pg_dump ends too, instead of waiting forever for a reader."""
    broken = tmp_path / "bin" / "age"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nhead -c 1000 >/dev/null\necho no more >&2\nexit 7\n", "utf-8")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", "%s:%s" % (broken.parent, os.environ["PATH"]))
    with pytest.raises(BackstopError, match="age could not encrypt.*no more"):
        make_backup(secret.site, "daily")
    assert secret.store.backups() == [] and list(pathlib.Path(secret.store.root, "daily").iterdir()) == []


@pytest.mark.fault("backup", "disk full while age encrypts", by="its exit status")
def test_a_full_disk(secret, monkeypatch):
    """age's own output can no longer be written."""
    original = encryption.os.open

    def opened(path, *arguments, **keywords):
        return original("/dev/full" if str(path).endswith("archive.dump.age") else path, *arguments, **keywords)

    monkeypatch.setattr(encryption.os, "open", opened)
    # Only root may change the mode of /dev/full.
    monkeypatch.setattr(encryption.os, "fchmod", lambda _descriptor, _mode: None)
    with pytest.raises(BackstopError, match="No space left"):
        make_backup(secret.site, "daily")
    assert secret.store.backups() == []


@pytest.mark.fault("backup", "pg_dump fails while age encrypts", by="its exit status")
def test_pg_dump_fails(secret, monkeypatch):
    tools = shutil.which("false")

    def failing(found, *arguments, **keywords):
        return start_dump(dataclasses.replace(found, pg_dump=tools), *arguments, **keywords)

    monkeypatch.setattr(backup_module.archive, "start_dump", failing)
    with pytest.raises(BackstopError, match="pg_dump could not write"):
        make_backup(secret.site, "daily")
    assert secret.store.backups() == []


def test_only_one_encrypted_for_the_same_keys_is_used_again(secret, plain, key, tmp_path):
    place = make_backup(secret.site, "daily")
    assert reusable_backup(secret.site, "daily", 3600, BackupOptions()) == place
    assert reusable_backup(plain.site, "daily", 3600, BackupOptions()) is None
    other = make_key(tmp_path, "other.txt")
    both = dataclasses.replace(secret.site, recipients=(other.recipient, key.recipient))
    assert reusable_backup(both, "daily", 3600, BackupOptions()) is None


def test_two_recipients(plain, key, tmp_path):
    other = make_key(tmp_path, "other.txt")
    site = dataclasses.replace(plain.site, recipients=(key.recipient, other.recipient))
    place = make_backup(site, "daily")
    for identity in (key.identity, other.identity):
        assert verify(with_identity(plain, identity), place, "readable")


def test_the_modules(plain, key, tmp_path):
    common = {
        "connection": {"url": plain.cluster.url("shop", user=OWNER)},
        "store": plain.store.root,
        "client_bin_dir": str(plain.cluster.bin_dir),
        "age_recipients": [key.recipient],
    }
    made = run_module(tmp_path, "pg_dump", {**common, "kind": "daily"})
    assert not made.failed and made.result["encrypted"] and made.result["level"] == "readable", made.printed
    drill = {**common, "backup": made.result["backup"]}
    refused = run_module(tmp_path, "pg_backup_verify", drill)
    assert refused.failed and refused.result["error"] == "CouldNotVerify", refused.printed
    assert "backstop_age_identity" in refused.result["hint"]
    drilled = run_module(tmp_path, "pg_backup_verify", {**drill, "age_identity": key.identity})
    assert not drilled.failed and drilled.result["level"] == "restored", drilled.printed
    assert key.secret not in made.printed + refused.printed + drilled.printed
