# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backup status of a database: the newest verified backup, its age, the store's contents, the outcome of the last
runs. Read from the store alone, so that it is available while the server is down."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any, Dict, List, Optional, Sequence

from ..base.amounts import human_size, human_time
from ..base.errors import BackstopError, CouldNotVerify, NotCopied
from ..base.progress import parse_timestamp, utc_now
from ..store import manifest as manifests
from ..store.layout import KINDS, BackupPlace
from ..store.manifest import Manifest
from .configuration import Configuration
from .exit_statuses import TooOld
from .run_records import RunRecords

#: How far the time of a backup may be in the future.
CLOCK_TOLERANCE = datetime.timedelta(minutes=5)
#: Levels that count as verified: the archive was read to its end.
VERIFIED = ("readable", "restored")
JOBS = ("backup", "drill", "prune", "copy")


@dataclasses.dataclass(frozen=True)
class Backup:
    """What is reported of a backup."""

    place: BackupPlace
    manifest: Manifest
    level: Optional[str]

    @property
    def created(self) -> datetime.datetime:
        return parse_timestamp(self.manifest.created)

    @property
    def verified(self) -> bool:
        return self.level in VERIFIED

    @property
    def seconds(self) -> float:
        """How long it took to make, by a monotonic clock."""
        return round(float(sum(self.manifest.seconds.values())), 3)

    def to_json(self) -> Dict[str, Any]:
        return {
            "backup": self.place.backup_id,
            "kind": self.place.kind,
            "path": self.place.path,
            "created": self.manifest.created,
            "database": self.manifest.database.name,
            "size": self.manifest.archive.size,
            "tables": len(self.manifest.tables),
            "rows": self.manifest.rows,
            "seconds": self.seconds,
            "commit": self.manifest.commit,
            "level": self.level,
            "encrypted": self.manifest.is_encrypted,
        }


@dataclasses.dataclass
class Standing:
    """What the store holds for one database at one moment."""

    configuration: Configuration
    now: datetime.datetime
    backups: List[Backup]
    #: unreadable manifests of backups of any database: the reason, by backup id
    unreadable: Dict[str, str]
    runs: Dict[str, Optional[Dict[str, Any]]]
    records: RunRecords

    @property
    def ahead(self) -> List[Backup]:
        """Backups with a time in the future: the clock was changed. Their age is unknown."""
        return [backup for backup in self.backups if backup.created > self.now + CLOCK_TOLERANCE]

    @property
    def newest(self) -> Optional[Backup]:
        """The newest verified backup."""
        ahead = self.ahead
        fit = [backup for backup in self.backups if backup.verified and backup not in ahead]
        return max(fit, key=lambda backup: (backup.created, backup.place.backup_id)) if fit else None

    @property
    def age(self) -> Optional[float]:
        newest = self.newest
        return max(0.0, (self.now - newest.created).total_seconds()) if newest else None

    @property
    def copied(self) -> Dict[str, str]:
        """Time of each backup that had a second copy at the last check of the copies, by its id."""
        return dict(self.records.copies()) if self.configuration.offsite else {}

    @property
    def newest_copied(self) -> Optional[datetime.datetime]:
        moments = [parse_timestamp(text) for text in self.copied.values()]
        ours = [moment for moment in moments if moment <= self.now + CLOCK_TOLERANCE]
        return max(ours) if ours else None

    def count(self, kind: str) -> int:
        return sum(backup.place.kind == kind for backup in self.backups)

    def size(self, kind: str) -> int:
        return sum(backup.manifest.archive.size for backup in self.backups if backup.place.kind == kind)

    def to_json(self) -> Dict[str, Any]:
        return {
            "configuration": self.configuration.name,
            "database": self.configuration.database,
            "newest": self.newest.to_json() if self.newest else None,
            "age": self.age,
            "backups": {kind: self.count(kind) for kind in KINDS},
            "sizes": {kind: self.size(kind) for kind in KINDS},
            "unreadable": self.unreadable,
            "ahead_of_the_clock": [backup.place.backup_id for backup in self.ahead],
            "runs": self.runs,
            "copies": sorted(self.copied) if self.configuration.offsite else None,
        }

    def judge(self, max_age: Optional[int]) -> None:
        """Raise unless the backups are good.

        :raises TooOld: there is no verified backup, or none that is recent enough
        :raises CouldNotVerify: there are backups, but none that is known to be good
        :raises BackstopError: the last backup or the last drill failed
        """
        newest = self.newest
        if newest is None and [backup for backup in self.backups if backup not in self.ahead]:
            raise CouldNotVerify(
                "None of the backups is verified",
                found="%d backups in %s" % (len(self.backups), self.configuration.store.root),
                hint="backstop verify, or make a new one: backstop backup",
            )
        if newest is None:
            raise TooOld("There is no backup", found=self._remarks() or None, hint="make one: backstop backup")
        if max_age is not None and (self.age or 0) > max_age:
            raise TooOld(
                "The newest verified backup is too old",
                found="; ".join(filter(None, [self.describe(), self._failures(), self._remarks()])),
                expected="younger than " + human_time(max_age),
                hint="see why the last runs failed, then make one: backstop backup",
            )
        failures = self._failures()
        if failures:
            raise BackstopError("The last run failed", found="%s; %s" % (failures, self.describe()))
        self._judge_copies()

    def _judge_copies(self) -> None:
        """:raises NotCopied: copying failed, or no recent backup was copied"""
        wanted = self.configuration.offsite
        if wanted is None:
            return
        failures = self._failures(("copy",))
        newest = self.newest_copied
        age = (self.now - newest).total_seconds() if newest else None
        too_old = wanted.max_age is not None and (age is None or age > wanted.max_age)
        if failures or too_old:
            what = "no second copy"
            if age is not None:
                what = "the newest second copy is of %s ago" % human_time(max(0.0, age))
            raise NotCopied(
                "The second copies are not as they should be",
                found="; ".join(filter(None, [failures, what, self.describe()])),
                hint="check the remote, then run: backstop copy",
            )

    def _failures(self, jobs: Sequence[str] = ("backup", "drill", "prune")) -> str:
        failed = [(job, run) for job, run in self.runs.items() if job in jobs and run and not run.get("passed")]
        return "; ".join("%s of %s: %s" % (job, run.get("at"), run.get("message")) for job, run in failed)

    def _remarks(self) -> str:
        remarks = []
        if self.configuration.offsite:
            remarks.append("%d second copies" % len(self.copied))
        if self.ahead:
            remarks.append("%d dated in the future: the clock jumped" % len(self.ahead))
        if self.unreadable:
            remarks.append("the manifest of %s cannot be read" % ", ".join(self.unreadable))
        return "; ".join(remarks)

    def describe(self) -> str:
        """One line on the newest verified backup."""
        newest = self.newest
        if newest is None:
            return "no verified backup"
        text = "%s (%s) is %s old, %s, %s" % (
            newest.place.backup_id,
            newest.place.kind,
            human_time(self.age or 0),
            human_size(newest.manifest.archive.size),
            newest.level,
        )
        remarks = self._remarks()
        return "%s; %s" % (text, remarks) if remarks else text


def read_standing(configuration: Configuration, now: Optional[datetime.datetime] = None) -> Standing:
    """Read every backup of the store.

    An unreadable manifest is listed and not fatal: it must not hide the good ones.
    """
    good, bad = manifests.read_each(configuration.store.directories())
    backups = [
        Backup(one.place, one.manifest, one.level)
        for one in good
        if one.manifest.database.name == configuration.database
    ]
    unreadable = {one.place.backup_id: one.reason for one in bad}
    records = RunRecords(configuration.store, configuration.database)
    runs = {job: records.last(job) for job in JOBS}
    return Standing(configuration, now or utc_now(), backups, unreadable, runs, records)
