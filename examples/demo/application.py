# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The example application at its old commit: released, migrated, filled with data and running under pm2.

The collection's own library makes the releases and runs pm2, so the demo starts with exactly what the collection's
roles would have made.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.pm2 import Pm2
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.releases import Releases

from . import private_files, sample_data
from .node_tools import Node
from .places import Places
from .postgres_server import Cluster
from .programs import DemoError, run
from .steps import wait_until

NAME = "electricity-tokens"
DATABASE = ROLE = "electricity_tokens"
ECOSYSTEM_FILE = "ecosystem.config.js"
INSTALL = ["npm", "ci"]
GENERATE = ["npx", "--no-install", "prisma", "generate"]
BUILD = ["npm", "run", "build"]
START = ["node", "dist/server.js"]
MIGRATE = ["npx", "--no-install", "prisma", "migrate", "deploy"]
#: Comment of a database that an interrupted run of the demo left unfinished.
HALF_MADE = "backstop demo: being made"
HEALTHY_SECONDS = 40.0


def npm_settings(places: Places) -> dict[str, str]:
    """npm settings that prefer the cache: the second release installs without asking the registry."""
    return {"npm_config_cache": str(places.npm_cache), "npm_config_prefer_offline": "true"}


def database_url(cluster: Cluster) -> str:
    return cluster.url(DATABASE, ROLE) + "?schema=public"


def write_environment_file(places: Places, cluster: Cluster, port: int) -> bool:
    """Write the settings file that every release links to; True when it changed."""
    text = f'DATABASE_URL="{database_url(cluster)}"\nPORT={port}\n'
    return private_files.write(places.environment_file, text)


def releases(places: Places) -> Releases:
    return Releases(str(places.application), str(places.repository))


def release(places: Places, node: Node, prisma: Mapping[str, str], commit: str) -> bool:
    """Install, generate and build a commit; False when this was done before."""
    return releases(places).prepare(
        commit,
        [INSTALL, GENERATE, BUILD],
        node_bin_dir=str(node.bin_dir),
        environment={**npm_settings(places), **prisma},
        shared_links={".env": str(places.environment_file)},
    )


# The database


def database_is_ready(cluster: Cluster) -> bool:
    query = f"SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database WHERE datname = '{DATABASE}'"
    rows = cluster.sql(f"SELECT count(*) || '|' || coalesce(max(comment), '') FROM ({query}) AS found (comment)")
    return rows == "1|"


def make_database(
    places: Places, cluster: Cluster, node: Node, prisma: Mapping[str, str], commit: str, rows: int
) -> str:
    """Create, migrate and fill the application's database; recreate one that an interrupted run left unfinished."""
    if database_is_ready(cluster):
        return f"Database {DATABASE} is there"
    cluster.sql(f"DROP DATABASE IF EXISTS {DATABASE}")
    cluster.create_database(DATABASE, ROLE)
    cluster.sql(f"COMMENT ON DATABASE {DATABASE} IS '{HALF_MADE}'")
    directory = Path(releases(places).path(commit))
    node.run(MIGRATE, cwd=directory, what="Prisma could not migrate the new database", environment=prisma)
    script = places.directory / "sample-data.sql"
    with open(script, "w", encoding="utf-8") as stream:
        counts = sample_data.write_script(rows, stream)
    run(
        [cluster.bin_dir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script],
        what="The sample data could not be loaded",
        environment=cluster.environment(DATABASE, ROLE),
    )
    script.unlink()
    cluster.sql(f"COMMENT ON DATABASE {DATABASE} IS NULL")
    return "Database migrated, sample data loaded: " + ", ".join(f"{count} {name}" for name, count in counts.items())


# Running it


def pm2(places: Places, node: Node) -> Pm2:
    return Pm2(str(places.pm2_executable), str(places.pm2_home), str(node.bin_dir))


def status(places: Places, node: Node) -> str:
    """The application's status in pm2: online, stopped, ... or absent."""
    found = pm2(places, node).processes(NAME)
    return found[0].status if found else "absent"


def current_commit(places: Places) -> str | None:
    return releases(places).current()


def start_first(places: Places, node: Node, commit: str, port: int) -> None:
    """Unless a release is current: make this one current, start it and wait until it is healthy."""
    if releases(places).current() is None:
        releases(places).activate(commit)
    pm2(places, node).start(NAME, str(places.current), ECOSYSTEM_FILE)
    wait_until_healthy(places, port)


def start_again(places: Places, node: Node, port: int, settings_changed: bool) -> str:
    """Start the current release unless it was stopped on purpose; return a line about its state.

    An interrupted deployment may have stopped it or fenced the database. The playbook must find it in that state, so an
    unhealthy application is reported, not fixed.
    """
    manager = pm2(places, node)
    before = status(places, node)
    if before == "stopped":
        return "Application is stopped under pm2, and left so"
    if settings_changed and before != "absent":
        manager.delete(NAME)
    try:
        changed = False
        if settings_changed or before != "online":
            changed = manager.start(NAME, str(places.current), ECOSYSTEM_FILE)
        wait_until_healthy(places, port)
    except Exception as error:  # the line is a warning; the playbook decides what to do about it
        return f"Application does not work: {str(error).splitlines()[0]}"
    return "Application " + ("started again" if changed else "runs") + f", http://127.0.0.1:{port}"


def health(port: int) -> dict[str, object]:
    """The application's answer about its health; without an answer, the reason."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as answer:
            content = json.loads(answer.read())
    except urllib.error.HTTPError as error:
        content = {"status": f"HTTP {error.code}"}
    except (OSError, ValueError) as error:
        content = {"status": f"no answer ({getattr(error, 'reason', error)})"}
    return content if isinstance(content, dict) else {"status": "no JSON object"}


def wait_until_healthy(places: Places, port: int) -> None:
    def error() -> DemoError:
        do = f"read the logs in {places.pm2_home / 'logs'}"
        return DemoError("The application is not healthy", found=str(health(port)["status"]), do=do)

    wait_until(lambda: health(port)["status"] == "ok", HEALTHY_SECONDS, error)


def stop(places: Places, node: Node) -> bool:
    """Stop the application and its pm2 daemon; False when neither ran."""
    if not places.pm2_home.exists() or not places.pm2_executable.exists():
        return False
    manager = pm2(places, node)
    stopped = manager.stop(NAME)
    if not manager.daemon_runs():
        return stopped
    environment = node.environment({"PM2_HOME": str(places.pm2_home)})
    run([places.pm2_executable, "kill"], what="pm2 could not be ended", environment=environment, timeout=60)
    return True
