# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run programs for the demo: argument lists, exit status always checked, one clear error instead of a traceback."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_kept_open: list[int] = []
#: How much of a program's output an error shows.
TAIL_LINES = 15


class DemoError(Exception):
    """What failed, what was found, what to do."""

    def __init__(self, message: str, *, found: str = "", do: str = "") -> None:
        super().__init__(message)
        self.message, self.found, self.do = message, found, do

    def __str__(self) -> str:
        lines = [self.message]
        if self.found:
            lines.append("  Found: " + self.found.replace("\n", "\n         "))
        if self.do:
            lines.append("  What to do: " + self.do)
        return "\n".join(lines)


def keep_open(descriptor: int | None) -> None:
    """Let the programs that are run inherit a descriptor, such as a lock's, which they hold until they end."""
    _kept_open[:] = [] if descriptor is None else [descriptor]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment without variables that change where PostgreSQL's tools connect; messages in English."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
    environment.update(LC_ALL="C.UTF-8", LANG="C.UTF-8")
    environment.update(extra or {})
    return environment


def run(
    argv: Sequence[object],
    *,
    what: str,
    environment: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    data: bytes | None = None,
    user: pwd.struct_passwd | None = None,
    timeout: float | None = None,
    accept: Iterable[int] = (0,),
    do: str = "",
    stays: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return it with its output as text.

    :param what: what failed, for the error
    :param user: the account to run as (needs root); its home and / are used then
    :param accept: the exit statuses that do not count as failure
    :param stays: true for a program that leaves a server running; the server must not inherit keep_open's descriptors
    """
    words = [str(part) for part in argv]
    program = Path(words[0]).name
    variables = dict(clean_environment() if environment is None else environment)
    identity: dict[str, object] = {}
    if user is not None:
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        variables.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    try:
        ended = subprocess.run(
            words,
            env=variables,
            cwd=cwd or ("/" if user else None),
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout=timeout,
            check=False,
            pass_fds=() if stays else tuple(_kept_open),
            **identity,  # type: ignore[call-overload]
        )
    except subprocess.TimeoutExpired as error:
        raise DemoError(what, found=f"{program} took longer than {timeout:g} s", do=do) from error
    except OSError as error:
        raise DemoError(what, found=f"{error.filename or program}: {error.strerror}", do=do) from error
    stdout, stderr = ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
    if ended.returncode not in set(accept):
        said = "\n".join((stderr.strip() or stdout.strip()).splitlines()[-TAIL_LINES:])
        raise DemoError(what, found=f"{program} ended with status {ended.returncode}: {said}", do=do)
    return subprocess.CompletedProcess(words, ended.returncode, stdout, stderr)
