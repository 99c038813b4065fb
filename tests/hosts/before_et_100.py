# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on a test host, as root: brings the host into its state before ET-100.

    python3 before_et_100.py ROWS < {"url": "the application's database URL", "store": "the directory of the backups"}

PostgreSQL with the application's database and rows, Node, and the application running under pm2 at the old revision.
The demo's code makes the repository, the release, the data and the running application, as the user of the deploy,
who has no privileges beyond the application and the store. Only the database server is the host's own.
"""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import subprocess
import sys
import urllib.parse
from typing import Dict, Sequence

from demo import application, node_tools, private_files, repository, sample_data
from demo.places import Places

PORT = 3000
HOME = pathlib.Path("/srv/electricity-tokens")
PM2_SOURCE = pathlib.Path(node_tools.__file__).parent / "pm2"


class Url:
    """The parts of the application's database URL."""

    def __init__(self, text: str) -> None:
        given = urllib.parse.urlsplit(text)
        self.text, self.host, self.port = text, str(given.hostname), str(given.port)
        self.user, self.database = str(given.username), given.path.lstrip("/")
        self.password = urllib.parse.unquote(str(given.password))

    def environment(self) -> Dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "PGHOST": self.host,
            "PGPORT": self.port,
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": self.database,
        }


def as_superuser(statements: str) -> None:
    argv = ["runuser", "-u", "postgres", "--", "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1"]
    subprocess.run(argv, input=statements, text=True, cwd="/", check=True)


def make_database(url: Url) -> None:
    subprocess.run(["pg_isready", "--timeout=60"], check=True)
    as_superuser(
        "CREATE ROLE %s LOGIN CREATEDB PASSWORD '%s';\n" % (url.user, url.password.replace("'", "''"))
        + "CREATE DATABASE %s OWNER %s;\n" % (url.database, url.user)
    )


def make_directories(paths: Sequence[pathlib.Path], owner: pwd.struct_passwd) -> None:
    for path in paths:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chown(path, owner.pw_uid, owner.pw_gid)


def become(owner: pwd.struct_passwd) -> None:
    os.setgroups([])
    os.setgid(owner.pw_gid)
    os.setuid(owner.pw_uid)
    os.environ.update(HOME=owner.pw_dir, USER=owner.pw_name, LOGNAME=owner.pw_name)
    os.umask(0o022)


def load_sample_data(places: Places, url: Url, rows: int) -> None:
    script = places.directory / "sample-data.sql"
    with open(script, "w", encoding="utf-8") as stream:
        sample_data.write_script(rows, stream)
    argv = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(script)]
    subprocess.run(argv, env=url.environment(), check=True)
    script.unlink()


def prepare(places: Places, url: Url, rows: int) -> None:
    """Release, migrate, fill and start the application; pm2 starts it again when the host boots."""
    node = node_tools.find_node(places.programs)
    prisma = node_tools.prisma_environment(places.prisma_engine, node, places.npm_cache)
    node_tools.install_project(PM2_SOURCE, places.pm2, node, places.npm_cache)
    before = repository.make(places.repository)[repository.BEFORE]
    private_files.write(places.environment_file, f'DATABASE_URL="{url.text}"\nPORT={PORT}\n')
    application.release(places, node, prisma, before)
    directory = pathlib.Path(application.releases(places).path(before))
    node.run(application.MIGRATE, cwd=directory, what="Prisma could not migrate", environment=prisma)
    load_sample_data(places, url, rows)
    application.start_first(places, node, before, PORT)
    environment = node.environment({"PM2_HOME": str(places.pm2_home)})
    subprocess.run([str(places.pm2_executable), "save"], env=environment, check=True, stdout=subprocess.DEVNULL)
    # Tests query the database as the application would.
    escaped = url.password.replace("\\", "\\\\").replace(":", "\\:")
    private_files.write(places.directory / ".pgpass", "*:*:*:%s:%s\n" % (url.user, escaped))


def main() -> None:
    given = json.load(sys.stdin)
    url, owner = Url(given["url"]), pwd.getpwnam("deployer")
    make_database(url)
    make_directories([HOME, pathlib.Path(given["store"])], owner)
    os.chdir(HOME)
    become(owner)
    prepare(Places(HOME), url, int(sys.argv[1]))
    # From now on systemd is the parent of pm2's daemon.
    application.stop(Places(HOME), node_tools.find_node(Places(HOME).programs))


if __name__ == "__main__":
    main()
