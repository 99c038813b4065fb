# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors that the library raises: what was found, what was expected, what to do next."""

from __future__ import annotations

from typing import Any, Dict, Optional

from .remedies import Hint, Remedy


class BackstopError(Exception):
    """An error that tells a user what to do.

    :param message: what went wrong, one sentence without the final full stop
    :param found: the actual state
    :param expected: the required state
    :param hint: what to do next; a Remedy where it names something that Ansible and the command call differently
    :param details: further facts for the caller, free of secrets (JSON types only)
    """

    #: Exit status of the command line for this kind of error.
    exit_status = 1

    def __init__(
        self,
        message: str,
        *,
        found: Optional[str] = None,
        expected: Optional[str] = None,
        hint: Optional[Hint] = None,
        details: Optional[Dict[str, Any]] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.found = found
        self.expected = expected
        self.hint = hint
        self.details: Dict[str, Any] = details or {}

    @property
    def sqlstate(self) -> Optional[str]:
        """The server's error code (see sqlstates.py); None where the server did not raise the error."""
        state = self.details.get("sqlstate")
        return str(state) if state else None

    @property
    def sqlstate_class(self) -> str:
        return (self.sqlstate or "")[:2]

    @property
    def hint(self) -> Optional[str]:
        """What to do next, with the names that this process's users know."""
        return None if self.remedy is None else str(self.remedy)

    @hint.setter
    def hint(self, hint: Optional[Hint]) -> None:
        self.remedy = hint if isinstance(hint, Remedy) else Remedy(hint) if hint else None

    def __str__(self) -> str:
        parts = [self.message]
        if self.found:
            parts.append("Found: " + self.found)
        if self.expected:
            parts.append("Expected: " + self.expected)
        if self.hint:
            parts.append("What to do: " + self.hint)
        return " ".join(part if part.endswith((".", "!", "?")) else part + "." for part in parts)


class Refused(BackstopError):
    """A precondition does not hold; nothing was changed."""


class CouldNotVerify(BackstopError):
    """A check could not be evaluated, which counts as failed."""

    exit_status = 3


class NotCopied(BackstopError):
    """The backups exist and are good, but their second copies do not exist."""

    exit_status = 6


class Locked(BackstopError):
    """Another operation is running."""

    exit_status = 5
