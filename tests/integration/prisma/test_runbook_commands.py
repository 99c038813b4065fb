# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The answers of the runbook's commands, compared with this library's answers, on the same database.

The runbook decides by `npx prisma migrate status` and runs `npx prisma migrate deploy` as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history, sessions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.failures import PrismaError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.history import migration_order
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.urls import with_database
from support.prisma_database import until
from support.prisma_project import PrismaProject, tools

pytestmark = pytest.mark.prisma

INIT, RECEIPTS = "20251001000000_init", "20251108000000_add_receipt_data"


@pytest.fixture
def project(tmp_path):
    migrations = {INIT: 'CREATE TABLE "A" (id int);', RECEIPTS: 'CREATE TABLE "ReceiptData" (id int);'}
    return PrismaProject.create(tmp_path / "release", migrations)


def deploy(project, database, **keywords):
    with database.session() as cursor:
        return project.prisma().migrate_deploy(database.url, cursor=cursor, **keywords)


def status(project, database):
    return project.run("migrate", "status", url=database.url)


def kinds(database, project):
    return [problem.kind for problem in database.state(project).problems()]


# `prisma migrate status`


def test_status_is_0_after_a_rollback(project, database):
    project.add(RECEIPTS, "SELECT 1/0;")
    with pytest.raises(PrismaError):
        deploy(project, database)
    with database.session() as cursor:
        project.prisma().migrate_resolve(database.url, cursor=cursor, rolled_back=RECEIPTS)
    said = status(project, database)
    assert said.returncode == 0 and "up to date" in said.stdout
    state = database.state(project)
    assert not state.up_to_date and state.pending == [RECEIPTS]


def test_status_is_0_when_a_file_was_edited(project, database):
    deploy(project, database)
    project.add(RECEIPTS, 'CREATE TABLE "ReceiptData" (id bigint);')
    said = status(project, database)
    assert said.returncode == 0 and "up to date" in said.stdout
    assert kinds(database, project) == ["edited"]


def test_status_is_0_when_the_database_is_ahead(project, database):
    deploy(project, database)
    project.remove(RECEIPTS)
    said = status(project, database)
    assert said.returncode == 0 and "up to date" in said.stdout
    assert kinds(database, project) == ["unknown"]


def test_status_is_1_alike_for_pending_failed_and_running(project, database):
    assert status(project, database).returncode == 1
    assert kinds(database, project) == [] and database.state(project).pending == [INIT, RECEIPTS]

    project.add(RECEIPTS, "SELECT 1/0;")
    with pytest.raises(PrismaError):
        deploy(project, database)
    failed = status(project, database)
    assert failed.returncode == 1 and "have failed" in failed.stderr
    assert kinds(database, project) == ["failed"]

    with database.session() as cursor:
        project.prisma().migrate_resolve(database.url, cursor=cursor, rolled_back=RECEIPTS)
    project.add(RECEIPTS, 'SELECT count(*) FROM "A";')
    with database.table_lock("A"), database.session() as cursor:
        thread = threading.Thread(target=lambda: deploy(project, database))
        thread.start()
        until(lambda: [one for one in sessions.lock_holders(cursor) if '"A"' in one.query], "it runs")
        running = status(project, database)
        assert running.returncode == 1 and "have failed" in running.stderr
        assert database.state(project).failed == [RECEIPTS]
        assert len(sessions.lock_holders(cursor)) == 1
    thread.join(30)
    assert database.state(project).up_to_date


def test_status_does_not_mention_a_failure_beside_something_pending(project, database):
    project.add(INIT, "SELECT 1/0;")
    with pytest.raises(PrismaError):
        deploy(project, database)
    said = status(project, database)
    assert said.returncode == 1 and "failed" not in said.stdout + said.stderr
    state = database.state(project)
    assert (state.failed, state.pending) == ([INIT], [RECEIPTS])


# `prisma migrate deploy`


def test_deploy_makes_a_missing_database(project, database):
    url = with_database(database.url, database.name + "_typo")
    try:
        said = project.run("migrate", "deploy", url=url)
        assert said.returncode == 0 and "created" in said.stdout
    finally:
        database.elsewhere('DROP DATABASE IF EXISTS "%s_typo"' % database.name)


def command_lines():
    """The argument lists of every process, as any user of the host sees them."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open("/proc/%s/cmdline" % pid, "rb") as stream:
            yield stream.read().decode(errors="replace")


@contextlib.contextmanager
def watched(secret):
    """Collects the argument lists that show a secret while something runs."""
    seen, ended = set(), threading.Event()

    def watch():
        while not ended.is_set():
            seen.update(line for line in command_lines() if secret in line)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_deploy_shows_the_password_to_every_user_of_the_host(project, database):
    secret = "%030x" % random.SystemRandom().randrange(1 << 120)
    database.cluster.create_role("leaky", "LOGIN", password=secret)
    database.execute("GRANT CREATE ON SCHEMA public TO leaky")
    url = database.cluster.url(database.name, user="leaky")
    with watched(secret) as seen:
        assert project.run("migrate", "deploy", url=url).returncode == 0
    assert [line for line in seen if "can-connect-to-database" in line]

    project.add("20260101000000_more", "SELECT 1;")
    with watched(secret) as seen, database.session("leaky") as cursor:
        assert project.prisma().migrate_deploy(url, cursor=cursor).applied == ["20260101000000_more"]
    assert seen == set()


def test_a_killed_deploy_goes_on_in_the_server(project, database):
    """The runbook stops at the first error and looks at tables; the server may still be working."""
    deploy(project, database)
    project.add("20260101000000_slow", 'SELECT count(*) FROM "A"; CREATE TABLE "Slow" (id int);')
    with database.table_lock("A"), database.session() as cursor:
        started = project.start("migrate", "deploy", url=database.url)
        until(lambda: [one for one in sessions.lock_holders(cursor) if '"A"' in one.query], "it runs")
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    until(lambda: database.has("Slow"), "the server goes on and commits")
    until(lambda: not holders(database), "the session ends")
    assert database.state(project).failed == ["20260101000000_slow"]


def holders(database):
    with database.session() as cursor:
        return sessions.lock_holders(cursor)


# Order


def test_names_are_ordered_as_javascript_does(seed):
    generator = random.Random(seed)
    letters = [chr(code) for code in range(32, 127) if chr(code) != "/"]
    names = list({"".join(generator.choice(letters) for _n in range(generator.randrange(1, 7))) for _n in range(3000)})
    script = (
        "const names = JSON.parse(require('fs').readFileSync(0));"
        "console.log(JSON.stringify(names.sort((a, b) => a.localeCompare(b))))"
    )
    assert sorted(names, key=migration_order) == json.loads(
        subprocess.run(
            [tools().node.bin_dir / "node", "-e", script],
            input=json.dumps(names).encode(),
            stdout=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            check=True,
        ).stdout
    )


def test_checksums_are_prismas(project, database):
    texts = {"1_umlaut": "SELECT 'ä€😀';", "2_odd": "", "3_crlf": "SELECT 1;\r\n", "4_empty": ""}
    for name, text in texts.items():
        project.add(name, text)
    project.script("2_odd").write_bytes(b"-- no UTF-8: \xff\xe4 \xe2\x82\nSELECT 1;")
    deploy(project, database)
    files = {file.name: file for file in history.read_folder(str(project.migrations))}
    assert {row.migration_name: row.checksum for row in database.rows()} == {
        name: file.checksum for name, file in files.items()
    }
