# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The errors that the library raises: what was found, what was expected, what to do next."""

from __future__ import annotations

from typing import Any, Dict, Optional

from .remedies import Hint, Remedy


class BackstopError(Exception):
    """A failure told so that a person can act on it.

    :param message: what went wrong, one sentence without the final full stop
    :param found: what is there
    :param expected: what should be there
    :param hint: what to do next; a remedy where it names something that each way in calls otherwise
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
        """The server's code of the error (see sqlstates.py); None where it was not the server that refused."""
        state = self.details.get("sqlstate")
        return str(state) if state else None

    @property
    def sqlstate_class(self) -> str:
        return (self.sqlstate or "")[:2]

    @property
    def hint(self) -> Optional[str]:
        """What to do next, in the words of this process's users."""
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
    """The backups are there and good, their second copies are not."""

    exit_status = 6


class Locked(BackstopError):
    """Another operation is at work."""

    exit_status = 5
