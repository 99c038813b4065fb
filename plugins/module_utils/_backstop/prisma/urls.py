# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changing a connection URL for Prisma; all other parts stay as they were written."""

from __future__ import annotations

import re
from typing import List, Mapping, Optional, Tuple
from urllib.parse import SplitResult, quote, unquote, unquote_plus, urlsplit

from ..base.errors import Refused
from ..base.secret_texts import encoded_forms, passwords_of_url

_SECRET_PARAMETERS = ("password", "sslpassword")
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("postgresql", "postgres"):
        raise Refused(
            "The connection URL is not one of PostgreSQL",
            found="a URL that does not start with postgresql:// (it is not shown, it may hold a password)",
            expected="postgresql://user:password@host:port/database",
        )
    return parts


def _join(parts: SplitResult) -> str:
    # urlunsplit would omit the // of a URL without a host.
    query = "?" + parts.query if parts.query else ""
    fragment = "#" + parts.fragment if parts.fragment else ""
    return parts.scheme + "://" + parts.netloc + parts.path + query + fragment


def with_database(url: str, name: str) -> str:
    """The same URL with another database."""
    return _join(_split(url)._replace(path="/" + quote(name, safe="")))


def database_of(url: str) -> str:
    return unquote(_split(url).path.lstrip("/"))


def schema_of(url: str) -> str:
    """The schema that Prisma works in."""
    pairs = _pairs(_split(url).query)
    return next((unquote_plus(value) for key, value in pairs if key == "schema"), "public")


def with_session_settings(url: str, settings: Mapping[str, str], application_name: Optional[str] = None) -> str:
    """Add session settings (``lock_timeout``) and a name to a URL; existing settings stay unless they are given here.

    Prisma's engine and libpq both send the parameter ``options`` to the server; PGOPTIONS only works for libpq.
    """
    parts = _split(url)
    pairs = _pairs(parts.query)
    if settings:
        given = " ".join(unquote_plus(value) for key, value in pairs if key == "options")
        added = ["-c %s=%s" % (_setting_name(name), _escape(value)) for name, value in settings.items()]
        # Of two values for one setting the server takes the last.
        options = " ".join([given, *added] if given else added)
        pairs = [pair for pair in pairs if pair[0] != "options"] + [("options", quote(options, safe=""))]
    if application_name is not None:
        pairs = [pair for pair in pairs if pair[0] != "application_name"]
        pairs.append(("application_name", quote(application_name, safe="")))
    return _join(parts._replace(query="&".join(key + "=" + value for key, value in pairs)))


def _pairs(query: str) -> List[Tuple[str, str]]:
    """The parameters, still percent-encoded."""
    return [(key, value) for part in query.split("&") if part for key, _equals, value in (part.partition("="),)]


def _setting_name(name: str) -> str:
    if not _SETTING.fullmatch(name):
        raise Refused("This is not the name of a setting of PostgreSQL", found=repr(name))
    return name


def _escape(value: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", value)


def without_password(url: str) -> str:
    """The same URL for messages, without secrets."""
    parts = _split(url)
    account, _at, host = parts.netloc.rpartition("@")
    user = account.partition(":")[0]
    pairs = [pair for pair in _pairs(parts.query) if pair[0] not in _SECRET_PARAMETERS]
    netloc = user + "@" + host if user else host
    return _join(parts._replace(netloc=netloc, query="&".join("=".join(pair) for pair in pairs)))


def has_secret(url: str) -> bool:
    _split(url)
    return bool(passwords_of_url(url))


def secrets_in(url: str) -> List[str]:
    """Every form in which the URL's passwords can appear: the URL, each password as written, decoded and encoded."""
    _split(url)
    return sorted({url}.union(*map(encoded_forms, passwords_of_url(url))))
