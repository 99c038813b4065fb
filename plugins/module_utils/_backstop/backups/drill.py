# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill: restore a backup into a scratch database and compare it with its manifest. Its duration is the measured
recovery time."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, Iterator, Optional

from ..base.errors import BackstopError, CouldNotVerify, Locked, Refused
from ..base.failpoints import reach
from ..base.sql_names import scratch_name
from ..postgres import archive, server
from ..postgres.database_properties import drop_scratch_database
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import BackupPlace, new_id
from .restore import build_database

#: How a backup is verified to level ``restored``.
METHOD = "restored into a scratch database and compared"


def verify(
    site: Site, place: BackupPlace, level: str, *, keep: bool = False, scratch_id: Optional[str] = None
) -> Dict[str, Any]:
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
        return {"level": level, **run_drill(site, place, keep=keep, scratch_id=scratch_id)}
    method = "sha256 of every file"
    if level == "readable":
        method = "the whole archive was decoded"
        with site.administer() as admin:
            tools = site.tools(admin)
        with recorded(place, level):
            archive.decode(tools, site.archive(place, manifest), site.keep_open, progress=site.progress)
    manifests.record_verification(place, level, {"passed": True, "method": method})
    return {"level": level, "backup": place.backup_id, "method": method}


def verified_before(place: BackupPlace, level: str, max_age: float) -> Optional[Dict[str, Any]]:
    """The result of an earlier verification to this level, if it is recent enough and no file has changed since.

    :param max_age: maximum age of that verification in seconds
    """
    known = manifests.reached_since(place, level, max_age)
    if known is None:
        return None
    with recorded(place, "checksum"):
        manifests.check_files(place, manifests.load(place))
    found = {key: value for key, value in known.items() if key not in ("at", "passed")}
    return {"level": level, "backup": place.backup_id, "verified_at": known["at"], **found}


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


def run_drill(
    site: Site, place: BackupPlace, *, keep: bool = False, scratch_id: Optional[str] = None
) -> Dict[str, Any]:
    """Verify a backup to level ``restored`` and record the result with the backup.

    :param keep: keep the scratch database for a rehearsal; else it is dropped
    :param scratch_id: id in its name if there is no operation
    :returns: facts of build_database(), ``recovery_seconds``, role and server
    """
    manifests.load(place).require_whole()
    name = scratch_name(site.operation.id if site.operation else scratch_id or new_id(), "drill")
    started = time.monotonic()
    with site.administer() as admin:
        who = {"role": server.rights(admin, site.database).role, "server": server.version_text(admin)}
        with recorded(place, "restored", **who):
            facts = build_database(site, place, name)
        passed = record_passed(place, {**facts, **who, "method": METHOD}, started)
        if not keep:
            drop_scratch_database(admin, name)
    return passed


def record_passed(place: BackupPlace, facts: Dict[str, Any], started: float) -> Dict[str, Any]:
    """Record with the backup that it passed its drill, and what of the facts shows that; all of them.

    :param started: by time.monotonic()
    """
    facts = {**facts, "recovery_seconds": round(time.monotonic() - started, 3), "backup": place.backup_id}
    reach("drill.compared")
    kept = ("method", "role", "server", "recovery_seconds", "seconds", "tables", "rows", "tolerated")
    manifests.record_verification(place, "restored", {"passed": True, **{key: facts[key] for key in kept}})
    return facts
