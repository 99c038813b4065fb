# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate on the safety copy: whether this server can make one and in what time, tried on a scratch database."""

from __future__ import annotations

import contextlib
from typing import Iterator, Optional, Tuple

from ...backups.scratch import name_for, scratch_database
from ...base.errors import BackstopError, Refused
from ...base.remedies import Setting, remedy
from ...postgres import replication, server
from ...postgres.connection import Session
from ...postgres.database_properties import drop_scratch_database
from ...postgres.template_copy import CLONE, CLONES_FROM, FILES, copy_database
from ...site import Site
from .disk import data_directory, free_bytes, size_text
from .inputs import GateInputs

#: What a user can ask for.
SAFETY_COPIES = ("off", "auto", CLONE, FILES)
NOT_REQUESTED = "not requested"
#: What the scratch database is filled with: enough to tell sharing blocks from copying them.
_FILLER_BYTES = 64 * 1024 * 1024


def safety_copy(site: Site, session: Session, question: GateInputs) -> str:
    """Decides how the database is copied; see GateInputs.copy_method."""
    wanted = question.safety_copy
    if wanted == "off":
        return NOT_REQUESTED
    obstacles = server.obstacles_to_rename(session, site.database)
    if obstacles:
        raise Refused(
            "The database cannot be copied",
            found=", ".join(obstacles),
            expected="no subscription, replication slot or prepared transaction in " + site.database,
            hint=remedy("drop them, or set %s to off", Setting.SAFETY_COPY),
        )
    if wanted == FILES:
        found = _by_files(site, session, question)
    else:
        reason = _why_not_cloned(site, session, question)
        if reason is not None and wanted == "auto":
            return "none: " + reason
        if reason is not None:
            raise Refused(
                "The server cannot clone a database",
                found=reason,
                expected="PostgreSQL 18 or newer on a file system that shares blocks (XFS with reflink, btrfs)",
                hint=remedy("set %s to auto, template or off", Setting.SAFETY_COPY),
            )
        found = "a clone, which shares the blocks of the database"
    question.copy_method = FILES if wanted == FILES else CLONE
    return found + _for_standbys(session)


def _by_files(site: Site, session: Session, question: GateInputs) -> str:
    size = server.database_size(session, site.database)
    with _filled(site, session) as (admin, source, filler):
        seconds, _used = _tried(site, admin, source, FILES, None)
    expected = seconds * max(1.0, size / filler)
    if expected > question.safety_copy_seconds:
        raise Refused(
            "Copying the database takes too long",
            found="about %.0f s for %s, by a copy of %s on this server"
            % (expected, size_text(size), size_text(filler)),
            expected="at most %g s" % question.safety_copy_seconds,
            hint=remedy("raise %s, or set %s to off", Setting.SAFETY_COPY_SECONDS, Setting.SAFETY_COPY),
        )
    return "a copy of every file, %s in about %.0f s" % (size_text(size), expected)


def _why_not_cloned(site: Site, session: Session, question: GateInputs) -> Optional[str]:
    """None if the server shares blocks, as seen in the free space; else why not."""
    major = server.major_version(session)
    if major < CLONES_FROM:
        return "PostgreSQL %d cannot clone, version %d and newer can" % (major, CLONES_FROM)
    try:
        directory = question.database_directory or data_directory(site, session)
    except BackstopError as error:
        return "whether its file system shares blocks cannot be measured from here: " + error.message
    with _filled(site, session) as (admin, source, filler):
        try:
            # The time of the first has the server's checkpoint in it, the space of the others has not. What other
            # programs free meanwhile must not count as shared.
            seconds, _used = _tried(site, admin, source, CLONE, None)
            used = max(_tried(site, admin, source, CLONE, directory)[1] for _time in range(3))
        except BackstopError as error:
            return error.found or error.message
    if used > filler / 2:
        return "its file system does not share blocks: a clone of %s used %s" % (size_text(filler), size_text(used))
    if seconds > question.safety_copy_seconds:
        return "a clone of %s took %.1f s, most of it for the server's checkpoints" % (size_text(filler), seconds)
    return None


@contextlib.contextmanager
def _filled(site: Site, session: Session) -> Iterator[Tuple[Session, str, int]]:
    """A scratch database with some rows; an administrative session, its name and its size."""
    with scratch_database(site, session, "copied") as (admin, name):
        with site.connect(name) as inside:
            inside.execute("CREATE TABLE public.filler (content text)")
            inside.execute("ALTER TABLE public.filler ALTER content SET STORAGE PLAIN")
            inside.execute(
                "INSERT INTO public.filler SELECT repeat('x', 8000) FROM generate_series(1, %s)",
                (_FILLER_BYTES // 8192,),
            )
        yield admin, name, server.database_size(admin, name)


def _tried(site: Site, admin: Session, source: str, method: str, directory: Optional[str]) -> Tuple[float, int]:
    """Copy the scratch database.

    :returns: seconds, and the bytes that it took of the file system's space
    """
    copy = name_for(site, "copy")
    drop_scratch_database(admin, copy)
    before = free_bytes(directory) if directory else 0
    try:
        return copy_database(admin, source, copy, method), before - free_bytes(directory) if directory else 0
    finally:
        drop_scratch_database(admin, copy)


def _for_standbys(session: Session) -> str:
    there = replication.standbys(session)
    return "; standbys copy every file and need that space: %s" % ", ".join(map(str, there)) if there else ""
