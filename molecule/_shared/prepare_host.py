# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on a test host, as the user of the deploy: makes it a host as one finds it before ET-100.

    python3 prepare_host.py DIRECTORY ROWS < "the application's database URL"

The same code as the demo's makes the repository, the release, the data and the running application; only the database
server is the host's own.
"""
from __future__ import annotations

import pathlib
import subprocess
import sys
import urllib.parse

from demo import application, node_tools, private_files, repository, sample_data
from demo.node_tools import Node
from demo.places import Places

PORT = 3000
PM2_SOURCE = pathlib.Path(node_tools.__file__).parent / "pm2"


def load_sample_data(places: Places, url: str, rows: int) -> None:
    script = places.directory / "sample-data.sql"
    with open(script, "w", encoding="utf-8") as stream:
        sample_data.write_script(rows, stream)
    given = urllib.parse.urlsplit(url)
    environment = {
        "PATH": "/usr/bin:/bin", "PGHOST": str(given.hostname), "PGPORT": str(given.port),
        "PGUSER": str(given.username), "PGPASSWORD": urllib.parse.unquote(str(given.password)),
        "PGDATABASE": given.path.lstrip("/"),
    }
    argv = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(script)]
    subprocess.run(argv, env=environment, check=True)
    script.unlink()


def prepare(places: Places, node: Node, url: str, rows: int) -> None:
    prisma = node_tools.prisma_environment(places.prisma_engine, node, places.npm_cache)
    node_tools.install_project(PM2_SOURCE, places.pm2, node, places.npm_cache)
    before = repository.make(places.repository)[repository.BEFORE]
    private_files.write(places.environment_file, f'DATABASE_URL="{url}"\nPORT={PORT}\n')
    application.release(places, node, prisma, before)
    directory = pathlib.Path(application.releases(places).path(before))
    node.run(application.MIGRATE, cwd=directory, what="Prisma could not migrate", environment=prisma)
    load_sample_data(places, url, rows)
    application.start_first(places, node, before, PORT)


def main() -> None:
    directory, rows = sys.argv[1:]
    places = Places(pathlib.Path(directory))
    prepare(places, node_tools.find_node(places.programs), sys.stdin.read().strip(), int(rows))


if __name__ == "__main__":
    main()
