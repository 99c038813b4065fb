# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Facts of a backup for reports, from its manifest and its verification."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional

from ..base.errors import BackstopError
from ..store import manifest as manifests
from ..store.layout import BackupPlace, Store
from ..store.manifest import Manifest

#: What a backup is to an operation.
BEFORE, AFTER, RESTORED, KEPT = "before", "after", "restored", "kept"
ROLES = {
    BEFORE: "the state before the change",
    AFTER: "the state after the change",
    RESTORED: "the state that was restored",
    KEPT: "what was removed or replaced",
}


@dataclasses.dataclass(frozen=True)
class Verification:
    """The last result of one level."""

    level: str
    at: str
    passed: bool
    method: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class BackupFacts:
    """A backup. All but its id is unknown when it is not in the store any more, or cannot be read."""

    id: str
    role: str
    kind: Optional[str] = None
    created: Optional[str] = None
    #: why nothing more is known of it
    problem: Optional[str] = None
    size: Optional[int] = None
    tables: Optional[int] = None
    rows: Optional[int] = None
    #: how long it took to make
    seconds: Optional[float] = None
    #: the highest level that it has reached
    level: Optional[str] = None
    verifications: List[Verification] = dataclasses.field(default_factory=list)
    #: measured by the last drill
    recovery_seconds: Optional[float] = None
    drilled: Optional[str] = None
    #: role and server of that drill
    drilled_as: Optional[str] = None
    drilled_on: Optional[str] = None
    encrypted: bool = False
    server: Optional[str] = None
    tool: Optional[str] = None
    commit: Optional[str] = None
    sha256: Optional[str] = None
    not_covered: List[Dict[str, str]] = dataclasses.field(default_factory=list)


def find(store: Store, backup_id: str) -> Optional[BackupPlace]:
    """The backup of this id; None without one."""
    found = [place for place in store.backups() if place.backup_id == backup_id]
    return found[0] if found else None


def read_manifest(place: Optional[BackupPlace]) -> Optional[Manifest]:
    """None where it cannot be read: the report has the rest."""
    try:
        return manifests.load(place) if place else None
    except BackstopError:
        return None


def backup_facts(store: Store, backup_id: str, role: str) -> BackupFacts:
    place = find(store, backup_id)
    if place is None:
        return BackupFacts(backup_id, role, problem="it is not in the store any more")
    try:
        return facts_of(place, manifests.load(place), role)
    except BackstopError as error:
        return BackupFacts(backup_id, role, kind=place.kind, problem=str(error))


def facts_of(place: BackupPlace, manifest: Manifest, role: str = "") -> BackupFacts:
    levels: Dict[str, Dict[str, Any]] = (manifests.verification(place) or {"levels": {}})["levels"]
    drill = levels.get("restored", {})
    archive = manifest.files.get(manifest.archive.file)
    return BackupFacts(
        id=place.backup_id,
        role=role,
        kind=place.kind,
        created=manifest.created,
        size=manifest.archive.size,
        tables=len(manifest.tables),
        rows=manifest.rows,
        seconds=round(float(sum(manifest.seconds.values())), 3),
        level=manifests.level_of(place),
        verifications=[
            Verification(name, one["at"], bool(one["passed"]), one.get("method", ""), one.get("reason", ""))
            for name, one in sorted(levels.items(), key=lambda pair: manifests.LEVELS.index(pair[0]))
        ],
        recovery_seconds=drill.get("recovery_seconds"),
        drilled=drill.get("at"),
        drilled_as=drill.get("role"),
        drilled_on=drill.get("server"),
        encrypted=manifest.is_encrypted,
        server=manifest.server.version,
        tool=manifest.archive.tool,
        commit=manifest.commit,
        sha256=archive.sha256 if archive else None,
        not_covered=[dataclasses.asdict(one) for one in manifest.not_covered],
    )
