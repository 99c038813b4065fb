# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill: restore a backup into a scratch database and compare it with its manifest. Its duration is the measured
recovery time."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any, Dict, Iterator, List, Mapping, Optional, Union

from ..base.durable_files import known_fields
from ..base.errors import BackstopError, CouldNotVerify, Locked, Refused
from ..base.failpoints import reach
from ..base.sql_names import scratch_name
from ..postgres import archive, server
from ..postgres.connection import Session
from ..postgres.database_properties import drop_scratch_database
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace, new_id
from .restore import RestoredDatabase, build_database

#: How a backup is verified to level ``restored``.
METHOD = "restored into a scratch database and compared"


def newest_whole(site: Site) -> BackupPlace:
    """The newest backup of the whole live database.

    :raises Refused: there is none
    """
    known = [
        one
        for one in manifests.readable(site.store.backups())
        if one.manifest.is_whole and one.manifest.database.name == site.database
    ]
    if not known:
        raise Refused(
            "There is no backup of the whole database %s" % site.database,
            found="none in " + site.store.root,
            hint="make a backup first",
        )
    return max(known, key=lambda one: one.manifest.created).place


@dataclasses.dataclass(frozen=True)
class Verified:
    """A passed verification."""

    level: str
    backup: str
    method: str
    #: when it passed, if that was before
    verified_at: Optional[str] = None
    # With level restored: the scratch database, if it was now, and the facts of RestoredDatabase.
    database: Optional[str] = None
    oid: Optional[int] = None
    #: of each phase; of a backup verified while it was made, of all
    seconds: Union[Dict[str, float], float, None] = None
    tables: Optional[int] = None
    rows: Optional[int] = None
    tolerated: Optional[List[str]] = None
    role: Optional[str] = None
    server: Optional[str] = None
    #: how long the restore took, with the comparison
    recovery_seconds: Optional[float] = None

    def to_json(self) -> Dict[str, Any]:
        return {key: fact for key, fact in dataclasses.asdict(self).items() if fact is not None}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "Verified":
        return cls(**known_fields(cls, facts))


def verify(
    site: Site, place: BackupPlace, level: str, *, keep: bool = False, scratch_id: Optional[str] = None
) -> Verified:
    """Verify a backup to a level and record the result.

    :param level: one of :data:`..store.manifest.LEVELS`
    :param keep: with ``restored``, keep the scratch database
    :param scratch_id: id in its name if there is no operation; what an earlier drill left under it is dropped
    """
    manifest = manifests.load(place)
    if level == "restored":
        # A partial backup cannot be drilled; that is no damage, so it is not recorded.
        manifest.require_whole()
    with recorded(place, "checksum"):
        manifests.check_files(place, manifest, site.progress)
    if level == "restored":
        return run_drill(site, place, keep=keep, scratch_id=scratch_id)
    method = "sha256 of every file"
    if level == "readable":
        method = "the whole archive was decoded"
        with site.administer() as admin:
            tools = site.tools(admin)
        with recorded(place, level):
            archive.decode(tools, site.archive(place, manifest), site.keep_open, progress=site.progress)
    manifests.record_verification(place, level, {"passed": True, "method": method})
    return Verified(level, place.backup_id, method)


def verified_before(place: BackupPlace, level: str, max_age: float) -> Optional[Verified]:
    """The result of an earlier verification to this level, if it is recent enough and no file has changed since.

    :param max_age: maximum age of that verification in seconds
    """
    known = manifests.reached_since(place, level, max_age)
    if known is None:
        return None
    with recorded(place, "checksum"):
        manifests.check_files(place, manifests.load(place))
    facts = {"level": level, "backup": place.backup_id, "verified_at": known["at"], **known}
    return Verified.from_json(facts)


@contextlib.contextmanager
def recorded(place: BackupPlace, level: str, **facts: Any) -> Iterator[None]:
    """Record with the backup that it failed at this level, but not a check that could not start."""
    try:
        yield
    except (CouldNotVerify, Locked, Refused):
        raise
    except BackstopError as error:
        manifests.record_verification(place, level, {"passed": False, "reason": str(error), **facts})
        raise


def run_drill(site: Site, place: BackupPlace, *, keep: bool = False, scratch_id: Optional[str] = None) -> Verified:
    """Verify a backup to level ``restored`` and record the result with the backup.

    :param keep: keep the scratch database for a rehearsal; else it is dropped
    :param scratch_id: id in its name if there is no operation
    """
    manifests.load(place).require_whole()
    name = scratch_name(site.operation.id if site.operation else scratch_id or new_id(), "drill")
    started = time.monotonic()
    with site.administer() as admin:
        who = prover(admin, site.database)
        with recorded(place, "restored", **who):
            built = build_database(site, place, name)
        passed = record_passed(place, built, who, METHOD, started)
        if not keep:
            site.progress.phase("dropping the scratch database", database=name)
            drop_scratch_database(admin, name)
    return passed


def prover(admin: Session, database: str) -> Dict[str, str]:
    """The role and the server that a drill's record names."""
    return {"role": server.rights(admin, database).role, "server": server.version_text(admin)}


def record_passed(
    place: BackupPlace, built: RestoredDatabase, who: Dict[str, str], method: str, started: float
) -> Verified:
    """Record with the backup that it passed its drill.

    :param started: by time.monotonic()
    """
    facts = {**dataclasses.asdict(built), **who, "recovery_seconds": round(time.monotonic() - started, 3)}
    passed = Verified("restored", place.backup_id, method, **facts)
    reach("drill.compared")
    kept = {key: fact for key, fact in passed.to_json().items() if key not in ("level", "backup", "database", "oid")}
    manifests.record_verification(place, "restored", {"passed": True, **kept})
    return passed
