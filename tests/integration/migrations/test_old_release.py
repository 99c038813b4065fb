# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The former release's trial: however the release connects to its database, it reaches the copy or nothing."""

from __future__ import annotations

import inspect
import shutil
import sys
from types import SimpleNamespace

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application import web
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.trial import Health
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import closed_program
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.old_release import (
    OldRelease,
    pointed_to_copy,
    try_old_release,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.relay import relayed
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.baseline import (
    old_release_answer,
    old_release_proved,
)
from support.databases import OWNER

#: Answers POST by writing one row; the test sets how it connects to its database.
RELEASE = """
import http.server, os, psycopg2, subprocess, sys
env = os.environ
own = dict(line.strip().split("=", 1) for line in open(".env"))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            sql = "INSERT INTO tried VALUES (1)"
            %s
            status = 201
        except Exception as error:
            print(error, file=sys.stderr)
            status = 500
        self.send_response(status)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(env["PORT"])), Handler).serve_forever()
"""
WRITE = "with psycopg2.connect(%s) as c: c.cursor().execute(sql)"
WAYS = {
    "a variable of the schema": (WRITE % "env['POSTGRES_PRISMA_URL']", True),
    "a variable of its own": (WRITE % "env['MAIN_DB']", True),
    "its own reading of the file": (WRITE % "own['MAIN_DB']", True),
    "single variables": (
        WRITE % "host=env['DB_HOST'], port=own['DB_PORT'], dbname=own['DB_NAME'], user='x', password='y'", True,
    ),
    "what libpq takes": (WRITE % "''", True),
    "a child": ("subprocess.check_call(['psql', '-c', sql, own['MAIN_DB']])", True),
    "a socket": ("env.pop('PGHOSTADDR')\n            " + WRITE % "own['SOCKET']", False),
    "another database": (WRITE % "own['OTHER']", False),
    "replication": (WRITE % "own['MAIN_DB'] + '?replication=database'", False),
}  # fmt: skip


def release(folder, live, way, socket):
    folder.mkdir()
    (folder / "prisma").mkdir()
    (folder / "prisma" / "schema.prisma").write_text(
        'datasource db {\n  provider = "postgresql"\n  url = env("POSTGRES_PRISMA_URL")\n}\n'
    )
    settings = live.site.connection
    url = live.cluster.url(live.name, user=OWNER)
    (folder / ".env").write_text(
        "MAIN_DB=%s\nDB_HOST=%s\nDB_PORT=%d\nDB_NAME=%s\nSOCKET=%s\nOTHER=%s\n"
        % (url, settings.host, settings.port, live.name, socket, live.cluster.url("postgres", user=OWNER))
    )
    return [sys.executable, "-c", RELEASE % way]


@pytest.fixture
def tried(plain, tmp_path):
    """Try a release that connects in this way; rows of the copy and of the live database afterwards."""
    plain.as_owner("CREATE TABLE tried (id int)")
    site = plain.begun("deploy")
    copy = verify(site, plain.backup(), "restored", keep=True).database

    def post(port):
        answer = web.request("http://127.0.0.1:%d/" % port, "POST")
        if answer.status != 201:
            raise BackstopError("The smoke test failed", found=answer.short())
        return {}

    def run(way):
        folder = tmp_path / "release"
        shutil.rmtree(folder, ignore_errors=True)
        plain.execute("TRUNCATE tried", copy)
        command = release(folder, plain, way, socket)
        # The demo's psql comes first, and every user who runs the tests must find it.
        bin_dir = str(plain.cluster.bin_dir)
        old = OldRelease(str(folder), Project(str(folder)), command, node_bin_dir=bin_dir, health=Health(timeout=20))
        facts = try_old_release(site, copy, old, post)
        rows = [plain.value("SELECT count(*) FROM tried", name) for name in (copy, plain.name)]
        return SimpleNamespace(facts=facts, copy=rows[0], live=rows[1])

    with relayed(plain.cluster.url(plain.name, user=OWNER)) as socket:
        psycopg2.connect(socket).close()  # for every other process it points to the live database
        yield SimpleNamespace(run=run, live=plain)


def test_every_way_ends_in_the_copy_or_nowhere(tried):
    for name, (way, works) in WAYS.items():
        found = tried.run(way)
        assert found.live == 0, name
        assert found.copy == int(works), (name, found.facts)
        assert found.facts.tried and found.facts.works is works, (name, found.facts)
        if name == "another database":
            assert "it asked for database postgres" in found.facts.reason


def test_not_tried_where_nothing_keeps_it_in_the_copy(tried, monkeypatch):
    way = WRITE % "env['MAIN_DB']"
    # COPY ... TO PROGRAM could reach anything.
    tried.live.execute("GRANT pg_execute_server_program TO " + OWNER)
    try:
        program = tried.run(way)
    finally:
        tried.live.execute("REVOKE pg_execute_server_program FROM " + OWNER)
    source = inspect.getsource(closed_program).replace("_LIBC.unshare(flags) != 0", "True")
    monkeypatch.setattr(inspect, "getsource", lambda _module: source)
    open_room = tried.run(way)
    for found, reason in ((program, "pg_execute_server_program"), (open_room, "cannot be isolated from the network")):
        assert not found.facts.tried and not found.facts.works
        assert reason in found.facts.reason
        assert (found.copy, found.live) == (0, 0)


def test_the_plan_believes_only_what_was_tried(tmp_path):
    operation = Operation.create(Store(str(tmp_path)), "deploy", {"database": "shop"})
    for facts, answer in (
        ({"works": False, "tried": False, "reason": "no"}, "was not proved on the new schema: not tried: no"),
        ({"works": False, "tried": True, "reason": "status 500"}, "was not proved on the new schema: status 500"),
        ({"works": True, "tried": True}, "works on the new schema"),
    ):
        operation.write("old_release", "done", **facts)
        assert old_release_answer(operation).startswith(answer)
        assert old_release_proved(operation) is facts["works"]


def test_variables_by_their_value():
    live = Settings(host="db.example.org", port=6432, user="app", password="s", database="shop", schema="public")
    found = {
        "DATABASE_URL": "postgresql://app:s@db.example.org:6432/shop?schema=sales&sslmode=require&connection_limit=2",
        "DIRECT": "postgres://app:s@10.0.0.1/shop",
        "JDBC": "jdbc:postgresql://db.example.org:6432/shop?user=app",
        "WORKER_DSN": "postgresql+asyncpg://app@db.example.org/shop",
        "STRANGE": "postgres://app:s@[/shop",
        "SHOP_HOST": "db.example.org",
        "ADDRESS": "db.example.org:6432",
        "DB_NAME": "shop",
        "NODE_ENV": "shop",
        "REDIS_URL": "redis://db.example.org",
    }
    changed = pointed_to_copy(found, ["DATABASE_URL", "POSTGRES_PRISMA_URL"], live, live.with_database("copy"))
    here = "app:trial@127.0.0.1:6432/copy"
    assert changed["DATABASE_URL"] == "postgresql://%s?schema=sales&connection_limit=2" % here
    assert changed["DIRECT"] == "postgres://" + here
    assert changed["JDBC"] == "jdbc:postgresql://" + here
    assert changed["WORKER_DSN"] == "postgresql+asyncpg://" + here
    assert changed["STRANGE"] == changed["POSTGRES_PRISMA_URL"] == "postgresql://" + here
    assert (changed["SHOP_HOST"], changed["ADDRESS"]) == ("127.0.0.1", "127.0.0.1:6432")
    assert (changed["DB_NAME"], changed["PGDATABASE"], changed["PGHOST"]) == ("copy", "copy", "127.0.0.1")
    assert not {"NODE_ENV", "REDIS_URL"} & set(changed)
