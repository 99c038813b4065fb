# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups that were changed after they were made: detected before they are used."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import shutil

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import build_database
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import BackupPlace


@pytest.fixture(scope="module")
def drilled(shared_databases):
    """A database and a backup of it that was restored and found equal."""
    live = shared_databases.make("shop")
    place = live.backup(migrations={"20251001000000_init/migration.sql": b"CREATE TABLE x ();\n"})
    verify(live.site, place, "restored")
    return live, place


@pytest.fixture
def backup(drilled, tmp_path):
    """A copy of the backup that a test may damage, and its database."""
    live, place = drilled
    copy = BackupPlace(place.kind, place.backup_id, str(tmp_path / place.backup_id))
    shutil.copytree(place.path, copy.path)
    assert manifests.level_of(copy) == "restored"
    return live, copy


def path_of(place, name="archive.dump"):
    return pathlib.Path(place.file(name))


@contextlib.contextmanager
def found_at_every_level(live, place, told):
    """Each use of the backup is refused, no database is left, and the backup is not listed as verified any more."""
    yield
    for level in manifests.LEVELS:
        with pytest.raises(BackstopError) as caught:
            verify(live.site, place, level)
        assert told in str(caught.value)
    with pytest.raises(BackstopError):
        build_database(live.site, place, "backstop_scratch_damaged")
    assert live.names() == [live.name]
    assert manifests.level_of(place) is None


@pytest.mark.fault("archive", "custom format, gzip: one bit changed", by="sha256")
def test_bit_flips_in_the_archive(backup, seed, tried):
    """Only a checksum finds all of them: pg_restore --list finds few, and a full read misses some."""
    live, place = backup
    chance = random.Random(seed)
    path = path_of(place)
    good = path.read_bytes()
    manifest = manifests.load(place)
    for _flip in range(60):
        bad = bytearray(good)
        position = chance.randrange(len(bad))
        bad[position] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(bad))
        with pytest.raises(BackstopError, match="was changed"):
            manifests.check_files(place, manifest)
        tried()
    with found_at_every_level(live, place, "archive.dump has sha256"):
        pass
    path.write_bytes(good)
    verify(live.site, place, "restored")
    assert manifests.level_of(place) == "restored"


@pytest.mark.parametrize("cut", [1, 0.25, 0.5, 0.99, "all"])
def test_truncated_archive(backup, cut):
    live, place = backup
    size = path_of(place).stat().st_size
    kept = 0 if cut == "all" else size - 1 if cut == 1 else int(size * cut)
    with found_at_every_level(live, place, "archive.dump has %d bytes" % kept):
        os.truncate(path_of(place), kept)


@pytest.mark.fault("archive", "a file of a backup longer, or gone", by="size and list of files in the manifest")
@pytest.mark.parametrize(
    "name", ["archive.dump", "roles.sql", "history.json", "migrations/20251001000000_init/migration.sql"]
)
def test_a_file_with_something_added_or_gone(backup, name):
    live, place = backup
    with path_of(place, name).open("ab") as stream:
        stream.write(b"\n")
    with found_at_every_level(live, place, "%s has " % name):
        pass
    path_of(place, name).unlink()
    with found_at_every_level(live, place, "no " + name):
        pass


def edit(place, change):
    path = path_of(place, "manifest.json")
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")


@pytest.mark.fault(
    "archive", "a digest edited in the manifest", by="sha256 of the manifest in the verification, then the drill"
)
def test_an_edited_manifest_voids_the_verification(backup):
    """The verification applies to the manifest at that time."""
    live, place = backup
    edit(place, lambda manifest: manifest["tables"][0]["digest"].update(rows=1))
    assert manifests.level_of(place) is None
    with pytest.raises(BackstopError, match="The restored backup differs from its source") as caught:
        verify(live.site, place, "restored")
    assert "rows, not 1" in caught.value.found
    assert manifests.level_of(place) is None
    assert live.names() == [live.name]


@pytest.mark.fault("archive", "a manifest of an unknown format", by="the manifest's format")
@pytest.mark.parametrize("version", [2, 0, "1", None, 1.5])
def test_a_format_that_is_not_known(backup, version):
    _live, place = backup
    edit(place, lambda manifest: manifest.update(format=version))
    with pytest.raises(Refused, match="a format that this version does not know") as caught:
        manifests.load(place)
    assert caught.value.found == repr(version) and caught.value.expected == "1"


@pytest.mark.fault("archive", "a manifest that is empty, torn or no JSON", by="reading the manifest")
@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}', "\0", "\udcff"])
def test_a_manifest_that_is_none(backup, text):
    _live, place = backup
    path_of(place, "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BackstopError, match="[Mm]anifest of backup"):
        manifests.load(place)


@pytest.mark.fault("archive", "a manifest that lacks a part", by="reading the manifest")
@pytest.mark.parametrize("key", ["id", "created", "database", "server", "archive", "files", "tables", "snapshot"])
def test_a_manifest_that_lacks_a_part(backup, key):
    _live, place = backup
    edit(place, lambda manifest: manifest.pop(key))
    with pytest.raises(BackstopError, match="is incomplete") as caught:
        manifests.load(place)
    assert key in caught.value.found


@pytest.mark.fault("archive", "a manifest of another major version", by="refused before the restore")
def test_a_backup_of_another_major_version(backup):
    live, place = backup
    edit(place, lambda manifest: manifest["server"].update(major=12))
    with pytest.raises(Refused, match="another major version"):
        build_database(live.site, place, "backstop_scratch_other")
    assert live.names() == [live.name]


@pytest.mark.fault("archive", "a verification that is torn", by="reading the verification")
def test_a_verification_that_cannot_be_read(backup):
    _live, place = backup
    path_of(place, "verification.json").write_text("{")
    with pytest.raises(BackstopError, match="verification of backup"):
        manifests.level_of(place)
