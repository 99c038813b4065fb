# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sources of a database's password for the command: a separate file, libpq's password file, or a systemd credential.
Never its configuration, arguments or environment."""

from __future__ import annotations

import dataclasses
import os
import stat
from typing import List, Optional

from ..postgres.connection import Settings
from .exit_statuses import UsageError


@dataclasses.dataclass(frozen=True)
class PasswordSource:
    """One of: ``password_file``, ``passfile``, ``password_credential``, and its value."""

    key: str
    value: str

    def password(self, settings: Settings) -> str:
        """The password for a connection."""
        if self.key == "passfile":
            return _from_passfile(self.value, settings)
        path = self.value if self.key == "password_file" else _credential(self.value)
        # systemd passes credentials in a directory that only the service can enter.
        lines = read_private(path, "password file", check=self.key == "password_file").splitlines()
        if len(lines) != 1 or not lines[0]:
            raise UsageError(
                "The password file does not hold one password",
                found="%d lines in %s" % (len(lines), path),
                expected="the password alone on one line",
                hint="a file in the form host:port:database:user:password is named by passfile",
            )
        return lines[0]


def read_private(path: str, what: str, *, check: bool = True) -> str:
    """Read a file that only its owner may read.

    :param what: what it is, for the errors
    :param check: refuse a file that others can read, or that another unprivileged user owns
    """
    try:
        with open(path, encoding="utf-8") as stream:
            state = os.fstat(stream.fileno())
            text = stream.read()
    except FileNotFoundError:
        raise UsageError("The %s is missing" % what, found="no file " + path) from None
    except UnicodeDecodeError:
        raise UsageError("The %s is not UTF-8" % what, found=path) from None
    except OSError as error:
        raise UsageError(
            "The %s cannot be read" % what,
            found="%s: %s" % (path, error.strerror),
            hint="run as the user that owns it: runuser -u backstop -- backstop ...",
        ) from None
    mode = stat.S_IMODE(state.st_mode)
    if check and mode & 0o077:
        raise UsageError(
            "Other users can read the %s" % what,
            found="%s has mode %04o" % (path, mode),
            expected="0600",
            hint="chmod 600 %s; if it held a secret, change that too" % path,
        )
    if check and os.geteuid() != 0 and state.st_uid not in (0, os.geteuid()):
        raise UsageError(
            "The %s belongs to another user" % what,
            found="%s is owned by uid %d, this runs as uid %d" % (path, state.st_uid, os.geteuid()),
        )
    return text


def _credential(name: str) -> str:
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise UsageError(
            "There are no systemd credentials here",
            found="CREDENTIALS_DIRECTORY is not set, and the password is the credential %s" % name,
            hint="run this as the systemd unit with LoadCredential=%s:..., or use password_file" % name,
        )
    return os.path.join(folder, name)


def _from_passfile(path: str, settings: Settings) -> str:
    """As libpq reads it: the first matching line; a socket directory counts as localhost."""
    host = "localhost" if settings.host.startswith("/") else settings.host
    wanted = [host, str(settings.port), settings.database, settings.user]
    for line in read_private(path, "password file").splitlines():
        fields = _fields(line)
        if fields and all(field in ("*", value) for field, value in zip(fields, wanted)):
            return fields[4]
    raise UsageError(
        "The password file has no line for this connection",
        found="none in %s for %s" % (path, settings.masked),
        expected="host:port:database:user:password, each but the last also *",
    )


def _fields(line: str) -> Optional[List[str]]:
    r"""The five fields of a line, with ``\:`` and ``\\`` as escapes; None for a comment or another
    line."""
    if line.startswith("#"):
        return None
    fields, escaped = [""], False
    for character in line:
        if escaped or (character not in "\\:") or (character == ":" and len(fields) == 5):
            fields[-1] += character
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            fields.append("")
    return fields if len(fields) == 5 else None
