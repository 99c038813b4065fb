# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real PgBouncer in front of a test cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from typing import Any, Dict, Iterator, List
from urllib.parse import quote

import psycopg2
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.pgbouncer import Pooler
from demo import ports
from demo.postgres_server import Cluster, server_account
from support.databases import APP, OWNER, PASSWORD

ADMIN, ADMIN_PASSWORD = "pool_admin", "console s3cr3t"
_SETTINGS = """
[databases]
%(pools)s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %(port)d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %(folder)s/users.txt
admin_users = %(admin)s
pool_mode = %(mode)s
query_wait_timeout = 60
logfile = %(folder)s/log
"""


@dataclasses.dataclass
class PgBouncer:
    """A running PgBouncer."""

    port: int
    process: "subprocess.Popen[bytes]"

    def pooler(self, **changes: Any) -> Pooler:
        """Its settings for the library."""
        console = Settings("127.0.0.1", self.port, ADMIN, ADMIN_PASSWORD, "pgbouncer")
        return dataclasses.replace(Pooler(console), **changes)

    def url(self, pool: str) -> str:
        """The URL for a client of the application."""
        return "postgresql://%s:%s@127.0.0.1:%d/%s" % (OWNER, quote(PASSWORD, safe=""), self.port, quote(pool, safe=""))

    def client(self, pool: str) -> Any:
        connection = psycopg2.connect(self.url(pool))
        connection.autocommit = True
        return connection

    def say(self, command: str) -> List[Dict[str, Any]]:
        """Run a command in the console."""
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user=ADMIN, password=ADMIN_PASSWORD, dbname="pgbouncer"
        )
        connection.autocommit = True
        with contextlib.closing(connection):
            cursor = connection.cursor()
            cursor.execute(command)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row)) for row in cursor.fetchall()] if names else []

    def paused(self) -> List[str]:
        return [row["name"] for row in self.say("SHOW DATABASES") if row["paused"]]


def _quoted(text: str) -> str:
    return '"%s"' % text.replace('"', '""')


@contextlib.contextmanager
def pgbouncer(cluster: Cluster, pools: Dict[str, str], mode: str = "transaction") -> Iterator[PgBouncer]:
    """Start a PgBouncer and stop it again.

    :param pools: name of each pool and the database that it points to
    """
    program = shutil.which("pgbouncer", path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")
    assert program, "PgBouncer is not installed: apt-get install pgbouncer"
    folder = pathlib.Path(tempfile.mkdtemp(prefix="backstop-pgbouncer-", dir="/var/tmp"))
    account = server_account()  # it refuses to run as root, as the server does
    try:
        port = ports.choose()
        lines = [
            "%s = host=127.0.0.1 port=%d dbname='%s'" % (name, cluster.port, database.replace("'", "''"))
            for name, database in pools.items()
        ]
        users = [(ADMIN, ADMIN_PASSWORD), (OWNER, PASSWORD), (APP, cluster.password_of(APP))]
        (folder / "users.txt").write_text("".join("%s %s\n" % (_quoted(a), _quoted(b)) for a, b in users), "utf-8")
        given = {"pools": "\n".join(lines), "port": port, "folder": folder, "admin": ADMIN, "mode": mode}
        (folder / "pgbouncer.ini").write_text(_SETTINGS % given, "utf-8")
        if account:
            for path in [folder, *folder.iterdir()]:
                os.chown(path, account.pw_uid, account.pw_gid)
        started = _started(program, folder, port)
        try:
            yield started
        finally:
            started.process.kill()
            started.process.wait()
    finally:
        shutil.rmtree(folder)


def _started(program: str, folder: pathlib.Path, port: int) -> PgBouncer:
    account = server_account()
    process = subprocess.Popen(
        [program, "--quiet", str(folder / "pgbouncer.ini")],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **({"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}),
    )
    made = PgBouncer(port, process)
    deadline = time.monotonic() + 20
    while True:
        try:
            made.say("SHOW VERSION")
            return made
        except psycopg2.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError("PgBouncer: " + (folder / "log").read_text("utf-8")) from None
            time.sleep(0.02)
