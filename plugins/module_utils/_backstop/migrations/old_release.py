# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trying the old release on the rehearsed copy: does it work with the new schema?

It counts as working only if the trial could not have reached the live database. So the release runs isolated from all
networks and sockets. On the database's port it finds a relay that connects to the copy alone, whatever database it
requests. Its variables point there too; else it would only find that the live server does not answer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import re
import socket
from typing import Any, Callable, ContextManager, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from ..application import trial
from ..application.trial import Health, Outcome, Start
from ..base import environment_file
from ..base.errors import BackstopError, Refused
from ..postgres.connection import Settings, connect
from ..postgres.relay import only_to
from ..postgres.ways_out import is_unconfined, unclosable
from ..prisma.project import Project
from ..site import Site
from ..store.steps import OldReleaseTried
from .closed_copy import closed_copy

_ADDRESS = "127.0.0.1"
_URL = re.compile(r"(?:jdbc:)?postgres(?:ql)?(?:\+\w+)?://")
#: Parameters of a URL about the server's address and the connection to it.
_WAY = (
    "host", "hostaddr", "port", "dbname", "user", "password", "service", "passfile", "gssencmode", "channel_binding",
    "target_session_attrs", "requiressl",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class OldRelease:
    """A release, and how it is started."""

    #: its directory, whose ``.env`` files are read too
    path: str
    #: its Prisma project, whose schema and configuration name the variables
    project: Project
    command: Sequence[str]
    #: further settings for it, and how those and its ``.env`` are read
    environment_files: Sequence[str] = ()
    environment_rules: str = "dotenv"
    port_variable: str = "PORT"
    node_bin_dir: Optional[str] = None
    #: without one, a listener on the port is enough
    health_path: str = ""
    health: Health = Health()


@dataclasses.dataclass(frozen=True)
class Tried(OldReleaseTried):
    """``reason`` says why it does not work or was not tried; neither is an error."""

    seconds_to_health: Optional[float] = None
    #: of the callback, or of its error
    details: Dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> Dict[str, Any]:
        facts = {**vars(self), **self.details}
        del facts["details"]
        return {key: fact for key, fact in facts.items() if fact not in (None, "")}


def try_old_release(site: Site, scratch: str, release: OldRelease, callback: Callable[[int], Dict[str, Any]]) -> Tried:
    """Start the release on a scratch copy and test it.

    :param callback: tests the release on that port; raises if it does not work
    """
    live = site.connection
    # Its process manager may load ``.env``; a release that loads it itself does not override variables that are set.
    given: Dict[str, str] = {}
    for file in (os.path.join(release.path, ".env"), *release.environment_files):
        given.update(environment_file.read(file, release.environment_rules))
    # The release inherits this process's environment anyway; only its database URLs matter here.
    inherited = {name: value for name, value in os.environ.items() if _URL.match(value)}
    found = {**inherited, **_own_settings({release.path, release.project.path}), **given}
    names = _names(release.project)
    copy = _login(site.connection.with_database(scratch), live.database, map(found.get, names))
    port = trial.free_port(other_than=live.port)
    health_url = "http://127.0.0.1:%d%s" % (port, release.health_path) if release.health_path else ""
    asked_elsewhere: List[str] = []

    def serve(listeners: Sequence[socket.socket]) -> ContextManager[Any]:
        return _relay(listeners, copy, live.database, asked_elsewhere)

    try:
        _require_confined(copy)
        with closed_copy(site, scratch):
            try:
                outcome: Outcome[Dict[str, Any]] = trial.run(
                    Start(
                        release.command,
                        release.path,
                        port,
                        release.port_variable,
                        {**given, **pointed_to_copy(found, names, live, copy)},
                        release.node_bin_dir,
                    ),
                    lambda: callback(port),
                    dataclasses.replace(release.health, url=health_url),
                    database_port=live.port,
                    serve_database=serve,
                )
            except Refused:
                raise
            except BackstopError as error:
                reason = "; ".join([str(error), *("it asked for " + name for name in asked_elsewhere)])
                return Tried(True, False, reason, details=error.details)
    except Refused as error:
        return Tried(False, False, str(error))
    return Tried(True, True, seconds_to_health=round(outcome.seconds_to_health, 3), details=outcome.value)


@contextlib.contextmanager
def _relay(listeners: Sequence[socket.socket], copy: Settings, live: str, refused: List[str]) -> Iterator[None]:
    with only_to(listeners, copy, also_called=live) as names:
        try:
            yield
        finally:
            refused.extend(dict.fromkeys(names))


def _login(copy: Settings, live: str, urls: Iterable[Optional[str]]) -> Settings:
    """The copy, with the user of the release's own connection to the live database if known, else ours."""
    for url in filter(None, urls):
        with contextlib.suppress(BackstopError):
            own = Settings.from_url(url)
            if own.database == live:
                its = dataclasses.replace(copy, user=own.user, password=own.password)
                connect(its).close()
                return its
    return copy


def _require_confined(copy: Settings) -> None:
    with connect(copy) as session:
        ways = unclosable(session)
        if is_unconfined(session):
            ways = ["%s may run programs on the server (superuser or pg_execute_server_program)" % copy.user]
        if ways:
            raise Refused(
                "The release could leave the copy by SQL alone",
                found="; ".join(ways),
                hint="let the release connect as a user without that right",
            )


def _own_settings(folders: Iterable[str]) -> Dict[str, str]:
    """The settings in these folders' ``.env`` files; the release may read any of them."""
    found: Dict[str, str] = {}
    for folder in folders:
        for file in sorted(glob.glob(os.path.join(glob.escape(folder), ".env*"))):
            found.update(environment_file.read(file))
    return found


def _names(project: Project) -> List[str]:
    # A project with a fixed URL has no variables; the trial shows which database it uses.
    with contextlib.suppress(Refused):
        return project.url_variables()
    return ["DATABASE_URL"]


def pointed_to_copy(found: Mapping[str, str], names: Iterable[str], live: Settings, copy: Settings) -> Dict[str, str]:
    """The variables to change so that a release works on the copy: those whose value points to a database.

    :param found: the settings in the release's environment files
    :param names: variables that hold a URL, whether they are set or not
    """
    address = "%s:%d" % (_ADDRESS, live.port)
    hosts = {live.host, "localhost", "::1"}
    changed = {"PGHOST": _ADDRESS, "PGHOSTADDR": _ADDRESS, "PGPORT": str(live.port), "PGDATABASE": copy.database}
    changed["PGUSER"] = copy.user
    url = "postgresql://%s:trial@%s/%s" % (quote(copy.user, safe=""), address, quote(copy.database, safe=""))
    if copy.schema != "public":
        url += "?schema=" + quote(copy.schema, safe="")
    for name, value in found.items():
        text = value.strip()
        if _URL.match(text):
            changed[name] = _url_to_copy(text, address, copy) or url
        elif text in hosts:
            changed[name] = _ADDRESS
        elif text in {"%s:%d" % (host, live.port) for host in hosts}:
            changed[name] = address
        elif text == live.database and re.search(r"DB|DATABASE|POSTGRES|PG", name, re.IGNORECASE):
            changed[name] = copy.database
    for name in names:
        changed.setdefault(name, url)
    return changed


def _url_to_copy(url: str, address: str, copy: Settings) -> str:
    """The same URL for the copy; empty where it cannot be parsed."""
    try:
        parts = urlsplit(url[len("jdbc:") :] if url.startswith("jdbc:") else url)
    except ValueError:
        return ""
    pairs = [
        pair
        for pair in parse_qsl(parts.query, keep_blank_values=True)
        if pair[0] not in _WAY and not pair[0].startswith("ssl")
    ]
    query = "?" + urlencode(pairs, quote_via=quote) if pairs else ""
    prefix = "jdbc:" if url.startswith("jdbc:") else ""
    where = "%s/%s%s" % (address, quote(copy.database, safe=""), query)
    return "%s%s://%s:trial@%s" % (prefix, parts.scheme, quote(copy.user, safe=""), where)
