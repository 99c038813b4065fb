# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifest: what a backup holds, what must come back, what it does not cover. And how far it was verified."""

from __future__ import annotations

import dataclasses
import os
from typing import Any, Dict, Iterable, List, Optional, Tuple

from ..base.durable_files import read_json, sha256_of, write_json
from ..base.errors import BackstopError, CouldNotVerify, Refused
from ..base.progress import parse_timestamp, timestamp, utc_now
from .layout import BackupPlace

#: The major version of the manifest; readers refuse another one, writers may add fields within it.
FORMAT = 1
#: How far a backup is verified, each level including those before it.
LEVELS = ("checksum", "readable", "restored")
#: What a backup is of: the whole database, its definitions without a row, or single tables. A manifest without
#: ``scope`` is of the whole database.
WHOLE, SCHEMA, TABLES = "database", "schema", "tables"

_TYPES = {"created": str, "database": dict, "server": dict, "archive": dict, "files": dict, "tables": list}
_REQUIRED = ("id", "kind", "created", "database", "server", "archive", "files", "tables", "snapshot")


def load(place: BackupPlace) -> Dict[str, Any]:
    """Read and check a backup's manifest."""
    manifest = read_json(place.file("manifest.json"), "manifest of backup " + place.backup_id)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        raise Refused(
            "The manifest of backup %s has a format that this version does not know" % place.backup_id,
            found=repr(found),
            expected=str(FORMAT),
            hint="use the version of this collection that wrote it, or a newer one",
        )
    missing = [key for key in _REQUIRED if key not in manifest]
    if missing:
        raise BackstopError(
            "The manifest of backup %s is not whole" % place.backup_id, found="without " + ", ".join(missing)
        )
    wrong = [key for key, kind in _TYPES.items() if not isinstance(manifest[key], kind)]
    if wrong:
        found = "%s is %s" % (wrong[0], type(manifest[wrong[0]]).__name__)
        raise BackstopError("The manifest of backup %s is not as it should be" % place.backup_id, found=found)
    return manifest


@dataclasses.dataclass(frozen=True)
class Readable:
    """A backup whose manifest and verification can be read."""

    place: BackupPlace
    manifest: Dict[str, Any]
    level: Optional[str]


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A backup that cannot be used, and why. It must not hide the others, and nothing removes it but a person."""

    place: BackupPlace
    reason: str


def read_each(places: Iterable[BackupPlace]) -> Tuple[List[Readable], List[Unreadable]]:
    """Read the manifests of many backups: one that cannot be read is told, and stops nobody who does not need it."""
    good: List[Readable] = []
    bad: List[Unreadable] = []
    for place in places:
        try:
            manifest = load(place)
            parse_timestamp(manifest["created"])
            good.append(Readable(place, manifest, level_of(place)))
        except BackstopError as error:
            bad.append(Unreadable(place, str(error)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            bad.append(Unreadable(place, "its manifest or verification is not as it should be: %r" % error))
    return good, bad


def readable(places: Iterable[BackupPlace]) -> List[Readable]:
    """Those of many backups that can be chosen at all."""
    return read_each(places)[0]


def is_whole(manifest: Dict[str, Any]) -> bool:
    """Whether a backup is of the whole database. One of single tables or of the schema must never be taken for it."""
    return bool(manifest.get("scope", WHOLE) == WHOLE)


def is_encrypted(manifest: Dict[str, Any]) -> bool:
    return bool(manifest["archive"].get("encryption"))


def require_whole(manifest: Dict[str, Any]) -> None:
    """:raises Refused: the backup holds only single tables, or no row at all"""
    if is_whole(manifest):
        return
    if manifest["scope"] == SCHEMA:
        raise Refused(
            "Backup %s holds the schema and no row" % manifest["id"],
            found="scope schema",
            expected="a backup of the whole database",
            hint="choose another backup; pg_backup_info tells the scope of each",
        )
    names = ["%s.%s" % (table["schema"], table["name"]) for table in manifest["tables"]]
    raise Refused(
        "Backup %s holds only single tables" % manifest["id"],
        found="%s: %s" % (manifest["scope"], ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")),
        expected="a backup of the whole database",
        hint="restore these tables with rollback_corrupted_table.yml, or choose another backup",
    )


def check_files(place: BackupPlace, manifest: Dict[str, Any]) -> None:
    """Level ``checksum``: every file is there, of the size and sha256 that the manifest says.

    :raises BackstopError: names the file
    """
    for name, entry in sorted(manifest["files"].items()):
        path = place.file(name)
        if not os.path.isfile(path):
            raise BackstopError("Backup %s lacks a file" % place.backup_id, found="no " + name)
        size = os.path.getsize(path)
        if size != entry["size"]:
            raise BackstopError(
                "A file of backup %s was changed" % place.backup_id,
                found="%s has %d bytes" % (name, size),
                expected="%d bytes" % entry["size"],
                hint="use another backup; pg_backup_info lists them with their level",
            )
        found = sha256_of(path)
        if found != entry["sha256"]:
            raise BackstopError(
                "A file of backup %s was changed" % place.backup_id,
                found="%s has sha256 %s" % (name, found),
                expected=entry["sha256"],
                hint="use another backup; pg_backup_info lists them with their level",
            )


def describe_files(folder: str, names: List[str]) -> Dict[str, Any]:
    """Size and sha256 of files, as the manifest keeps them."""
    return {
        name: {"size": os.path.getsize(os.path.join(folder, name)), "sha256": sha256_of(os.path.join(folder, name))}
        for name in names
    }


def require_contents(manifest: Dict[str, Any]) -> None:
    """Refuse to prove anything with a manifest that does not say what must come back.

    :raises CouldNotVerify: such a backup is as good as its archive can be read, which nobody compared with the source
    """
    missing = [key for key in ("definitions", "sequences", "large_objects", "extensions") if key not in manifest]
    missing += [] if "properties" in manifest["database"] else ["properties of the database"]
    if missing:
        reasons = [str(entry.get("reason")) for entry in manifest.get("not_covered", [])]
        raise CouldNotVerify(
            "Backup %s cannot be compared with its source" % manifest["id"],
            found="a manifest without %s: %s" % (", ".join(missing), "; ".join(reasons)),
            expected="a backup made by this collection on its own host",
            hint="restore its archive with pg_restore into a new database and look at it yourself",
        )


def record_verification(place: BackupPlace, level: str, facts: Dict[str, Any]) -> Dict[str, Any]:
    """Keep beside the manifest how far the backup was verified, by whom and how; the last result of each level.

    A level that passed proves those before it, whatever was found there earlier.
    """
    known = verification(place) or {"levels": {}}
    if facts["passed"]:
        for lower in LEVELS[: LEVELS.index(level)]:
            if not known["levels"].get(lower, {"passed": True})["passed"]:
                del known["levels"][lower]
    known["levels"][level] = {"at": timestamp(), **facts}
    return _write_verification(place, known)


def record_reprinted(place: BackupPlace, pairs: Dict[str, List[Any]]) -> None:
    """Keep which objects were proved to be the same after a restore though they read differently: both texts."""
    known = verification(place) or {"levels": {}}
    if pairs and known.get("reprinted") != pairs:
        _write_verification(place, {**known, "reprinted": pairs})


def _write_verification(place: BackupPlace, known: Dict[str, Any]) -> Dict[str, Any]:
    known = {**known, "manifest_sha256": sha256_of(place.file("manifest.json"))}
    write_json(place.file("verification.json"), known)
    return known


def verification(place: BackupPlace) -> Optional[Dict[str, Any]]:
    """The kept results; None when there are none or the manifest is not the one that was verified."""
    path = place.file("verification.json")
    if not os.path.isfile(path):
        return None
    known = read_json(path, "verification of backup " + place.backup_id)
    if not isinstance(known, dict) or known.get("manifest_sha256") != sha256_of(place.file("manifest.json")):
        return None
    return known


def reached_since(place: BackupPlace, level: str, seconds: float) -> Optional[Dict[str, Any]]:
    """The result of this level where it passed within the last seconds; None where it did not, or one before failed."""
    reached = level_of(place)
    if reached is None or LEVELS.index(reached) < LEVELS.index(level):
        return None
    result = (verification(place) or {"levels": {}})["levels"].get(level)
    if result is None or not result["passed"] or age_seconds(result["at"]) > seconds:
        return None
    return dict(result)


def age_seconds(moment: str) -> float:
    return (utc_now() - parse_timestamp(moment)).total_seconds()


def level_of(place: BackupPlace) -> Optional[str]:
    """The highest level that a backup has reached; None when it was never verified or even its files are damaged.

    What failed at one level is not believed at the next, though it may have passed there once.
    """
    results = (verification(place) or {"levels": {}})["levels"]
    reached = None
    for level in LEVELS:
        if level in results and not results[level]["passed"]:
            break
        reached = level if level in results else reached
    return reached
