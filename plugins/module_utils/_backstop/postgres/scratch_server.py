# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A temporary server for one drill: created, reached through a socket that no other user can open, then removed."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Iterator, List, Optional, Tuple

from ..base.closed_off import closed_server
from ..base.durable_files import file_error
from ..base.errors import BackstopError, Refused
from ..base.processes import Running, find_program, run
from ..base.remedies import Setting, remedy
from .client_tools import ClientTools
from .connection import Settings, connect

#: Its superuser, a name that no backup has.
SUPERUSER = "backstop_drill"
_START_SECONDS = 60
_STOP_SECONDS = 30
#: The maximum length of a socket's path is 107 bytes.
_LONGEST_FOLDER = 80
_SETTINGS = (
    "listen_addresses = ''",
    "unix_socket_permissions = 0700",
    "fsync = off",
    "full_page_writes = off",
    "max_locks_per_transaction = 256",
    "logging_collector = off",
)


@contextlib.contextmanager
def scratch_server(tools: ClientTools, directory: Optional[str] = None, *, closed: bool = False) -> Iterator[Settings]:
    """Run a server of the client tools' version; a superuser's connection to its database ``postgres``.

    It dies with this process. Root runs it as an unprivileged user, because PostgreSQL refuses to run as root.

    :param directory: where its data directory may be; default is the one for temporary files
    :param closed: it, and programs that SQL starts in it, can connect to nothing
    :raises Refused: the server's programs are not installed here
    """
    initdb, postgres = require_programs(tools)
    try:
        folder = tempfile.mkdtemp(prefix="backstop-drill-", dir=directory)
    except OSError as error:
        raise file_error("A directory for the drill's server could not be made", str(directory), error) from error
    try:
        if len(os.fsencode(folder)) > _LONGEST_FOLDER:
            raise Refused(
                "The directory for the drill's server is too deep for a socket",
                found="%d bytes" % len(os.fsencode(folder)),
                expected="at most %d" % _LONGEST_FOLDER,
            )
        account, prefix = _account()
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        data = os.path.join(folder, "data")
        run(
            [*prefix, initdb, "--pgdata=" + data, "--username=" + SUPERUSER, "--auth-local=trust", "--auth-host=reject"]
            + ["--encoding=UTF8", "--no-locale", "--no-sync"],
            cwd=folder,
            check="The drill's server could not be initialised",
        )
        with open(os.path.join(data, "postgresql.conf"), "a", encoding="utf-8") as stream:
            stream.write("\n".join((*_SETTINGS, "unix_socket_directories = '%s'" % folder.replace("'", "''"))) + "\n")
        settings = Settings(host=folder, user=SUPERUSER, database="postgres")
        command = [postgres, "-D", data]
        command = [*prefix, *(closed_server(command) if closed else command)]
        with Running(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
            _wait_until_it_answers(server, settings)
            try:
                yield settings
            finally:
                server.process.send_signal(signal.SIGINT)
                with contextlib.suppress(BackstopError):
                    server.wait(_STOP_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def require_programs(tools: ClientTools) -> Tuple[str, str]:
    """Paths of initdb and postgres.

    :raises Refused: they are not installed here
    """
    return _program(tools, "initdb"), _program(tools, "postgres")


def _program(tools: ClientTools, name: str) -> str:
    folder = os.path.dirname(tools.pg_dump)
    path = os.path.join(folder, name)
    if not os.access(path, os.X_OK):
        raise Refused(
            "PostgreSQL's server programs of version %d are missing on this host" % tools.major,
            found="no %s in %s" % (name, folder),
            hint="install postgresql-%d (Debian, Ubuntu) or postgresql%d-server (PGDG for RHEL, Fedora), or drill in a"
            " scratch database" % (tools.major, tools.major),
        )
    return path


def _account() -> Tuple[Optional[pwd.struct_passwd], List[str]]:
    """The unprivileged user for root, and the command that runs the server as that user; both empty for other users."""
    if os.geteuid() != 0:
        return None, []
    setpriv = find_program("setpriv")
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            if setpriv:
                ids = ["--reuid=%d" % account.pw_uid, "--regid=%d" % account.pw_gid]
                return account, [setpriv, *ids, "--clear-groups", "--pdeathsig", "INT", "--"]
    raise Refused(
        "PostgreSQL does not run as root",
        found="this runs as root, and there is no setpriv or no account postgres or nobody",
        hint=remedy("run this as another user (%s), or drill in a scratch database", Setting.USER),
    )


def _wait_until_it_answers(server: Running, settings: Settings) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            connect(settings).close()
            return
        except BackstopError as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise BackstopError(
                    "The drill's server did not start", found=server.stderr_text.strip()[-1000:] or str(error)
                ) from None
        time.sleep(0.05)
