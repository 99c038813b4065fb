# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Second copies of backups at a remote: made, pruned by their own retention, and fetched back. Asks no database.

A copy is made under a partial name, compared by hash and renamed; it exists once its manifest was written, as the last
file. Backups in the store are never changed by work on copies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import re
import shutil
import tempfile
from typing import Dict, Iterator, List, Optional, Sequence, Set
from urllib.parse import quote

from ..base.durable_files import publish_directory
from ..base.errors import BackstopError, CouldNotVerify, Refused
from ..base.failpoints import reach
from ..base.progress import utc_now
from ..site import Site
from ..store import manifest as manifests
from ..store import retention
from ..store.layout import PARTIAL_PREFIX, BackupPlace
from ..store.manifest import Manifest
from ..store.marks import mark_of
from ..store.offsite import MANIFEST, Listing, Offsite
from ..store.retention import Decision, Item, Policy
from .make import begun

_VERIFICATION = "verification.json"
_METHOD = "sha256 of every file, after it was fetched"


@dataclasses.dataclass(frozen=True)
class Copy:
    """A second copy."""

    item: Item
    #: None where it cannot be read
    manifest: Optional[Manifest]

    @property
    def usable(self) -> bool:
        return self.manifest is not None and self.item.problem is None


def read_copies(site: Site, offsite: Offsite) -> List[Copy]:
    """Every copy of this database's backups. A copy that cannot be read is listed with the problem."""
    return list(_read(site, offsite, Listing(offsite.files())))


def _read(site: Site, offsite: Offsite, listing: Listing) -> Iterator[Copy]:
    marks = {place.backup_id: mark_of(place) for place in site.store.backups()}
    known = [(kind, backup_id) for kind, backup_id in listing.copies() if _is_of(site.database, backup_id)]
    with tempfile.TemporaryDirectory(prefix="backstop-copies-") as folder:
        if known:
            wanted = ["--include=/*/*/" + name for name in (MANIFEST, _VERIFICATION)]
            offsite.call("copy", *wanted, offsite.remote, folder, check="The manifests of copies cannot be read")
        for kind, backup_id in known:
            place = BackupPlace(kind, backup_id, os.path.join(folder, kind, backup_id))
            item = retention.read_item(place, listing.damage_of(kind, backup_id))
            mark = marks.get(backup_id)
            item = dataclasses.replace(
                item,
                place=BackupPlace(kind, backup_id, offsite.place(kind, backup_id)),
                size=listing.size(kind, backup_id),
                mark=str(mark["reason"]) if mark else None,
            )
            try:
                manifest: Optional[Manifest] = manifests.load(place)
            except BackstopError:
                manifest = None
            yield Copy(item, manifest)


def _is_of(database: str, name: str) -> bool:
    """By the id, which starts with the database's name, so that a copy without a manifest is recognised too."""
    stem = quote(database, safe=" +@=~,").lstrip(".")
    return re.fullmatch(re.escape(stem) + r"-\d{8}T\d{6}Z-[0-9a-f]{6}", name) is not None


# Making copies


def copy_missing(site: Site, offsite: Offsite, policy: Policy, now: Optional[datetime.datetime] = None) -> List[str]:
    """Copy the verified backups of this database that have no copy and that the copies' retention would keep.

    Includes earlier backups whose copying failed, and those that deploys made. Oldest first, so that the next run
    continues after an interruption.

    :returns: ids of the copied backups
    :raises BackstopError: a backup was damaged since its verification; all others were copied
    """
    listing = Listing(offsite.files())
    _remove_debris(site, offsite, listing)
    there = [copy.item for copy in _read(site, offsite, listing)]
    missing = _missing(site, there, policy, now or utc_now())
    damaged: List[str] = []
    for number, item in enumerate(missing, 1):
        if _is_unharmed(item.place, damaged):
            copy = "%d of %d" % (number, len(missing))
            site.progress.phase("copying", backup=item.backup_id, copy=copy, bytes_total=item.size)
            _copy_one(site, offsite, item.place)
    if damaged:
        raise BackstopError(
            "A backup was damaged since it was verified and was not copied",
            found="; ".join(damaged),
            hint="make a new one: backstop backup",
        )
    return [item.backup_id for item in missing]


def _is_unharmed(place: BackupPlace, damaged: List[str]) -> bool:
    """A damaged backup must not be copied, and no longer counts as verified."""
    try:
        manifests.check_files(place, manifests.load(place))
    except BackstopError as error:
        damaged.append(str(error))
        manifests.record_verification(place, "checksum", {"passed": False, "reason": str(error)})
        return False
    return True


def _missing(site: Site, there: Sequence[Item], policy: Policy, now: datetime.datetime) -> List[Item]:
    known = {item.backup_id for item in there}
    ours = [
        item
        for item in retention.read_items(site.store)
        if item.database == site.database
        and item.backup_id not in known
        and retention.why_not_counted(item, now) is None
    ]
    kept = {one.item.backup_id for one in retention.decide([*there, *ours], policy, now) if one.keep}
    return sorted((item for item in ours if item.backup_id in kept), key=lambda item: item.age_key)


def _remove_debris(site: Site, offsite: Offsite, listing: Listing) -> None:
    """Remove what interrupted runs on this database left. The caller holds the lock of these runs."""
    for kind, name in listing.debris():
        plain = name[len(PARTIAL_PREFIX) :] if name.startswith(PARTIAL_PREFIX) else name
        if _is_of(site.database, plain):
            offsite.remove(offsite.at(kind, name))


def _copy_one(site: Site, offsite: Offsite, place: BackupPlace) -> None:
    manifest = manifests.load(place)
    partial = offsite.partial(place.kind, place.backup_id)
    final = offsite.place(place.kind, place.backup_id)
    offsite.put(place.path, partial, site.keep_open, site.progress)
    reach("copy.copied")
    site.progress.phase("comparing the copy", backup=place.backup_id)
    offsite.require_same(place.path, partial)
    reach("copy.compared")
    offsite.call("moveto", partial, final, check="A copy could not be renamed to its final name")
    reach("copy.moved")
    # Some remotes cannot rename: there a move is another copy.
    found = offsite.files(final)
    differing = [name for name, entry in manifest.files.items() if found.get(name) != entry.size]
    if differing:
        raise BackstopError("A copy is incomplete after it was renamed", found="%s: %s" % (final, differing[0]))
    if manifests.verification(place) is not None:
        offsite.write(place.kind, place.backup_id, _VERIFICATION, _content(place, _VERIFICATION))
    reach("copy.before-manifest")
    offsite.write(place.kind, place.backup_id, MANIFEST, _content(place, MANIFEST))
    reach("copy.committed")


def _content(place: BackupPlace, name: str) -> bytes:
    with open(place.file(name), "rb") as stream:
        return stream.read()


# Pruning copies


def prune_copies(
    site: Site,
    offsite: Offsite,
    policy: Policy,
    *,
    max_share: float = retention.OPTIONS["max_delete_share"],
    only_check: bool = False,
    now: Optional[datetime.datetime] = None,
) -> List[Decision]:
    """Remove the copies of this database's backups that their retention does not keep; the decision on each copy.

    Before a copy is removed, the newer copy that replaces it is compared with its manifest.

    :raises Refused: too many would be removed at once
    """
    now = now or utc_now()
    copies = {copy.item.backup_id: copy for copy in read_copies(site, offsite)}
    proved: Set[str] = set()
    damaged: Dict[str, str] = {}
    while True:
        items = [
            dataclasses.replace(copy.item, problem=damaged.get(name, copy.item.problem))
            for name, copy in copies.items()
        ]
        decisions = retention.decide(items, policy, now)
        unproved = [item for item in retention.foundations(decisions, now) if item.backup_id not in proved]
        if not unproved:
            break
        for item in unproved:
            try:
                _prove(site, offsite, copies[item.backup_id])
                proved.add(item.backup_id)
            except BackstopError as error:
                damaged[item.backup_id] = str(error)
    retention.check_share(decisions, max_share)
    if not only_check:
        for decision in decisions:
            if not decision.keep:
                _give_up(offsite, decision.item)
    return decisions


def _prove(site: Site, offsite: Offsite, copy: Copy) -> None:
    """Compare a copy with its backup if that still exists, else with the hashes of its manifest."""
    item = copy.item
    path = offsite.place(item.kind, item.backup_id)
    here = _unharmed(site, item)
    if here is not None:
        offsite.require_same(here.path, path)
        return
    found = offsite.sha256_of(path)
    expected = copy.manifest.files if copy.manifest is not None else {}
    differing = [name for name, entry in sorted(expected.items()) if found.get(name) != entry.sha256]
    if differing or not expected:
        raise BackstopError("A copy was changed", found="%s of %s" % (", ".join(differing[:3]), path))


def _unharmed(site: Site, item: Item) -> Optional[BackupPlace]:
    """The backup of this copy, if it still exists unchanged."""
    for place in site.store.backups(item.kind):
        if place.backup_id == item.backup_id:
            with contextlib.suppress(BackstopError):
                manifests.check_files(place, manifests.load(place))
                return place
    return None


def _give_up(offsite: Offsite, item: Item) -> None:
    """Delete the manifest first: without it the copy no longer exists, whatever happens."""
    path = offsite.place(item.kind, item.backup_id)
    offsite.call("deletefile", path + "/" + MANIFEST, check="A copy could not be deleted")
    reach("copy.given-up")
    offsite.remove(path)


# Fetching copies


def fetch(site: Site, offsite: Offsite, backup_id: Optional[str] = None) -> BackupPlace:
    """Fetch a copy into the store, by default the newest verified one, and verify each of its files.

    :raises Refused: the backup is in the store, or there is no such copy
    """
    copies = read_copies(site, offsite)
    item = _chosen(site, offsite, copies, backup_id).item
    final = site.store.backup_path(item.kind, item.backup_id)
    if os.path.lexists(final):
        raise Refused("Nothing is overwritten", found=final + " exists already", hint="verify or drill that one")
    site.store.prepare()
    if item.size > site.store.free_bytes():
        raise Refused(
            "There is no room for this copy in the store",
            found="%d bytes free in %s" % (site.store.free_bytes(), site.store.root),
            expected="%d bytes" % item.size,
        )
    partial = site.store.partial_path(item.kind, item.backup_id)
    try:
        with begun(site, item.kind, item.backup_id) as site:
            site.progress.phase("fetching", backup=item.backup_id, bytes_total=item.size)
            offsite.call(
                "copy",
                offsite.place(item.kind, item.backup_id),
                partial,
                check="A copy could not be fetched",
                keep_open=site.keep_open,
                progress=site.progress,
            )
            reach("fetch.copied")
            place = BackupPlace(item.kind, item.backup_id, partial)
            manifests.check_files(place, manifests.load(place))
            publish_directory(partial, final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    place = BackupPlace(item.kind, item.backup_id, final)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(place.file("lock"))
    manifests.record_verification(place, "checksum", {"passed": True, "method": _METHOD})
    return place


def _chosen(site: Site, offsite: Offsite, copies: Sequence[Copy], backup_id: Optional[str]) -> Copy:
    if backup_id is not None:
        for copy in copies:
            if copy.item.backup_id == backup_id and copy.usable:
                return copy
        problems = [str(copy.item.problem) for copy in copies if copy.item.backup_id == backup_id]
        raise Refused(
            "There is no copy of %s that can be used" % backup_id,
            found="; ".join(problems) or "%d copies of %s at %s" % (len(copies), site.database, offsite.remote),
            hint="backstop list --copies",
        )
    now = utc_now()
    good = [
        copy
        for copy in copies
        if copy.usable
        and copy.item.kind != "emergency"
        and not copy.item.scope
        and retention.why_not_counted(copy.item, now) is None
    ]
    if not good:
        raise CouldNotVerify(
            "There is no verified copy of %s" % site.database,
            found="%d copies at %s" % (len(copies), offsite.remote),
            hint="name one: backstop list --copies",
        )
    servers = sorted({copy.item.server for copy in good})
    if len(servers) > 1:
        raise Refused(
            "There are copies of databases called %s on more than one server" % site.database,
            found="servers %s at %s" % (", ".join(servers), offsite.remote),
            hint="name the copy: backstop list --copies",
        )
    return max(good, key=lambda copy: copy.item.age_key)
