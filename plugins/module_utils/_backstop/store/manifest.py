# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The manifest: a backup's contents, what a restore must return, what is not covered; and the level of verification."""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, TypeVar

from ..base.databases import DatabaseProperties
from ..base.durable_files import known_fields, read_json, sha256_of, write_json
from ..base.errors import BackstopError, CouldNotVerify, Refused
from ..base.progress import Progress, parse_timestamp, timestamp, utc_now
from ..base.remedies import Action, remedy
from ..base.tables import Digest, Table
from ..base.typed_json import from_json
from .layout import BackupPlace

#: The major version of the manifest; readers refuse another one, writers may add fields within it.
FORMAT = 1
#: The levels of verification, each including those before it.
LEVELS = ("checksum", "readable", "restored")
#: The scope of a backup: the whole database, its definitions without rows, or single tables. A manifest without
#: ``scope`` is one of the whole database.
WHOLE, SCHEMA, TABLES = "database", "schema", "tables"

_TYPES = {"created": str, "database": dict, "server": dict, "archive": dict, "files": dict, "tables": list}
_REQUIRED = ("id", "kind", "created", "database", "server", "archive", "files", "tables", "snapshot")
_T = TypeVar("_T")


# The fields of these classes are those of docs/manifest.schema.json, which explains them. Fields with a default may be
# absent.


@dataclasses.dataclass(frozen=True)
class Server:
    system_identifier: str
    major: int
    version: str


@dataclasses.dataclass(frozen=True)
class Database:
    name: str
    oid: int
    size: int
    properties: Optional[DatabaseProperties] = None


@dataclasses.dataclass(frozen=True)
class Archive:
    file: str
    format: str
    compression: str
    size: int
    tool: str
    jobs: int = 1
    #: file with the same backup as plain SQL
    plain: Optional[str] = None
    #: public keys of age; empty where the archive is not encrypted
    recipients: Tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Archive":
        encryption = value.get("encryption") or {"recipients": ()}
        return cls(**{**known_fields(cls, value), "recipients": tuple(encryption["recipients"])})

    def to_json(self) -> Dict[str, Any]:
        value = dataclasses.asdict(self)
        recipients = list(value.pop("recipients"))
        return {**value, "encryption": {"tool": "age", "recipients": recipients} if recipients else None}


@dataclasses.dataclass(frozen=True)
class File:
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class NotCovered:
    kind: str
    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class TableEntry:
    """A table of the backup and its expected contents after a restore."""

    table: Table
    digest: Digest

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "TableEntry":
        return cls(Table.from_json(value), Digest.from_json(value["digest"]))

    def to_json(self) -> Dict[str, Any]:
        return {**self.table.to_json(), "digest": self.digest.to_json()}

    @property
    def schema(self) -> str:
        return self.table.schema

    @property
    def name(self) -> str:
        return self.table.name

    @property
    def full_name(self) -> str:
        return self.table.full_name


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a restored database is compared with, besides its tables; None if unknown when the backup was made."""

    definitions: Optional[Dict[str, str]] = None
    sequences: Optional[Dict[str, Optional[int]]] = None
    large_objects: Optional[Digest] = None
    extensions: Optional[Dict[str, str]] = None


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of a backup, as read by load(). Only the file is JSON."""

    id: str
    kind: str
    #: when the snapshot was taken
    created: str
    server: Server
    database: Database
    archive: Archive
    snapshot: Dict[str, str]
    tables: Tuple[TableEntry, ...]
    files: Dict[str, File]
    scope: str = WHOLE
    operation: Optional[str] = None
    #: of the running release
    commit: Optional[str] = None
    finished: Optional[str] = None
    #: duration of each phase
    seconds: Dict[str, float] = dataclasses.field(default_factory=dict)
    contents: Contents = Contents()
    #: every definition as pg_dump writes it (postgres.dumped_definitions); None if only the archive has them
    dumped: Optional[Dict[str, List[Dict[str, str]]]] = None
    not_covered: Tuple[NotCovered, ...] = ()
    #: the original JSON, with fields that this version does not know
    source: Optional[Mapping[str, Any]] = dataclasses.field(default=None, compare=False, repr=False)

    # Parts

    def table(self, schema: str, name: str) -> Optional[TableEntry]:
        return self._by_name.get((schema, name))

    @functools.cached_property
    def _by_name(self) -> Dict[Tuple[str, str], TableEntry]:
        return {(entry.schema, entry.name): entry for entry in self.tables}

    @property
    def table_names(self) -> List[str]:
        return [entry.full_name for entry in self.tables]

    @property
    def rows(self) -> int:
        return sum(entry.digest.rows for entry in self.tables)

    def file(self, name: str) -> File:
        """:raises BackstopError: the backup has no such file"""
        if name not in self.files:
            raise BackstopError("Backup %s has no file %s" % (self.id, name), found=", ".join(sorted(self.files)))
        return self.files[name]

    @property
    def is_whole(self) -> bool:
        """Whether it is one of the whole database; a partial or schema backup must never be taken for one."""
        return self.scope == WHOLE

    @property
    def is_encrypted(self) -> bool:
        return bool(self.archive.recipients)

    # Expected contents of a restore. A backup whose manifest lacks them cannot be compared.

    @property
    def definitions(self) -> Dict[str, str]:
        return self._available(self.contents.definitions)

    @property
    def sequences(self) -> Dict[str, Optional[int]]:
        return self._available(self.contents.sequences)

    @property
    def large_objects(self) -> Digest:
        return self._available(self.contents.large_objects)

    @property
    def properties(self) -> DatabaseProperties:
        return self._available(self.database.properties)

    def _available(self, part: Optional[_T]) -> _T:
        if part is None:
            raise self._incomparable()
        return part

    def _unavailable(self) -> List[str]:
        names = [field.name for field in dataclasses.fields(Contents) if getattr(self.contents, field.name) is None]
        return names + ([] if self.database.properties is not None else ["properties of the database"])

    def _incomparable(self) -> CouldNotVerify:
        reasons = "; ".join(entry.reason for entry in self.not_covered)
        return CouldNotVerify(
            "Backup %s cannot be compared with its source" % self.id,
            found="a manifest without %s: %s" % (", ".join(self._unavailable()), reasons),
            expected="a backup made by this collection on its own host",
            hint="restore its archive with pg_restore into a new database and look at it yourself",
        )

    def require_contents(self) -> None:
        """Refuse to prove anything with a manifest that lacks the expected contents.

        :raises CouldNotVerify: only the archive's readability is known; it was never compared with its
            source
        """
        if self._unavailable():
            raise self._incomparable()

    def require_whole(self) -> None:
        """:raises Refused: the backup contains only single tables, or no rows"""
        if self.is_whole:
            return
        if self.scope == SCHEMA:
            raise Refused(
                "Backup %s holds the schema and no row" % self.id,
                found="scope schema",
                expected="a backup of the whole database",
                hint=remedy("choose another backup; %s shows the scope of each", Action.LIST_BACKUPS),
            )
        names = self.table_names
        raise Refused(
            "Backup %s holds only single tables" % self.id,
            found="%s: %s" % (self.scope, ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")),
            expected="a backup of the whole database",
            hint=remedy("restore these tables with %s, or choose another backup", Action.CORRUPTED_TABLE),
        )

    # File

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Manifest":
        """:raises KeyError, TypeError, ValueError: it does not conform to the schema"""
        large_objects = value.get("large_objects")
        return cls(
            id=value["id"],
            kind=value["kind"],
            created=value["created"],
            server=from_json(Server, value["server"]),
            database=from_json(Database, value["database"]),
            archive=Archive.from_json(value["archive"]),
            snapshot=value["snapshot"],
            tables=tuple(TableEntry.from_json(entry) for entry in value["tables"]),
            files={name: from_json(File, entry) for name, entry in value["files"].items()},
            scope=value.get("scope", WHOLE),
            operation=value.get("operation"),
            commit=(value.get("release") or {}).get("commit"),
            finished=value.get("finished"),
            seconds=value.get("seconds", {}),
            contents=Contents(
                value.get("definitions"),
                value.get("sequences"),
                None if large_objects is None else Digest.from_json(large_objects),
                value.get("extensions"),
            ),
            dumped=value.get("dumped"),
            not_covered=tuple(from_json(NotCovered, entry) for entry in value.get("not_covered", [])),
            source=value,
        )

    def to_json(self) -> Dict[str, Any]:
        """The original JSON, if it was read from a file."""
        if self.source is not None:
            return dict(self.source)
        database = dataclasses.asdict(self.database)
        large_objects = self.contents.large_objects
        value = {
            "format": FORMAT,
            "id": self.id,
            "kind": self.kind,
            "scope": self.scope,
            "created": self.created,
            "finished": self.finished,
            "operation": self.operation,
            "release": {"commit": self.commit},
            "server": dataclasses.asdict(self.server),
            "database": {key: part for key, part in database.items() if part is not None},
            "archive": self.archive.to_json(),
            "files": {name: dataclasses.asdict(file) for name, file in self.files.items()},
            "snapshot": self.snapshot,
            "seconds": self.seconds,
            "tables": [entry.to_json() for entry in self.tables],
            "not_covered": [dataclasses.asdict(entry) for entry in self.not_covered],
            **dataclasses.asdict(self.contents),
            "large_objects": None if large_objects is None else large_objects.to_json(),
            "dumped": self.dumped,
        }
        may_be_absent = {"dumped", *(field.name for field in dataclasses.fields(Contents))}
        return {key: part for key, part in value.items() if part is not None or key not in may_be_absent}


def load(place: BackupPlace) -> Manifest:
    """Read and check a backup's manifest."""
    value = read_json(place.file("manifest.json"), "manifest of backup " + place.backup_id)
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise Refused(
            "The manifest of backup %s has a format that this version does not know" % place.backup_id,
            found=repr(found),
            expected=str(FORMAT),
            hint="use the version of this collection that wrote it, or a newer one",
        )
    missing = [key for key in _REQUIRED if key not in value]
    if missing:
        raise BackstopError(
            "The manifest of backup %s is incomplete" % place.backup_id, found="without " + ", ".join(missing)
        )
    wrong = [key for key, kind in _TYPES.items() if not isinstance(value[key], kind)]
    if wrong:
        found = "%s is %s" % (wrong[0], type(value[wrong[0]]).__name__)
        raise BackstopError("The manifest of backup %s is invalid" % place.backup_id, found=found)
    try:
        manifest = Manifest.from_json(value)
        _require_own(place, manifest)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BackstopError("The manifest of backup %s is invalid" % place.backup_id, found=repr(error)) from None
    return manifest


def _require_own(place: BackupPlace, manifest: Manifest) -> None:
    """A manifest must be that of its directory, name no file outside of it, and have a sum of the archive."""
    if manifest.id != place.backup_id:
        raise BackstopError("The manifest of backup %s is that of another backup" % place.backup_id, found=manifest.id)
    archives = [name for name in (manifest.archive.file, manifest.archive.plain) if name is not None]
    outside = [
        name for name in [*archives, *manifest.files] if not name or os.path.isabs(name) or ".." in name.split("/")
    ]
    if outside:
        found = repr(outside[0])
        raise BackstopError("The manifest of backup %s names a file outside of it" % place.backup_id, found=found)
    for name in archives:
        if not any(file == name or file.startswith(name + "/") for file in manifest.files):
            found = "no size and sha256 of " + name
            raise BackstopError("The manifest of backup %s does not list its archive" % place.backup_id, found=found)


@dataclasses.dataclass(frozen=True)
class Readable:
    """A backup whose manifest and verification can be read."""

    place: BackupPlace
    manifest: Manifest
    level: Optional[str]


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A backup that cannot be used, and why. It must not hide the others, and only a user removes it."""

    place: BackupPlace
    reason: str


def read_each(places: Iterable[BackupPlace]) -> Tuple[List[Readable], List[Unreadable]]:
    """Read the manifests of many backups; an unreadable one is listed, and does not affect the others."""
    good: List[Readable] = []
    bad: List[Unreadable] = []
    for place in places:
        try:
            manifest = load(place)
            parse_timestamp(manifest.created)
            good.append(Readable(place, manifest, level_of(place)))
        except BackstopError as error:
            bad.append(Unreadable(place, str(error)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            bad.append(Unreadable(place, "its manifest or verification is invalid: %r" % error))
    return good, bad


def readable(places: Iterable[BackupPlace]) -> List[Readable]:
    """The usable ones of many backups."""
    return read_each(places)[0]


def check_files(place: BackupPlace, manifest: Manifest, progress: Optional[Progress] = None) -> None:
    """Level ``checksum``: every file exists, with the size and sha256 of the manifest.

    :param progress: gets a phase for it
    :raises BackstopError: names the file
    """
    folder = place.file(manifest.archive.file)
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        # pg_restore reads these by its own table of contents, not by our list.
        manifest.file(manifest.archive.file + "/" + name)
    progress, before = progress or Progress(), 0
    total = sum(entry.size for entry in manifest.files.values())
    progress.phase("checking the files", backup=place.backup_id, bytes_total=total)
    for name, entry in sorted(manifest.files.items()):
        path = place.file(name)
        if not os.path.isfile(path):
            raise BackstopError("Backup %s lacks a file" % place.backup_id, found="no " + name)
        size = os.path.getsize(path)
        if size != entry.size:
            raise BackstopError(
                "A file of backup %s was changed" % place.backup_id,
                found="%s has %d bytes" % (name, size),
                expected="%d bytes" % entry.size,
                hint=remedy("use another backup; %s shows their levels", Action.LIST_BACKUPS),
            )
        found = sha256_of(path, lambda read, before=before: progress.done(before + read))  # type: ignore[misc]
        before += size
        if found != entry.sha256:
            raise BackstopError(
                "A file of backup %s was changed" % place.backup_id,
                found="%s has sha256 %s" % (name, found),
                expected=entry.sha256,
                hint=remedy("use another backup; %s shows their levels", Action.LIST_BACKUPS),
            )


def describe_files(folder: str, names: List[str]) -> Dict[str, File]:
    paths = {name: os.path.join(folder, name) for name in names}
    return {name: File(os.path.getsize(path), sha256_of(path)) for name, path in paths.items()}


def record_verification(place: BackupPlace, level: str, facts: Dict[str, Any]) -> Dict[str, Any]:
    """Record how far the backup was verified, when and how, next to the manifest; the last result of each level.

    A passed level also replaces earlier results of the levels before it.
    """
    known = verification(place) or {"levels": {}}
    if facts["passed"]:
        for lower in LEVELS[: LEVELS.index(level)]:
            if not known["levels"].get(lower, {"passed": True})["passed"]:
                del known["levels"][lower]
    known["levels"][level] = {"at": timestamp(), **facts}
    return _write_verification(place, known)


def record_reprinted(place: BackupPlace, pairs: Dict[str, List[Any]]) -> None:
    """Record which objects were proved to be the same after a restore though printed differently: both texts."""
    known = verification(place) or {"levels": {}}
    if pairs and known.get("reprinted") != pairs:
        _write_verification(place, {**known, "reprinted": pairs})


def _write_verification(place: BackupPlace, known: Dict[str, Any]) -> Dict[str, Any]:
    known = {**known, "manifest_sha256": sha256_of(place.file("manifest.json"))}
    write_json(place.file("verification.json"), known)
    return known


def verification(place: BackupPlace) -> Optional[Dict[str, Any]]:
    """The recorded results; None without any, or if the manifest is not the one that was verified."""
    path = place.file("verification.json")
    if not os.path.isfile(path):
        return None
    known = read_json(path, "verification of backup " + place.backup_id)
    if not isinstance(known, dict) or known.get("manifest_sha256") != sha256_of(place.file("manifest.json")):
        return None
    return known


@dataclasses.dataclass(frozen=True)
class Drilled:
    """Facts of the last drill, passed or failed, that are read later."""

    #: how long it took to restore the database; None if no drill passed
    recovery_seconds: Optional[float] = None
    #: duration of each phase
    seconds: Dict[str, float] = dataclasses.field(default_factory=dict)


def drilled(place: BackupPlace) -> Drilled:
    levels = (verification(place) or {"levels": {}})["levels"]
    return from_json(Drilled, levels.get("restored", {}))


def reprinted(place: BackupPlace) -> Dict[str, List[Any]]:
    """The objects that record_reprinted() recorded, each with both texts."""
    return dict((verification(place) or {}).get("reprinted", {}))


def reached_since(place: BackupPlace, level: str, seconds: float) -> Optional[Dict[str, Any]]:
    """The result of this level if it passed within the last seconds; None if not, or if a lower level failed."""
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
    """The highest level that a backup has reached; None if it was never verified or its files are damaged.

    A failure at one level invalidates higher levels, though they may have passed before.
    """
    results = (verification(place) or {"levels": {}})["levels"]
    reached = None
    for level in LEVELS:
        if level in results and not results[level]["passed"]:
            break
        reached = level if level in results else reached
    return reached
