# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives: pg_dump's custom format written, read whole, restored into an empty database."""

from __future__ import annotations

import dataclasses
import os
from typing import Dict, List, Optional, Sequence

from ..base.errors import BackstopError
from ..base.processes import Running, run
from .client_tools import ClientTools
from .connection import Settings

#: Text of timestamps and of money in an archive follows settings that a role or database may have.
_DUMP_OPTIONS = (
    "-c timezone=UTC -c datestyle=ISO -c extra_float_digits=3 -c lc_monetary=C -c default_transaction_read_only=off"
)
_RESTORE_OPTIONS = "-c lc_monetary=C -c default_transaction_read_only=off"
#: Seconds that pg_dump waits for a lock before it gives up.
LOCK_WAIT_SECONDS = 10
_END_OF_ROLES = b"-- PostgreSQL database cluster dump complete"


def choose_compression(tools: ClientTools) -> str:
    """The value for ``--compress``: zstd where the client was built with it (16 and newer can be), else fast gzip.

    Level 1 of gzip costs 0.4 of the processor time of the default level 6 and gives 12 % more bytes.
    """
    if tools.major >= 16:
        # pg_dump refuses a method it was not built with before it connects.
        argv = [tools.pg_dump, "-w", "-Fc", "--compress=zstd:1", "-d", "host=/nonexistent/backstop"]
        if "compression" not in run(argv, timeout=30).stderr:
            return "zstd:1"
    return "1"


def start_dump(
    tools: ClientTools,
    settings: Settings,
    path: str,
    *,
    snapshot: Optional[str] = None,
    compression: str = "1",
    schema_only: bool = False,
    lock_wait_seconds: int = LOCK_WAIT_SECONDS,
    keep_open: Sequence[int] = (),
) -> Running:
    """Start pg_dump into a new archive at ``path``; the caller waits for it and judges its status."""
    argv = [
        tools.pg_dump,
        "--no-password",
        "--format=custom",
        "--lock-wait-timeout=%ds" % lock_wait_seconds,
        "--compress=" + compression,
        "--file=" + path,
        "--dbname=" + settings.conninfo(),
    ]
    if snapshot:
        argv.append("--snapshot=" + snapshot)
    if schema_only:
        argv.append("--schema-only")
    return Running(
        argv,
        environment=settings.client_environment(_DUMP_OPTIONS),
        secrets=settings.secrets,
        keep_open=keep_open,
        stdout=None,
    )


def dump_roles(tools: ClientTools, settings: Settings, keep_open: Sequence[int] = ()) -> bytes:
    """Roles and tablespaces as SQL, without passwords (which only a superuser may read)."""
    done = run(
        [tools.pg_dumpall, "--no-password", "--globals-only", "--no-role-passwords", "--dbname=" + settings.conninfo()],
        environment=settings.client_environment(),
        secrets=settings.secrets,
        keep_open=keep_open,
        check="pg_dumpall could not write the roles",
    )
    if _END_OF_ROLES not in done.output:
        raise BackstopError("pg_dumpall did not write the roles to their end", found="%d bytes" % len(done.output))
    return done.output


def decode(tools: ClientTools, path: str, keep_open: Sequence[int] = ()) -> None:
    """Read and decompress the whole archive. ``pg_restore --list`` would accept one that was cut in half."""
    run(
        [tools.pg_restore, "--file=" + os.devnull, path],
        keep_open=keep_open,
        check="The archive cannot be read to its end",
    )


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of an archive's table of contents."""

    number: int
    line: str


def contents(tools: ClientTools, path: str) -> List[Entry]:
    """The table of contents. It says nothing about whether the data can be read: see decode()."""
    listing = run([tools.pg_restore, "--list", path], check="The archive's table of contents cannot be read").stdout
    lines = [line for line in listing.splitlines() if line and not line.startswith(";")]
    return [Entry(int(line.split(";", 1)[0]), line) for line in lines]


def restore(
    tools: ClientTools,
    settings: Settings,
    path: str,
    *,
    jobs: int = 2,
    schema_only: bool = False,
    keep_open: Sequence[int] = (),
) -> None:
    """Restore an archive into the (empty) database of the settings; the first error ends it.

    Subscriptions are left out: a restored one would take over the slot of the live one.
    """
    argv = [
        tools.pg_restore,
        "--no-password",
        "--exit-on-error",
        "--no-subscriptions",
        "--jobs=%d" % jobs,
        "--dbname=" + settings.conninfo(),
    ]
    if schema_only:
        argv.append("--schema-only")
    run(
        argv + [path],
        environment=restore_environment(settings),
        secrets=settings.secrets,
        keep_open=keep_open,
        check="The archive could not be restored into %s" % settings.database,
    )


def start_script(
    tools: ClientTools, path: str, *, data_of: Optional[str] = None, keep_open: Sequence[int] = ()
) -> Running:
    """Start writing an archive as a script of SQL to standard output; the caller reads it and judges the status.

    With one BEGIN at its start and one COMMIT at its end: without ``--single-transaction`` large objects bring a BEGIN
    and a COMMIT of their own.

    :param data_of: a file with the entries of contents() to write, only their rows; default is everything
    """
    argv = [tools.pg_restore, "--single-transaction", "--no-subscriptions", "--file=-"]
    if data_of:
        argv += ["--data-only", "--use-list=" + data_of]
    return Running(argv + [path], keep_open=keep_open)


def restore_environment(settings: Settings) -> Dict[str, str]:
    return settings.client_environment(_RESTORE_OPTIONS)
