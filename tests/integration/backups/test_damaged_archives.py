# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives of every kind, damaged in every way: none is taken for a good one.

What happens after the backup was made is found by size or sha256. What happened before, so that the manifest has the
sums of the damaged file, is found when the archive is decoded or when its restore is compared; what neither finds is
proved to be harmless by that comparison.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import random
import re
import shutil

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.options import BackupOptions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import build_database
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import sha256_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.processes import run
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import archive
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from demo.postgres_server import default_wheel_directory, find_bin_dir, major_of, server_account
from support.age_keys import make_key
from support.reliability import times

SERVER = find_bin_dir(default_wheel_directory())


def offered(method: str) -> bool:
    """Whether this machine's pg_dump has a method of compression; before version 16 it has gzip alone."""
    if (major_of(SERVER, server_account()) or 0) < 16:
        return False
    argv = [str(SERVER / "pg_dump"), "-w", "-Fc", "--compress=" + method, "-d", "host=/nonexistent/backstop"]
    return "compression" not in run(argv, timeout=30).stderr


#: Values for --compress.
COMPRESSIONS = {"0": "not compressed", "1": "gzip", **{one: one for one in ("lz4", "zstd") if offered(one)}}
CUSTOM = {"custom format, " + name: value for value, name in COMPRESSIONS.items()}
FORMS = [*CUSTOM, "directory format", "plain SQL", pytest.param("encrypted", marks=pytest.mark.offsite)]


@dataclasses.dataclass
class Backup:
    """A backup and the file of it that a test damages."""

    live: object
    site: object
    place: object
    file: str

    @property
    def path(self):
        return pathlib.Path(self.place.file(self.file))

    def found_at(self, level):
        """What verify() says at a level; None if it finds nothing."""
        try:
            verify(self.site, self.place, level)
        except BackstopError as error:
            return error
        return None


@pytest.fixture(scope="module")
def kept(shared_databases, tmp_path_factory):
    """Makes one backup of each form, once."""
    live = shared_databases.make("shop")
    made = {}

    def backup(form, monkeypatch):
        if form not in made:
            site, options, name = live.site, BackupOptions(), "archive.dump"
            if form in CUSTOM:
                monkeypatch.setattr(archive, "choose_compression", lambda tools: CUSTOM[form])
            elif form == "directory format":
                options = BackupOptions(format="directory", jobs=2)
            elif form == "plain SQL":
                options, name = BackupOptions(plain=True), "plain.sql"
            else:
                key = make_key(tmp_path_factory.mktemp("key"))
                site = dataclasses.replace(site, recipients=(key.recipient,), identity=key.identity)
                name = "archive.dump.age"
            place = make_backup(site, "daily", form=options)
            if form == "directory format":
                files = pathlib.Path(place.file("archive")).glob("*.dat*")
                name = "archive/" + max(files, key=lambda path: path.stat().st_size).name
            made[form] = Backup(live, site, place, name)
        return made[form]

    return backup


@pytest.fixture
def backup(kept, form, monkeypatch, tmp_path):
    """A copy that the test may damage."""
    found = kept(form, monkeypatch)
    path = str(tmp_path / found.place.backup_id)
    shutil.copytree(found.place.path, path)
    copy = dataclasses.replace(found, place=dataclasses.replace(found.place, path=path))
    assert copy.found_at("checksum") is None
    return copy


def never_used(backup, error):
    """The damage was found; the backup is not listed as verified, and nothing is restored from it."""
    assert error is not None and manifests.level_of(backup.place) is None
    with pytest.raises(BackstopError):
        build_database(backup.site, backup.place, "backstop_scratch_damaged")
    assert backup.live.names() == [backup.live.name]


@pytest.mark.fault("archive", "cut at each sixteenth, by one byte; one byte added", by="size")
@pytest.mark.parametrize("form", FORMS)
def test_another_length(backup, tried):
    whole = backup.path.read_bytes()
    lengths = {len(whole) * part // 16 for part in range(16)} | {len(whole) - 1}
    assert len(lengths) == 17
    for content in [*(whole[:length] for length in sorted(lengths)), whole + b"\0"]:
        backup.path.write_bytes(content)
        assert "%d bytes" % len(content) in backup.found_at("checksum").found
        tried()
    never_used(backup, backup.found_at("restored"))
    backup.path.write_bytes(whole)
    assert backup.found_at("readable") is None


@pytest.mark.fault("archive", "one bit changed", by="sha256")
@pytest.mark.parametrize("form", FORMS)
def test_one_bit(backup, tried, seed):
    chance, whole = random.Random(seed), backup.path.read_bytes()
    for _flip in range(times(20, 400)):
        backup.path.write_bytes(flipped(whole, chance))
        assert "has sha256" in backup.found_at("checksum").found
        tried()
    never_used(backup, backup.found_at("restored"))
    backup.path.write_bytes(whole)
    assert backup.found_at("readable") is None


def flipped(whole, chance):
    bad = bytearray(whole)
    bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
    return bytes(bad)


@pytest.mark.fault("archive", "a block of 512 bytes overwritten with zeros", by="sha256")
@pytest.mark.parametrize("form", FORMS)
def test_a_block_of_zeros(backup, tried, seed):
    chance, whole = random.Random(seed), backup.path.read_bytes()
    blocks = range(0, len(whole), 512)
    for start in chance.sample(blocks, min(len(blocks), times(5, 200))):
        bad = whole[:start] + bytes(len(whole[start : start + 512])) + whole[start + 512 :]
        assert bad != whole
        backup.path.write_bytes(bad)
        assert "has sha256" in backup.found_at("checksum").found
        tried()
    never_used(backup, backup.found_at("restored"))


def adapt(backup):
    """Give the manifest the sums of the damaged file, as if it had been damaged before they were computed."""
    path = pathlib.Path(backup.place.file("manifest.json"))
    manifest = json.loads(path.read_text("utf-8"))
    manifest["files"][backup.file] = {"size": backup.path.stat().st_size, "sha256": sha256_of(str(backup.path))}
    path.write_text(json.dumps(manifest), "utf-8")


DECODED, COMPARED = "the whole archive decoded", "the drill: restored and compared"
HARMLESS = "harmless: restored, and every row and definition equal"
DRILLED = [*CUSTOM, "directory format", pytest.param("encrypted", marks=pytest.mark.offsite)]


@pytest.mark.fault("archive", "one bit changed before the manifest was written", by=DECODED)
@pytest.mark.parametrize("form", DRILLED)
def test_one_bit_before_its_sum_was_computed(backup, form, tried, seed):
    chance, whole = random.Random(seed), backup.path.read_bytes()
    levels = set()
    for _flip in range(times(4, 60)):
        backup.path.write_bytes(flipped(whole, chance))
        adapt(backup)
        assert backup.found_at("checksum") is None
        if backup.found_at("readable"):
            tried(by=DECODED)
            levels.add(DECODED)
        elif backup.found_at("restored"):
            tried(by=COMPARED)
        else:
            # Times and versions in the archive's head, or unused bits: what comes back is exactly what was there.
            assert manifests.level_of(backup.place) == "restored"
            tried(by=HARMLESS)
        assert backup.live.names() == [backup.live.name]
    if form == "encrypted":
        assert levels == {DECODED}, "age authenticates every byte"
    backup.path.write_bytes(whole)
    adapt(backup)
    assert backup.found_at("restored") is None


@pytest.mark.fault("archive", "the archive of another backup in its place", by="sha256")
@pytest.mark.parametrize("form", DRILLED)
def test_files_of_two_backups_exchanged(backup, tried, kept, tmp_path, monkeypatch):
    """Both are sound, and of the same size or nearly."""
    other = kept("custom format, gzip", monkeypatch)
    backup.live.execute('UPDATE "User" SET "name" = \'another\' WHERE "id" = \'u1\'')
    try:
        other = dataclasses.replace(other, place=make_backup(backup.live.site, "daily"))
    finally:
        backup.live.execute('UPDATE "User" SET "name" = \'User 1\' WHERE "id" = \'u1\'')
    name = manifests.load(backup.place).archive.file
    for exchanged in ("manifest.json", name):
        target = pathlib.Path(backup.place.file(exchanged))
        kept_aside = tmp_path / "aside"
        target.rename(kept_aside)
        source = other.place.file("archive.dump" if exchanged == name else exchanged)
        shutil.copyfile(source, str(target))
        assert backup.found_at("checksum") is not None
        tried(by="the id in the manifest" if exchanged == "manifest.json" else "sha256")
        os.unlink(str(target))
        kept_aside.rename(target)
    assert backup.found_at("checksum") is None


@pytest.mark.fault("archive", "another archive, and its sums in the manifest", by=COMPARED)
@pytest.mark.parametrize("form", ["custom format, gzip"])
@pytest.mark.parametrize(
    "change",
    [
        'UPDATE "User" SET "name" = \'another\' WHERE "id" = \'u1\'',
        'CREATE INDEX intruder ON "User" ((length("name")))',
    ],
)
def test_an_archive_that_was_replaced(backup, shared_databases, change):
    """A row or an object more: whoever replaced it could write the store."""
    forged = shared_databases.make("forged")
    forged.execute(change)
    try:
        place = make_backup(forged.site, "daily")
    finally:
        forged.execute('DROP DATABASE "forged"', "postgres")
    shutil.copyfile(place.file("archive.dump"), str(backup.path))
    adapt(backup)
    assert backup.found_at("readable") is None, "nothing but the drill can find it"
    assert re.search("differs from its source|could not be restored", str(backup.found_at("restored")))
    assert manifests.level_of(backup.place) != "restored"


@pytest.mark.fault("archive", "a manifest that is gone", by="no backup, listed as unreadable")
@pytest.mark.parametrize("form", ["custom format, gzip"])
def test_no_manifest(backup):
    os.unlink(backup.place.file("manifest.json"))
    for level in manifests.LEVELS:
        assert "manifest of backup" in str(backup.found_at(level))


ESCAPES = ["/etc/passwd", "../../other/archive.dump", "migrations/../../x", ""]


@pytest.mark.fault("input", "a manifest that names files outside its backup", by="refused when it is read")
@pytest.mark.parametrize("form", ["custom format, gzip"])
@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("where", ["archive", "plain", "files"])
def test_a_manifest_that_leaves_its_backup(backup, name, where):
    def change(manifest):
        if where == "files":
            manifest["files"][name] = {"size": 1, "sha256": "0"}
        else:
            manifest["archive"]["file" if where == "archive" else "plain"] = name

    edit(backup, change)
    assert "names a file outside of it" in str(backup.found_at("checksum"))


@pytest.mark.fault("archive", "a manifest that does not list its archive", by="refused when it is read")
@pytest.mark.parametrize("form", FORMS)
def test_a_manifest_without_its_archive(backup):
    edit(backup, lambda manifest: manifest["files"].pop(backup.file))
    error = backup.found_at("checksum")
    assert error is not None, "no sum is compared with the archive"
    assert ("has no file" if "/" in backup.file else "does not list") in str(error)


@pytest.mark.fault("archive", "the directories of two backups exchanged", by="the id in the manifest")
@pytest.mark.parametrize("form", ["custom format, gzip"])
def test_a_directory_with_another_name(backup, tmp_path):
    place = dataclasses.replace(backup.place, backup_id="shop-20250101T000000Z-abcdef")
    assert "is that of another backup" in str(dataclasses.replace(backup, place=place).found_at("checksum"))


def edit(backup, change):
    path = pathlib.Path(backup.place.file("manifest.json"))
    manifest = json.loads(path.read_text("utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), "utf-8")
