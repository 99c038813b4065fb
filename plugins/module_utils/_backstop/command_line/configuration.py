# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration of one database on a host: ``/etc/backstop/NAME.conf``, JSON, mode 0600, without a password."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from ..base.encryption import require_recipients
from ..base.errors import BackstopError
from ..base.progress import Progress
from ..base.sql_names import near_names
from ..postgres.connection import Settings
from ..postgres.pgbouncer import END, REFUSE, Pooler
from ..site import Site
from ..store import retention
from ..store.layout import Store
from ..store.offsite import Offsite
from .application import RELEASE, ApplicationCommands
from .exit_statuses import UsageError
from .passwords import PasswordSource, read_private

DIRECTORY = "/etc/backstop"
SUFFIX = ".conf"
EVENTS = ("success", "failure", "copy_failure", "missing")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_PASSWORD_KEYS = ("password_file", "passfile", "password_credential")


@dataclasses.dataclass(frozen=True)
class Webhook:
    """Where events are posted. The URL may hold a token, so it is never shown."""

    url: str = dataclasses.field(repr=False)
    events: Tuple[str, ...] = ("failure", "copy_failure", "missing")


@dataclasses.dataclass(frozen=True)
class OffsiteCopies:
    """Where second copies are stored, and how long."""

    offsite: Offsite
    #: maximum age of the newest copied backup
    max_age: Optional[int] = None
    #: a value for each of retention.OPTIONS
    retention: Mapping[str, Any] = dataclasses.field(default_factory=lambda: dict(retention.OPTIONS))


@dataclasses.dataclass(frozen=True)
class Configuration:
    """The settings of one database."""

    name: str
    path: str
    connection: Settings
    administration: Settings
    store: Store
    client_bin_dir: Optional[str] = None
    password: Optional[PasswordSource] = None
    max_age: Optional[int] = None
    textfile: Optional[str] = None
    webhook: Optional[Webhook] = None
    #: public keys for which backups are encrypted
    age_recipients: Tuple[str, ...] = ()
    #: file of the private key that decrypts them, if this host has it
    age_identity: Optional[str] = None
    #: how a rollback stops and starts the application; without it the user does that manually
    application: Optional[ApplicationCommands] = None
    #: second copies; none by default
    offsite: Optional[OffsiteCopies] = None
    #: PgBouncers that clients go through
    poolers: Tuple[Pooler, ...] = ()
    #: how long backups are kept: a value for each of retention.OPTIONS
    retention: Mapping[str, Any] = dataclasses.field(default_factory=lambda: dict(retention.OPTIONS))

    @property
    def database(self) -> str:
        return self.connection.database

    def site(self, progress: Optional[Progress] = None) -> Site:
        """The Site, with passwords: only work on the server reads them."""
        return Site(
            self._with_password(self.connection),
            self._with_password(self.administration),
            self.store,
            self.client_bin_dir,
            watched_by=progress,
            poolers=self.poolers,
            recipients=self.age_recipients,
            identity=self.age_identity,
        )

    def _with_password(self, settings: Settings) -> Settings:
        if self.password is None:
            return settings
        return dataclasses.replace(settings, password=self.password.password(settings))


def names(directory: str) -> List[str]:
    """The configurations of a host."""
    try:
        entries = os.listdir(directory)
    except OSError as error:
        raise UsageError(
            "The configurations cannot be listed",
            found="%s: %s" % (directory, error.strerror),
            hint="the role scheduled_backups writes them; --config-directory names another place",
        ) from None
    return sorted(entry[: -len(SUFFIX)] for entry in entries if entry.endswith(SUFFIX) and not entry.startswith("."))


def load(directory: str, name: str) -> Configuration:
    """Read the configuration of this name.

    :raises UsageError: names the file, the key and, for a misspelt key, the one that was probably meant
    """
    known = names(directory)
    if name not in known:
        near = near_names(name, known)
        raise UsageError(
            "There is no configuration %s" % name,
            found="%d in %s" % (len(known), directory),
            expected="perhaps " + ", ".join(near) if near else None,
        )
    path = os.path.join(directory, name + SUFFIX)
    try:
        return _read(name, path)
    except UsageError:
        raise
    except BackstopError as error:
        raise UsageError(
            "%s: %s" % (path, error.message), found=error.found, expected=error.expected, hint=error.hint
        ) from None


def _read(name: str, path: str) -> Configuration:
    if not _NAME.fullmatch(name):
        raise UsageError("Invalid name of a configuration", found=repr(name), expected="letters, digits, . _ -")
    given = _Section(path, "", _object(path, _parse(path, read_private(path, "configuration"))))
    given.require_known(("connection", "store"), tuple(_FIELDS))
    connection = _connection(given, "connection", Settings())
    if not connection.database or not connection.user:
        raise given.error("connection", "no database" if connection.user else "no user", "database and user")
    administration = connection.with_database("postgres")
    if "administration" in given.values:
        administration = _connection(given, "administration", administration)
    values: Dict[str, Any] = {key: _FIELDS[key](given, key) for key in given.values if key in _FIELDS}
    passwords = [key for key in _PASSWORD_KEYS if key in values]
    if len(passwords) > 1:
        raise given.error(passwords[1], "beside " + passwords[0], "one place for the password")
    source = PasswordSource(passwords[0], values.pop(passwords[0])) if passwords else None
    values.pop("administration", None)
    return Configuration(
        name=name,
        path=path,
        connection=connection,
        administration=administration,
        store=Store(_place(given, "store")),
        password=source,
        **values,
    )


def _parse(path: str, text: str) -> Any:
    def once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
        twice = sorted({key for key, _value in pairs if [other for other, _value in pairs].count(key) > 1})
        if twice:
            raise UsageError("The configuration has a key twice", found="%s in %s" % (twice[0], path))
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=once)
    except ValueError as error:
        raise UsageError("The configuration is not JSON", found="%s: %s" % (path, error)) from None


def _object(path: str, value: Any) -> Dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError("The configuration is not a JSON object", found="%s: %s" % (path, type(value).__name__))
    return value


@dataclasses.dataclass
class _Section:
    """An object of the configuration, and its error messages. Values are not shown, because one may be a secret."""

    path: str
    place: str
    values: Mapping[str, Any]

    def error(self, key: str, found: str, expected: str, hint: Optional[str] = None) -> UsageError:
        return UsageError(
            "The configuration %s is invalid at %s" % (self.path, self.place + key),
            found=found,
            expected=expected,
            hint=hint,
        )

    def require_known(self, required: Tuple[str, ...], optional: Tuple[str, ...]) -> None:
        known = required + optional
        for key in self.values:
            if key in ("password", "url") and key not in known:
                raise self.error(
                    key, "a key that may hold a secret", "no password in this file", "use " + ", ".join(_PASSWORD_KEYS)
                )
            if key not in known:
                near = near_names(key, known)
                hint = "did you mean %s?" % near[0] if near else None
                raise self.error(key, "an unknown key", "one of " + ", ".join(sorted(known)), hint)
        for key in required:
            if key not in self.values:
                raise self.error(key, "it is missing", "a value")

    def inner(
        self, key: str, expected: str, required: Tuple[str, ...] = (), optional: Tuple[str, ...] = ()
    ) -> "_Section":
        """An object in this one, with these keys."""
        value = self.values[key]
        if not isinstance(value, dict):
            raise self.error(key, type(value).__name__, expected)
        section = _Section(self.path, key + ".", value)
        section.require_known(required, optional)
        return section


_CONNECTION = {
    "host": str,
    "port": int,
    "user": str,
    "database": str,
    "schema": str,
    "sslmode": str,
    "sslrootcert": str,
    "connect_timeout": int,
}


def _connection(section: _Section, key: str, base: Settings) -> Settings:
    inner = section.inner(key, "an object with host, port, user, database", optional=tuple(_CONNECTION))
    for name, value in inner.values.items():
        if not isinstance(value, _CONNECTION[name]) or isinstance(value, bool):
            raise inner.error(name, type(value).__name__, _CONNECTION[name].__name__)
    return Settings.from_mapping(inner.values, base)


def _text(section: _Section, key: str) -> str:
    value = section.values[key]
    if not isinstance(value, str) or not value:
        raise section.error(key, type(value).__name__, "a text")
    return value


def _place(section: _Section, key: str) -> str:
    value = _text(section, key)
    if not os.path.isabs(value):
        raise section.error(key, "a relative path", "an absolute path, as cron and systemd start anywhere")
    return value


def _duration(section: _Section, key: str) -> int:
    try:
        return duration(section.values[key])
    except UsageError as error:
        raise section.error(key, str(error.found), str(error.expected)) from None


def duration(text: Any) -> int:
    """The seconds of ``90m``, ``26h``, ``8d`` or of a number of seconds."""
    match = re.fullmatch(r"([0-9]+)([smhd]?)", str(text))
    if not match or not int(match.group(1)):
        raise UsageError("Invalid duration", found=repr(text), expected="a number with s, m, h or d, such as 26h")
    return int(match.group(1)) * _UNITS[match.group(2) or "s"]


def _webhook(section: _Section, key: str) -> Webhook:
    inner = section.inner(key, "an object with url and events", ("url",), ("events",))
    url = _text(inner, "url")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise inner.error("url", "another kind of address", "http:// or https://")
    events = inner.values.get("events", list(Webhook(url).events))
    if not isinstance(events, list) or not events or [event for event in events if event not in EVENTS]:
        raise inner.error("events", repr(events), "a list out of " + ", ".join(EVENTS))
    return Webhook(url, tuple(events))


def _application(section: _Section, key: str) -> ApplicationCommands:
    inner = section.inner(key, "an object with stop and start", ("stop", "start"))
    for name, argv in inner.values.items():
        if not isinstance(argv, list) or not argv or not all(isinstance(word, str) and word for word in argv):
            raise inner.error(name, type(argv).__name__, "a list of texts: the program and its arguments")
    if not any(RELEASE in word for word in inner.values["start"]):
        raise inner.error("start", "no argument with " + RELEASE, "a command that starts the release with that commit")
    return ApplicationCommands(tuple(inner.values["stop"]), tuple(inner.values["start"]))


def _offsite(section: _Section, key: str) -> OffsiteCopies:
    inner = section.inner(key, "an object with remote", ("remote",), ("rclone_config", "retention", "max_age"))
    return OffsiteCopies(
        Offsite(_text(inner, "remote"), _place(inner, "rclone_config") if "rclone_config" in inner.values else None),
        _duration(inner, "max_age") if "max_age" in inner.values else None,
        _retention(inner, "retention") if "retention" in inner.values else dict(retention.OPTIONS),
    )


def _retention(section: _Section, key: str) -> Dict[str, Any]:
    inner = section.inner(key, "an object with " + ", ".join(retention.OPTIONS), optional=tuple(retention.OPTIONS))
    for name, given in inner.values.items():
        if name == "time_zone":
            if not isinstance(given, str):
                raise inner.error(name, type(given).__name__, "a text such as Africa/Harare")
        elif isinstance(given, bool) or not isinstance(given, (int, float)):
            raise inner.error(name, type(given).__name__, "a number")
        elif name == "max_delete_share":
            if not 0 <= given <= 1:
                raise inner.error(name, str(given), "a share of the store's backups, 0 to 1")
        elif not isinstance(given, int) or given < 1:
            raise inner.error(name, str(given), "a whole number, 1 or more")
    options = {**retention.OPTIONS, **inner.values}
    retention.policy_of(options)
    retention.row_days_of(options)
    return options


def _poolers(section: _Section, key: str) -> Tuple[Pooler, ...]:
    """From a private file, because the consoles have passwords."""
    path = _place(section, key)
    given = _parse(path, read_private(path, "file of the poolers"))
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise section.error(key, "no list of objects in " + path, "a list of objects with console, pools, wait, held")
    return tuple(_pooler(_Section(path, "[%d]." % number, one)) for number, one in enumerate(given))


def _pooler(section: _Section) -> Pooler:
    section.require_known(("console",), ("pools", "wait", "held"))
    one: Dict[str, Any] = {"pools": [], "wait": 10, "held": REFUSE, **section.values}
    for name, right in (
        ("console", isinstance(one["console"], dict)),
        ("pools", isinstance(one["pools"], list)),
        ("wait", re.fullmatch(r"[0-9.]+", str(one["wait"]))),
        ("held", one["held"] in (REFUSE, END)),
    ):
        if not right:
            raise section.error(
                name, type(one[name]).__name__, "console: an object; pools: a list; wait: seconds; held: refuse or end"
            )
    return Pooler.from_mapping(one)


def _recipients(section: _Section, key: str) -> Tuple[str, ...]:
    value = section.values[key]
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise section.error(key, type(value).__name__, "a list of public keys of age")
    require_recipients(value)
    return tuple(value)


def _any(section: _Section, key: str) -> Any:
    return section.values[key]


#: The keys besides ``connection`` and ``store``, and their parsers.
_FIELDS: Dict[str, Callable[[_Section, str], Any]] = {
    "administration": _any,
    "client_bin_dir": _place,
    "password_file": _place,
    "passfile": _place,
    "password_credential": _text,
    "max_age": _duration,
    "textfile": _place,
    "webhook": _webhook,
    "retention": _retention,
    "age_recipients": _recipients,
    "age_identity": _place,
    "offsite": _offsite,
    "application": _application,
    "poolers": _poolers,
}
