# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Comparing the definitions of a database with those of a backup, by pg_dump's output."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import tempfile
from typing import Any, Dict, Iterator, List, Optional, Sequence

from ..base.databases import DatabaseProperties
from ..base.errors import BackstopError
from ..base.sql_names import scratch_name
from ..postgres import archive, definitions, dumped_definitions
from ..postgres.connection import Session
from ..postgres.database_properties import create_database, drop_scratch_database
from ..site import Site
from ..store.layout import new_id
from ..store.manifest import Manifest, readable, reprinted
from .comparison import Comparison


@dataclasses.dataclass
class CatalogDifferences:
    """How the definitions of a database differ from those of a backup; ``objects`` decides."""

    #: one sentence for each entry that differs
    objects: List[str] = dataclasses.field(default_factory=list)
    #: those of them that pg_dump's output does not contain
    beside: List[str] = dataclasses.field(default_factory=list)
    #: what a dump does not carry, with the reason
    tolerated: List[str] = dataclasses.field(default_factory=list)
    #: objects that are the same though printed or named differently: both texts, None where there is none
    reprinted: Dict[str, List[Any]] = dataclasses.field(default_factory=dict)
    #: differing keys of dumped_definitions, in the form of dumped_definitions.compare()
    dumped: Dict[str, List[str]] = dataclasses.field(default_factory=dict)
    #: all differences that the queries of definitions find, to describe what changed in a differing entry
    own: Dict[str, List[str]] = dataclasses.field(default_factory=dict)
    #: what our queries found in the compared database
    live: definitions.Definitions = dataclasses.field(default_factory=dict)

    @property
    def equal(self) -> bool:
        return not self.objects


def catalog_differences(
    site: Site,
    manifest: Manifest,
    database: Optional[str] = None,
    *,
    settle: bool = True,
    ignore: Sequence[str] = (),
) -> CatalogDifferences:
    """Compare the committed definitions of a database with those of a backup.

    pg_dump's output decides. PostgreSQL prints some expressions differently after a restore, so a differing entry is
    the same if the backup's definitions, loaded into a scratch database, read like it there. If only the backup's
    database was restored before, both are loaded and compared. Our own queries read what pg_dump does not carry.

    :param database: default is the live one
    :param settle: False where no scratch database may be created: then only what an earlier restore proved is the same
    :param ignore: ``schema.name`` of tables that are left out with all their objects
    """
    name = site.database if database is None else database
    with site.connect(name) as session:
        tools = site.tools(session)
        own = definitions.definitions(session)
    settings = site.connection.with_database(name)
    dumped = dumped_definitions.of_database(tools, settings, keep_open=site.keep_open)
    judge = _Judge(site, manifest, name, _Definitions(dumped, own), ignore)
    return judge.judge(settle)


@dataclasses.dataclass(frozen=True)
class _Definitions:
    """The definitions of one database, from both sources."""

    dumped: dumped_definitions.Entries
    own: definitions.Definitions


#: Kinds of entries that are never printed differently: a restore that only warned or left them out proves nothing.
#: Texts that can hold a password are not kept either.
_NEVER_REPRINTED = (*dumped_definitions.RIGHTS, *dumped_definitions.SECRET, "COMMENT", "SECURITY LABEL")


class _Judge:
    """Decides on each difference between a backup's definitions and those that were found."""

    def __init__(self, site: Site, manifest: Manifest, name: str, found: _Definitions, ignore: Sequence[str]) -> None:
        self._site, self._manifest, self._name, self._found = site, manifest, name, found
        self._wanted = _Definitions(_dumped_of(site, manifest), manifest.definitions)
        self._ignore = tuple(ignore)
        self._result = CatalogDifferences()
        #: why the backup's definitions could not be loaded
        self._unsettled = ""

    def judge(self, settle: bool) -> CatalogDifferences:
        result, wanted, found = self._result, self._wanted, self._found
        result.live = found.own
        result.own = self._without_ignored(definitions.compare(wanted.own, found.own))
        result.dumped = self._without_ignored(dumped_definitions.compare(wanted.dumped, found.dumped))
        self._leave_out_subscriptions()
        beside = [key for keys in result.own.values() for key in keys if definitions.is_beside(key)]
        beside = [key for key in beside if not self._cannot_be_carried(key)]
        pairs = self._pairs(beside)
        known = _proved_before(self._site, pairs)
        for key in known:
            result.dumped = _less(result.dumped, [key])
            if key in beside:
                beside.remove(key)
                self._tolerate(key)
        if settle and (any(result.dumped.values()) or any(map(_made_by_a_load, beside))):
            beside = self._settled(beside)
        self._tell(beside)
        if not result.objects:
            # For use where pg_dump cannot look: differences of the queries that are not real.
            pairs.update({key: self._own_pair(key) for keys in result.own.values() for key in keys})
        result.reprinted = {
            key: pair for key, pair in pairs.items() if key not in beside and key not in _keys(result.dumped)
        }
        return result

    def _without_ignored(self, found: Dict[str, List[str]]) -> Dict[str, List[str]]:
        return {
            how: [key for key in keys if not any(is_about(key, table) for table in self._ignore)]
            for how, keys in found.items()
        }

    def _leave_out_subscriptions(self) -> None:
        lost = [key for key in self._result.dumped["missing"] if _of_subscription(key)]
        self._result.dumped = _less(self._result.dumped, lost)
        self._result.tolerated += ["%s: is never brought back by a restore" % key for key in lost]

    def _cannot_be_carried(self, key: str) -> bool:
        """Tolerate what no restore could bring back, whatever the dump."""
        wanted, found = self._own_pair(key)
        kind = definitions.kind_of(key)
        reason = _NOT_CARRIED.get(kind, "")
        if kind == "materialized view":
            carried = (wanted, found) != ("stale", "without rows")
        else:
            carried = kind not in _NOT_CARRIED or found is not None
        if not carried:
            self._result.tolerated.append("%s: %s" % (key, reason))
        return not carried

    def _pairs(self, beside: Sequence[str]) -> Dict[str, List[Any]]:
        pairs = {key: self._own_pair(key) for key in beside}
        for key in _keys(self._result.dumped):
            if self._may_be_reprinted(key):
                pairs[key] = [self._wanted.dumped.get(key), self._found.dumped.get(key)]
        return pairs

    def _own_pair(self, key: str) -> List[Any]:
        return [self._wanted.own.get(key), self._found.own.get(key)]

    def _may_be_reprinted(self, key: str) -> bool:
        """Not where the owner differs: a load cannot settle that."""
        if dumped_definitions.kind_of(key) in _NEVER_REPRINTED:
            return False
        owners = [
            sorted(entry["owner"] for entry in side.get(key, ())) for side in (self._wanted.dumped, self._found.dumped)
        ]
        return owners[0] == owners[1] or not all(owners)

    def _settled(self, beside: Sequence[str]) -> List[str]:
        """Load the definitions and compare again; the remaining differences of those that pg_dump does not carry."""
        try:
            with contextlib.ExitStack() as stack:
                first = self._loaded(_archive_of(self._site, self._manifest), "trip1")
                reprinted = [key for key in _keys(self._result.dumped) if self._may_be_reprinted(key)]
                left = _differing(reprinted, first.dumped, self._found.dumped)
                if left:
                    source = stack.enter_context(schema_of_database(self._site, self._name))
                    left = _differing(left, first.dumped, self._loaded(source, "trip2").dumped)
        except BackstopError as error:
            self._unsettled = str(error)
            return list(beside)
        self._result.dumped = _less(self._result.dumped, [key for key in reprinted if key not in left])
        same = [key for key in beside if _made_by_a_load(key) and first.own.get(key) == self._found.own.get(key)]
        for key in same:
            self._tolerate(key)
        return [key for key in beside if key not in same]

    def _loaded(self, source: archive.Source, purpose: str) -> _Definitions:
        return load_definitions(self._site, source, self._manifest.properties, purpose)

    def _tolerate(self, key: str) -> None:
        self._result.tolerated.append("%s: %s" % (key, _MADE_ANEW))

    def _tell(self, beside: Sequence[str]) -> None:
        wanted, found, objects = self._wanted.dumped, self._found.dumped, self._result.objects
        for how, keys in self._result.dumped.items():
            objects += [dumped_definitions.describe(key, how, wanted, found) for key in keys]
        for key in beside:
            before, now = (text or "none" for text in self._own_pair(key))
            self._result.beside.append("%s is changed (%s, now %s)" % (key, before, now))
        objects += self._result.beside
        if objects and self._unsettled:
            objects.append("whether only their text differs could not be determined: " + self._unsettled)


#: Why a dump does not carry these kinds; a restore gives them their default.
_NOT_CARRIED = {
    "invalid index": "a dump leaves it out; REINDEX or DROP it in the source",
    "internal trigger": "a dump does not carry that the check is disabled; ALTER TABLE ... ENABLE TRIGGER ALL in the"
    " source",
    "privileges on": "a dump does not carry them; a restored database has those of a new one: grant and revoke again",
    "materialized view": "cannot be filled by a restore, because it reads one without rows; REFRESH both in the source",
}
_MADE_ANEW = "a restore creates it again: in the server's default version, with its own owners and comments"


def _made_by_a_load(key: str) -> bool:
    return definitions.kind_of(key) == "extension"


def _of_subscription(key: str) -> bool:
    return key.startswith(("SUBSCRIPTION ", "COMMENT SUBSCRIPTION ", "SECURITY LABEL SUBSCRIPTION "))


def is_about(key: str, table: str) -> bool:
    """Whether a key of either kind names this table (``schema.name``), a part of it, or its primary key's index."""
    schema, name = (re.escape(part) for part in table.split(".", 1))
    return re.search(r'(?:^| )"?%s"?\."?%s(?:_pkey)?"?(?:$|[ .])' % (schema, name), key) is not None


def _keys(found: Dict[str, List[str]]) -> List[str]:
    return [key for keys in found.values() for key in keys]


def _less(found: Dict[str, List[str]], keys: Sequence[str]) -> Dict[str, List[str]]:
    return {how: [key for key in listed if key not in keys] for how, listed in found.items()}


def _differing(keys: Sequence[str], before: dumped_definitions.Entries, after: dumped_definitions.Entries) -> List[str]:
    one, other = (dumped_definitions.only(keys, entries) for entries in (before, after))
    return _keys(dumped_definitions.compare(one, other))


def _dumped_of(site: Site, manifest: Manifest) -> dumped_definitions.Entries:
    """The entries of a backup; a backup of an earlier version has them only in its archive."""
    if manifest.dumped is not None:
        return manifest.dumped
    return dumped_definitions.of_archive(_archive_of(site, manifest), site.keep_open)


def _archive_of(site: Site, manifest: Manifest) -> archive.Source:
    return site.archive(site.store.find_backup(manifest.id), manifest)


def _proved_before(site: Site, pairs: Dict[str, List[Any]]) -> List[str]:
    """Which of these objects an earlier restore of any backup proved to be the same, printed in these two ways."""
    if not pairs:
        return []
    places = [backup.place for backup in readable(site.store.backups())]
    proved = [reprinted(place) for place in places]
    return [key for key, pair in pairs.items() if any(known.get(key) == pair for known in proved)]


@contextlib.contextmanager
def schema_of_database(site: Site, database: str) -> Iterator[archive.Source]:
    """An archive of the definitions of a database."""
    with tempfile.TemporaryDirectory(prefix="backstop-schema-") as folder, site.connect(database) as session:
        path = os.path.join(folder, "schema.dump")
        settings = site.connection.with_database(database)
        options = archive.DumpOptions(schema_only=True, comparable=True)
        with archive.start_dump(site.tools(session), settings, path, options, site.keep_open) as dump:
            dump.check("pg_dump could not write the schema of %s" % database)
        yield path


def load_definitions(site: Site, source: archive.Source, properties: DatabaseProperties, purpose: str) -> _Definitions:
    """The definitions of a scratch database into which those of an archive were loaded."""
    with loaded(site, source, properties, purpose) as name, site.connect(name) as session:
        settings = site.connection.with_database(name)
        dumped = dumped_definitions.of_database(site.tools(session), settings, keep_open=site.keep_open)
        return _Definitions(dumped, definitions.definitions(session))


@contextlib.contextmanager
def loaded(site: Site, source: archive.Source, properties: DatabaseProperties, purpose: str) -> Iterator[str]:
    """The name of a scratch database into which the definitions of an archive were loaded; dropped afterwards."""
    name = scratch_name(site.operation.id if site.operation else new_id(), purpose)
    settings = site.connection.with_database(name)
    with site.administer() as admin:
        drop_scratch_database(admin, name)
        try:
            create_database(admin, name, properties)
            archive.restore(site.tools(admin), settings, source, schema_only=True, keep_open=site.keep_open)
            yield name
        finally:
            drop_scratch_database(admin, name)


def compare_catalog(
    site: Site, session: Session, manifest: Manifest, result: Comparison, *, round_trips: bool = True
) -> None:
    """Compare the definitions of a restored database with those of the manifest; adds to ``result``.

    :param round_trips: False within a transaction, which pg_dump cannot see: only our queries compare. What is only
        printed differently is then tolerated, and named where no earlier restore proved it
    """
    if round_trips:
        found = catalog_differences(site, manifest, session.settings.database)
        result.objects += found.objects
        result.tolerated += found.tolerated
        result.reprinted.update(found.reprinted)
    else:
        _compare_within_transaction(site, session, manifest, result)


def _compare_within_transaction(site: Site, session: Session, manifest: Manifest, result: Comparison) -> None:
    restored = definitions.definitions(session)
    found = definitions.compare(manifest.definitions, restored)
    pairs = {key: [manifest.definitions.get(key), restored.get(key)] for key in _keys(found)}
    known = _proved_before(site, pairs)
    result.reprinted.update({key: pairs[key] for key in known})
    for how, keys in _less(found, known).items():
        for key in keys:
            reason = _tolerable(key, how, pairs[key])
            if reason:
                result.tolerated.append("%s: %s" % (key, reason))
            else:
                name = definitions.shown(key, restored, manifest.definitions)
                result.objects.append("%s is %s" % (name, how))


def _tolerable(key: str, how: str, pair: Sequence[Optional[str]]) -> Optional[str]:
    """The reason why a difference that our queries find is tolerated; None where it is not."""
    kind = definitions.kind_of(key)
    if how == "changed" and kind in definitions.REPRINTED:
        return "is printed differently; no drill has proved that it is the same"
    if kind == "extension":
        return _MADE_ANEW
    if kind == "index" and how == "missing" and "; valid false" in str(pair[0]):
        return _NOT_CARRIED["invalid index"]
    if kind in _NOT_CARRIED and (pair[1] is None or list(pair) == ["stale", "without rows"]):
        return _NOT_CARRIED[kind]
    return None
