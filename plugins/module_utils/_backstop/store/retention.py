# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Retention: which backups are kept, and why.

decide() is a pure function of the list of backups, the rule, the time, and the needs of operations. Backups are ordered
by the time in their manifest, never by names or file times, and grouped by server and exact name of the database. A
backup of single tables does not count as one of the database: backups of the same tables are a separate group.

Daily and weekly backups are one series, so one dump serves both. The newest verified backup is kept of each of the last
7 days that have one, and of each of the last 4 ISO weeks that have one. Days without a backup are not counted, so a
stalled job does not expire any backup. For the same reason the age of pre-migration and post-migration backups is
measured from the newest backup, not from now. A daily backup that is kept as a weekly one is not moved.

A backup that was not verified, is damaged, or has a time in the future is kept but does not count.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections import defaultdict
from typing import Any, Callable, Collection, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ..base.durable_files import bytes_below
from ..base.errors import BackstopError, Refused
from ..base.progress import parse_timestamp, timestamp
from ..base.remedies import Setting, remedy
from . import manifest as manifests
from .layout import BackupPlace, Store
from .manifest import Manifest
from .marks import mark_of

#: A backup counts from this level on.
_VERIFIED = manifests.LEVELS[manifests.LEVELS.index("readable") :]
#: Kinds to which the rule for days and weeks applies.
_SERIES = ("daily", "weekly")
#: Never pruned by the rule, and never a reason to prune another: it may contain the damage.
_BY_HAND = "emergency"

Group = Tuple[str, str, str]


@dataclasses.dataclass(frozen=True)
class Item:
    """The properties of a backup that retention needs."""

    place: BackupPlace
    #: size on disk in bytes
    size: int = 0
    #: system identifier of the server, empty if the role may not read it
    server: str = ""
    database: str = ""
    #: empty for the whole database, else the part of it
    scope: str = ""
    created: Optional[datetime.datetime] = None
    level: Optional[str] = None
    #: the operation that made it
    operation: Optional[str] = None
    #: why it cannot be used
    problem: Optional[str] = None
    #: reason of its mark
    mark: Optional[str] = None

    @property
    def backup_id(self) -> str:
        return self.place.backup_id

    @property
    def kind(self) -> str:
        return self.place.kind

    @property
    def group(self) -> Group:
        return (self.database, self.server, self.scope)

    @property
    def age_key(self) -> Tuple[datetime.datetime, str]:
        """Sort key of backups that have a time; the id decides between equal times."""
        return (self.created or datetime.datetime.min.replace(tzinfo=datetime.timezone.utc), self.backup_id)


@dataclasses.dataclass(frozen=True)
class Policy:
    """The rule."""

    days: int = 7
    weeks: int = 4
    pre_migration_days: int = 90
    post_migration_days: int = 90
    #: time zone of days and weeks; None is that of this host
    zone: Optional[datetime.tzinfo] = None

    def __post_init__(self) -> None:
        for name in ("days", "weeks", "pre_migration_days", "post_migration_days"):
            if getattr(self, name) < 1:
                found = "%s: %d" % (name, getattr(self, name))
                raise Refused("Retention cannot keep nothing", found=found, expected="1 or more")

    def days_of(self, kind: str) -> int:
        return self.pre_migration_days if kind == "pre-migration" else self.post_migration_days


#: The settings, by the names of the module's options and of the command's configuration, with their defaults.
OPTIONS: Mapping[str, Any] = {
    "keep_days": Policy.days,
    "keep_weeks": Policy.weeks,
    "keep_pre_migration_days": Policy.pre_migration_days,
    "keep_post_migration_days": Policy.post_migration_days,
    "time_zone": "",
    "max_delete_share": 0.5,
    "keep_row_days": 90,
}
#: Minimum of keep_row_days: an undo is guaranteed for this time.
LEAST_ROW_DAYS = 30


def row_days_of(options: Mapping[str, Any]) -> int:
    """How long rows that rollbacks kept as files stay after the end of their operation."""
    days = int(options["keep_row_days"])
    if days < LEAST_ROW_DAYS:
        raise Refused(
            "Rows that rollbacks kept would be removed too soon",
            found="keep_row_days: %d" % days,
            expected="%d or more, because an undo is promised for so long" % LEAST_ROW_DAYS,
        )
    return days


def policy_of(options: Mapping[str, Any]) -> Policy:
    """The rule for the values of OPTIONS."""
    return Policy(
        days=options["keep_days"],
        weeks=options["keep_weeks"],
        pre_migration_days=options["keep_pre_migration_days"],
        post_migration_days=options["keep_post_migration_days"],
        zone=zone_named(options["time_zone"]),
    )


@dataclasses.dataclass(frozen=True)
class Decision:
    """The decision on a backup, and all reasons for it."""

    item: Item
    keep: bool
    reasons: Tuple[str, ...]

    def to_json(self) -> Dict[str, Any]:
        item = self.item
        return {
            "backup": item.backup_id,
            "kind": item.kind,
            "database": item.database,
            "server": item.server,
            "scope": item.scope or "database",
            "created": timestamp(item.created) if item.created else None,
            "level": item.level,
            "size": item.size,
            "mark": item.mark,
            "problem": item.problem,
            "decision": "keep" if self.keep else "delete",
            "reason": "; ".join(self.reasons),
        }


def zone_named(name: str) -> Optional[datetime.tzinfo]:
    """The time zone of a name such as ``Africa/Harare``; without a name None, which means the host's time zone."""
    if not name:
        return None
    if name.upper() == "UTC":
        return datetime.timezone.utc
    try:
        import zoneinfo  # not in Python 3.8
    except ImportError:
        raise Refused(
            "A time zone by name needs Python 3.9 or newer on this host",
            found=name,
            hint="leave it empty for the host's own zone, or use UTC",
        ) from None
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise Refused(
            "There is no such time zone on this host",
            found=name,
            expected="a name such as Africa/Harare",
            hint="if the name is right, install the system's package tzdata",
        ) from error


# Deciding


def decide(
    items: Iterable[Item],
    policy: Policy,
    now: datetime.datetime,
    *,
    needed: Optional[Mapping[str, Sequence[str]]] = None,
    by_hand: Collection[str] = (),
) -> List[Decision]:
    """Decide on every backup; ordered by database, server and time.

    :param needed: backups that operations need, by id, with the reasons
    :param by_hand: ids that a user wants to remove in spite of the rule, but not of safety
    """
    groups: Dict[Group, List[Item]] = defaultdict(list)
    for item in items:
        groups[item.group].append(item)
    decisions: List[Decision] = []
    for group in sorted(groups):
        decisions += _decide_group(groups[group], policy, now, needed or {}, by_hand)
    return decisions


def why_not_counted(item: Item, now: datetime.datetime) -> Optional[str]:
    """Why a backup does not count; None if it counts."""
    if item.problem or item.created is None:
        return item.problem or "its time is not known"
    if item.level not in _VERIFIED:
        return "it was not verified to level %s" % _VERIFIED[0]
    if item.created > now:
        return "it is dated in the future"
    return None


def foundations(decisions: Iterable[Decision], now: datetime.datetime) -> List[Item]:
    """The backups that replace removed ones: the newest counted one of each database that loses any."""
    losing = {decision.item.group for decision in decisions if not decision.keep}
    counted: Dict[Group, List[Item]] = defaultdict(list)
    for decision in decisions:
        if decision.item.group in losing:
            counted[decision.item.group].append(decision.item)
    return [usable[0] for usable in (_usable(items, now) for items in counted.values()) if usable]


def _usable(items: Iterable[Item], now: datetime.datetime) -> List[Item]:
    """The counted backups, newest first. Emergency backups are excluded: they may contain the damage."""
    found = [item for item in items if item.kind != _BY_HAND and why_not_counted(item, now) is None]
    return sorted(found, key=lambda item: item.age_key, reverse=True)


def _decide_group(
    items: Sequence[Item],
    policy: Policy,
    now: datetime.datetime,
    needed: Mapping[str, Sequence[str]],
    by_hand: Collection[str],
) -> List[Decision]:
    usable = _usable(items, now)
    safety = _kept_for_safety(items, usable, now, needed)
    rule = _kept_by_rule(usable, policy)
    decisions = []
    for item in sorted(items, key=lambda item: item.age_key):
        named = item.backup_id in by_hand
        keeping = list(safety[item.backup_id])
        if named:
            keeping += _kept_from_hands(item, usable)
        else:
            keeping += rule[item.backup_id] + _kept_as_it_is(item, now)
        reasons = keeping or ["named to be removed" if named else _outlived(item, policy, usable)]
        decisions.append(Decision(item, bool(keeping), tuple(reasons)))
    return decisions


def _kept_for_safety(
    items: Sequence[Item], usable: Sequence[Item], now: datetime.datetime, needed: Mapping[str, Sequence[str]]
) -> Dict[str, List[str]]:
    """Reasons that apply in spite of the rule, and of a user who names the backup."""
    reasons: Dict[str, List[str]] = defaultdict(list)
    for item in items:
        if item.mark:
            reasons[item.backup_id].append("marked: " + item.mark)
        reasons[item.backup_id] += needed.get(item.backup_id, ())
    counted = usable or sorted(
        (item for item in items if why_not_counted(item, now) is None), key=lambda item: item.age_key, reverse=True
    )
    restored = [item for item in counted if item.level == "restored"]
    before_migrations = [item for item in counted if item.kind == "pre-migration"]
    for found, reason in (
        (counted, "the newest verified backup of its database"),
        (restored, "the newest that was restored in a drill"),
        (before_migrations, "the newest pre-migration backup: a rollback may go back to it"),
    ):
        for item in found[:1]:
            reasons[item.backup_id].append(reason)
    return reasons


def _kept_by_rule(usable: Sequence[Item], policy: Policy) -> Dict[str, List[str]]:
    reasons: Dict[str, List[str]] = defaultdict(list)
    series = [item for item in usable if item.kind in _SERIES]
    for key, wanted, name in ((_day, policy.days, "day"), (_week, policy.weeks, "week")):
        for number, (bucket, item) in enumerate(_newest_of_each(series, policy, key)[:wanted], 1):
            reasons[item.backup_id].append("the newest of %s %s, %s %d of %d" % (name, bucket, name, number, wanted))
    for item in usable:
        if item.kind not in _SERIES and _within(item, usable[0], policy):
            reasons[item.backup_id].append("at most %d days older than the newest backup" % policy.days_of(item.kind))
    return reasons


def _made(item: Item) -> datetime.datetime:
    """When a usable backup was made; a backup without a time is not usable."""
    if item.created is None:
        raise AssertionError("a backup without a time is not usable")
    return item.created


def _within(item: Item, newest: Item, policy: Policy) -> bool:
    return _made(newest) - _made(item) <= datetime.timedelta(days=policy.days_of(item.kind))


def _newest_of_each(
    newest_first: Sequence[Item], policy: Policy, key: Callable[[datetime.datetime], str]
) -> List[Tuple[str, Item]]:
    """The newest backup of each day or week that has one, newest first."""
    found: Dict[str, Item] = {}
    for item in newest_first:
        found.setdefault(key(_made(item).astimezone(policy.zone)), item)
    return list(found.items())


def _day(local: datetime.datetime) -> str:
    return local.date().isoformat()


def _week(local: datetime.datetime) -> str:
    year, week, _weekday = local.isocalendar()
    return "%d-W%02d" % (year, week)


def _kept_as_it_is(item: Item, now: datetime.datetime) -> List[str]:
    """Reasons for backups to which the rule does not apply."""
    if item.kind == _BY_HAND:
        return ["emergency backups are removed by hand only"]
    reason = why_not_counted(item, now)
    return ["not counted, and removed by hand only: " + reason] if reason else []


def _kept_from_hands(item: Item, usable: Sequence[Item]) -> List[str]:
    """A user may remove a damaged or reviewed backup, but none before a newer verified backup exists."""
    if item.created is None or any(other.age_key > item.age_key for other in usable):
        return []
    return ["there is no newer verified backup of its database yet"]


def _outlived(item: Item, policy: Policy, usable: Sequence[Item]) -> str:
    newer = "%s is newer and verified" % usable[0].backup_id
    if item.kind in _SERIES:
        return "neither the newest of one of the last %d days nor of one of the last %d weeks with a backup; %s" % (
            policy.days,
            policy.weeks,
            newer,
        )
    return "more than %d days older than the newest backup; %s" % (policy.days_of(item.kind), newer)


def check_share(decisions: Sequence[Decision], max_share: float, by_hand: Collection[str] = ()) -> None:
    """Refuse to remove too many at once: then the rule, the clock or the store is probably wrong.

    :param by_hand: backups that a user named; these do not count
    """
    going = [d.item.backup_id for d in decisions if not d.keep and d.item.backup_id not in by_hand]
    if going and len(going) > max_share * len(decisions):
        raise Refused(
            "Retention would delete %d of %d backups at once" % (len(going), len(decisions)),
            found=", ".join(going[:10]) + (", ..." if len(going) > 10 else ""),
            expected="at most a share of %s" % max_share,
            hint=remedy("if the reasons are right, run this again with a greater %s", Setting.SHARE_TO_DELETE),
            details={"items": [decision.to_json() for decision in decisions]},
        )


# Reading


def read_items(store: Store) -> List[Item]:
    """Every backup of a store, including unusable ones."""
    return [read_item(place) for place in store.backups()]


def read_item(place: BackupPlace, damage: Optional[Callable[[Manifest], Optional[str]]] = None) -> Item:
    """One backup.

    :param damage: returns what is missing of a backup, by its manifest, if the files are not next to it
    """
    mark = mark_of(place)
    item = Item(place, size=bytes_below(place.path), mark=str(mark["reason"]) if mark else None)
    try:
        manifest = manifests.load(place)
        return dataclasses.replace(
            item,
            server=manifest.server.system_identifier,
            database=manifest.database.name,
            scope=_scope(manifest),
            created=parse_timestamp(manifest.created),
            operation=manifest.operation,
            level=manifests.level_of(place),
            problem=_misplaced(place, manifest) or (damage(manifest) if damage else _damage(place, manifest)),
        )
    except BackstopError as error:
        return dataclasses.replace(item, problem=str(error))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return dataclasses.replace(item, problem="its manifest or verification is invalid: %r" % error)


def _scope(manifest: Manifest) -> str:
    return "" if manifest.is_whole else "%s: %s" % (manifest.scope, ", ".join(sorted(manifest.table_names)))


def _misplaced(place: BackupPlace, manifest: Manifest) -> Optional[str]:
    named = (manifest.kind, manifest.id)
    return None if named == (place.kind, place.backup_id) else "its manifest is that of %s/%s" % named


def _damage(place: BackupPlace, manifest: Manifest) -> Optional[str]:
    """The damage that file names and sizes show."""
    for name, entry in sorted(manifest.files.items()):
        path = place.file(name)
        if not os.path.isfile(path):
            return "it lacks the file %s" % name
        if os.path.getsize(path) != entry.size:
            return "its file %s has %d bytes, not %d" % (name, os.path.getsize(path), entry.size)
    return None
