# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A database's definitions as pg_dump writes them, entry by entry, so that no queries of our own are needed for them.

The entries are those of an archive's table of contents, read like ReadHead() and ReadToc() in pg_backup_archiver.c do
(archives of version 1.12, PostgreSQL 10.3, to 1.16, PostgreSQL 18). Each has its kind, name, owner, tablespace and
access method; a script would have to be split into statements again. Rows, values of sequences, large objects, and the
database itself with its properties are left out, because they are compared elsewhere.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import os
import secrets
from typing import IO, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

from ..base.encryption import Decrypting, Encrypted
from ..base.errors import BackstopError
from .archive import LOCK_WAIT_SECONDS, DumpOptions, Source, start_dump
from .client_tools import ClientTools
from .connection import Settings

#: Key "KIND schema.name" as in ``pg_restore --list``; the entries of that name, sorted: each has ``owner`` (empty
#: where it has none of its own) and ``text``.
Entries = Dict[str, List[Dict[str, str]]]

_OLDEST, _NEWEST = (1, 12), (1, 16)
_WITH_ACCESS_METHOD, _WITH_ALGORITHM, _WITH_KIND_OF_RELATION = (1, 14), (1, 15), (1, 16)
#: The table of contents of a directory has the format number of tar.
_CUSTOM, _DIRECTORY = 1, 3
_DATA_SECTION = 3

_ELSEWHERE = (
    "ENCODING",
    "STDSTRINGS",
    "SEARCHPATH",
    "DATABASE",
    "DATABASE PROPERTIES",
    "MATERIALIZED VIEW DATA",
    "STATISTICS DATA",
    "BLOB",
    "BLOB METADATA",
)
#: Kinds that describe another object; their name starts with its kind.
_ABOUT = ("ACL", "COMMENT", "SECURITY LABEL")
_ABOUT_ELSEWHERE = ("DATABASE ", "LARGE OBJECT ", "LARGE OBJECTS ")
#: Kinds with their own owner. All others have that of their table, so a change would be listed for each of them.
_OWNED = (
    "ACCESS METHOD",
    "AGGREGATE",
    "COLLATION",
    "CONVERSION",
    "DEFAULT ACL",
    "DOMAIN",
    "EVENT TRIGGER",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "FUNCTION",
    "MATERIALIZED VIEW",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "PROCEDURAL LANGUAGE",
    "PROCEDURE",
    "PUBLICATION",
    "SCHEMA",
    "SEQUENCE",
    "SERVER",
    "SHELL TYPE",
    "STATISTICS",
    "SUBSCRIPTION",
    "TABLE",
    "TEXT SEARCH CONFIGURATION",
    "TEXT SEARCH DICTIONARY",
    "TYPE",
    "VIEW",
)
#: Other kinds, to separate the kind from the name.
_OTHERS = (
    "CAST",
    "CHECK CONSTRAINT",
    "COLUMN",
    "CONSTRAINT",
    "DEFAULT",
    "EXTENSION",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "POLICY",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "ROW SECURITY",
    "RULE",
    "SEQUENCE OWNED BY",
    "TABLE ATTACH",
    "TEXT SEARCH PARSER",
    "TEXT SEARCH TEMPLATE",
    "TRANSFORM",
    "TRIGGER",
    "USER MAPPING",
)
#: Privileges.
RIGHTS = ("ACL", "DEFAULT ACL")
#: Kinds whose options can contain a password; a manifest stores only a hash of them.
SECRET = ("USER MAPPING", "SERVER", "FOREIGN DATA WRAPPER", "SUBSCRIPTION")
#: Longest first, because one may be the prefix of another.
_KINDS = sorted({*_OWNED, *_ABOUT, *_OTHERS, *RIGHTS}, key=len, reverse=True)
_HASHED = "hashed "
_ROUNDS = 100000
_SHOWN_LINES, _SHOWN_LENGTH = 12, 160


def of_database(
    tools: ClientTools,
    settings: Settings,
    *,
    snapshot: Optional[str] = None,
    lock_wait_seconds: int = LOCK_WAIT_SECONDS,
    keep_open: Sequence[int] = (),
) -> Entries:
    """The definitions of a database as they are committed, or in a snapshot. 600 tables take half a second.

    :raises BackstopError: pg_dump failed; ``found`` has its message
    """
    options = DumpOptions(snapshot, "0", schema_only=True, comparable=True, lock_wait_seconds=lock_wait_seconds)
    with start_dump(tools, settings, None, options, keep_open) as program:
        content = program.stdout.read()
        program.check("pg_dump could not write the definitions of %s" % settings.database)
    return _entries(_Contents(io.BytesIO(content)).entries())


def of_archive(source: Source, keep_open: Sequence[int] = ()) -> Entries:
    """The definitions in an archive: a file, a directory, or an encrypted file."""
    return _entries(_read(source, keep_open))


def _read(source: Source, keep_open: Sequence[int]) -> List["_Entry"]:
    with contextlib.ExitStack() as stack:
        if isinstance(source, Encrypted):
            # Only the start is read: age may fail with a broken pipe afterwards.
            return list(_Contents(stack.enter_context(Decrypting(source, keep_open)).stdout).entries())
        path = os.path.join(source, "toc.dat") if os.path.isdir(source) else source
        return list(_Contents(stack.enter_context(open(path, "rb"))).entries())


class Drop(NamedTuple):
    """How ``pg_restore --clean`` drops what an entry created."""

    key: str
    #: whether it is in a schema, with which it can be dropped
    in_schema: bool
    statement: str


def drops(source: Source, keep_open: Sequence[int] = ()) -> List[Drop]:
    """The statements of ``pg_restore --clean``, in its order: the last created object first. Many kinds have none,
    because they are dropped with another entry."""
    found = [Drop(_key(entry), bool(entry.schema), entry.drop) for entry in _read(source, keep_open) if entry.drop]
    return found[::-1]


class _Entry(NamedTuple):
    """An entry of the table of contents."""

    kind: str
    section: int
    schema: str
    name: str
    owner: str
    text: str
    drop: str


class _Contents:
    """Reads the table of contents at the start of an archive."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        if self._bytes(5) != b"PGDMP":
            raise BackstopError("The file is not an archive of pg_dump", expected="PGDMP")
        major, minor, _revision, self._integer_size, self._offset_size, self._format = self._bytes(6)
        self._version = (major, minor)
        if not _OLDEST <= self._version <= _NEWEST or self._format not in (_CUSTOM, _DIRECTORY):
            raise BackstopError(
                "An archive has a format that this version does not know",
                found="version %d.%d, format %d" % (major, minor, self._format),
                expected="version %d.%d to %d.%d, custom or directory" % (_OLDEST + _NEWEST),
                hint="use a newer version of this collection",
            )
        if self._version >= _WITH_ALGORITHM:
            self._bytes(1)
        else:
            self._integer()
        for _part_of_the_time in range(7):
            self._integer()
        for _name_and_versions in range(3):
            self._text()

    def entries(self) -> Iterator[_Entry]:
        """The entries to compare: without rows and the database itself, which has a DROP statement too."""
        for entry in [self._entry() for _number in range(self._integer())]:
            elsewhere = entry.kind in _ABOUT and entry.name.startswith(_ABOUT_ELSEWHERE)
            if entry.section != _DATA_SECTION and entry.kind not in _ELSEWHERE and not elsewhere:
                yield entry

    def _entry(self) -> _Entry:
        self._integer(), self._integer()  # its dump id; whether it has rows
        self._text(), self._text()  # oids
        name, kind, section = self._text(), self._text(), self._integer()
        text, drop, _copy = self._text(), self._text(), self._text()
        schema, tablespace = self._text(), self._text()
        method = self._text() if self._version >= _WITH_ACCESS_METHOD else ""
        if self._version >= _WITH_KIND_OF_RELATION:
            self._integer()
        owner = self._text()
        self._text()  # WITH OIDS, obsolete
        while self._optional_text() is not None:
            pass  # dependencies
        if self._format == _DIRECTORY:
            self._text()
        else:
            self._bytes(1 + self._offset_size)
        lines = [text.strip("\n")]
        if tablespace:
            lines.insert(0, "TABLESPACE " + tablespace)
        if method:
            lines.insert(0, "ACCESS METHOD " + method)
        return _Entry(kind, section, schema, name, owner, "\n".join(lines), drop.strip())

    def _bytes(self, size: int) -> bytes:
        found = self._stream.read(size)
        if len(found) != size:
            raise BackstopError("An archive's table of contents is truncated", hint="use another backup")
        return found

    def _integer(self) -> int:
        content = self._bytes(1 + self._integer_size)
        value = int.from_bytes(content[1:], "little")
        return -value if content[0] else value

    def _optional_text(self) -> Optional[str]:
        size = self._integer()
        # Text may be invalid in the database's encoding; both sides of a comparison are decoded alike.
        return None if size < 0 else self._bytes(size).decode(errors="backslashreplace")

    def _text(self) -> str:
        return self._optional_text() or ""


def _entries(contents: Iterable[_Entry]) -> Entries:
    found: Entries = {}
    for entry in contents:
        text = _rights(entry.text) if entry.kind in RIGHTS else entry.text
        key = _key(entry)
        found.setdefault(key, []).append({"owner": entry.owner if entry.kind in _OWNED else "", "text": text})
    for several in found.values():
        several.sort(key=_order)
    return found


def _key(entry: _Entry) -> str:
    schema = entry.schema + "." if entry.schema else ""
    kind = _first_words(entry.name) if entry.kind in _ABOUT else ""
    return "%s %s%s%s" % (entry.kind, kind, schema, entry.name[len(kind) :])


def _first_words(name: str) -> str:
    """The kind of object that a name begins with, and a space; empty without one."""
    return next((kind + " " for kind in _KINDS if name.startswith(kind + " ")), "")


def _order(entry: Dict[str, str]) -> "tuple[str, str]":
    return entry["owner"], entry["text"]


def _rights(text: str) -> str:
    """Sorted GRANT and REVOKE statements, because pg_dump keeps the order of granting; each with its grantor."""
    who, lines = "", []
    for line in text.splitlines():
        if line.startswith(("SET SESSION AUTHORIZATION ", "RESET SESSION AUTHORIZATION")):
            who = line[len("SET SESSION AUTHORIZATION ") : -1] if line.startswith("SET") else ""
        elif line:
            lines.append("%s: %s" % (who, line) if who else line)
    return "\n".join(sorted(lines))


def kind_of(key: str) -> str:
    """The kind in a key of Entries."""
    return _first_words(key)[:-1] or key.split(" ", 1)[0]


def compare(before: Entries, after: Entries) -> Dict[str, List[str]]:
    """The differences: keys that are only in the first (missing), only in the second (added), in both (changed).

    The first may be that of a manifest.
    """
    after = _hashed_alike(before, after)
    return {
        "missing": sorted(set(before) - set(after)),
        "added": sorted(set(after) - set(before)),
        "changed": sorted(key for key in set(before) & set(after) if before[key] != after[key]),
    }


def only(keys: Iterable[str], entries: Entries) -> Entries:
    """The entries of some keys."""
    return {key: entries[key] for key in keys if key in entries}


def without_rights(entries: Entries) -> Entries:
    """The same without owners and privileges."""
    return {
        key: [{"owner": "", "text": entry["text"]} for entry in several]
        for key, several in entries.items()
        if kind_of(key) not in RIGHTS
    }


def to_json(entries: Entries) -> Entries:
    """The form in a manifest: texts that can contain a password are hashed."""
    return _hashed(entries, secrets.token_hex(8))


def _hashed(entries: Entries, salt: str) -> Entries:
    def text(key: str, entry: Dict[str, str]) -> str:
        if kind_of(key) not in SECRET or entry["text"].startswith(_HASHED):
            return entry["text"]
        digest = hashlib.pbkdf2_hmac("sha256", entry["text"].encode(), bytes.fromhex(salt), _ROUNDS).hex()
        return "%s%s %s" % (_HASHED, salt, digest)

    return {
        key: sorted(({"owner": entry["owner"], "text": text(key, entry)} for entry in several), key=_order)
        for key, several in entries.items()
    }


def _hashed_alike(before: Entries, after: Entries) -> Entries:
    for several in before.values():
        for entry in several:
            if entry["text"].startswith(_HASHED):
                return _hashed(after, entry["text"].split()[1])
    return after


_SPOKEN = {"ACL": "privileges on", "DEFAULT ACL": "default privileges", "COMMENT": "comment on"}


def _spoken(key: str) -> str:
    """``ACL TABLE public.x`` as "privileges on table public.x"."""
    kind = kind_of(key)
    name = key[len(kind) + 1 :]
    about = _first_words(name) if kind in _ABOUT else ""
    return "%s %s%s" % (_SPOKEN.get(kind, kind.lower()), about.lower(), name[len(about) :])


def describe(key: str, how: str, before: Entries, after: Entries) -> str:
    """A sentence on a differing entry; for a changed one with the differing lines, unless they may be secret."""
    sentence = "%s %s %s" % (_spoken(key), "are" if kind_of(key) in RIGHTS else "is", how)
    if how != "changed" or kind_of(key) in SECRET:
        return sentence
    first, second = before[key], after[key]
    owners = [sorted({entry["owner"] for entry in several}) for several in (first, second)]
    if owners[0] != owners[1]:
        return "%s (owner %s, not %s)" % (sentence, ", ".join(owners[1]), ", ".join(owners[0]))
    lines, others = (
        [line.rstrip(",") for entry in several for line in entry["text"].splitlines()] for several in (first, second)
    )
    changed = [
        "%s %s" % (line[0], " ".join(line[1:].split())[:_SHOWN_LENGTH])
        for line in difflib.unified_diff(lines, others, n=0, lineterm="")
        if line[1:].strip() and not line.startswith(("---", "+++", "@@"))
    ]
    more = ["and %d more lines" % (len(changed) - _SHOWN_LINES)] if len(changed) > _SHOWN_LINES else []
    return "%s (%s)" % (sentence, " | ".join(changed[:_SHOWN_LINES] + more))
