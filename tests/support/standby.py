# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real streaming hot standby of a test cluster."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any, Iterator, List

import psycopg2
from demo import ports
from demo.postgres_server import Cluster, server_account

NAME = "standby_one"


@dataclasses.dataclass
class Standby:
    """A running standby."""

    cluster: Cluster
    folder: pathlib.Path
    port: int

    def connect(self, database: str) -> Any:
        made = psycopg2.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.cluster.superuser,
            password=self.cluster.password,
            dbname=database,
        )
        made.autocommit = True
        return made

    def value(self, sql: str, database: str = "postgres") -> Any:
        with contextlib.closing(self.connect(database)) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            return cursor.fetchone()[0]

    @contextlib.contextmanager
    def replay_paused(self) -> Iterator[None]:
        """WAL is received but not replayed in the block."""
        self.value("SELECT pg_wal_replay_pause()")
        try:
            yield
        finally:
            self.value("SELECT pg_wal_replay_resume()")

    def run(self, program: str, *arguments: str, password: str = "") -> None:
        account = server_account()
        argv: List[str] = [str(self.cluster.bin_dir / program), *arguments]
        subprocess.run(
            argv,
            cwd="/",
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **({"PGPASSWORD": password} if password else {})},
            **({"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}),
        )


@contextlib.contextmanager
def hot_standby(cluster: Cluster) -> Iterator[Standby]:
    """Copy the cluster with pg_basebackup, start the copy as its standby, and remove it afterwards."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="backstop-standby-", dir="/var/tmp"))
    account = server_account()
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    made = Standby(cluster, folder, ports.choose())
    try:
        data = str(folder / "data")
        to = "host=127.0.0.1 port=%d user=%s application_name=%s" % (cluster.port, cluster.superuser, NAME)
        arguments = ["-D", data, "-d", to, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        made.run("pg_basebackup", *arguments, password=cluster.password)
        options = "-c port=%d -c hot_standby=on" % made.port
        started = ["-D", data, "-l", str(folder / "log"), "-w", "-s", "-o", options, "start"]
        made.run("pg_ctl", *started)
        try:
            yield made
        finally:
            made.run("pg_ctl", "-D", data, "-m", "immediate", "-s", "-w", "stop")
    finally:
        shutil.rmtree(folder)
