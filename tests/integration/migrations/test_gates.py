# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Each gate of a deploy, open and closed, on a real server."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from unittest import mock

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import build_database
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import scratch_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates import (
    disk,
    isolation,
    programs,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates import (
    evaluation as gates_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.connections import (
    release_connections,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.evaluation import (
    GATES,
    evaluate,
    rollback_way,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates.inputs import (
    GateInputs,
    is_local,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.replay import compare
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import definitions, server
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma import history
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.sessions import MIGRATION_LOCK
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import database_lock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id
from support.age_keys import make_key
from support.databases import APP, OWNER, PASSWORD, REPORT, session
from support.databases import SQL as SQL_FILES
from support.module_runner import run_module

INIT, NEXT = "20251001000000_init", "20251108000000_add_receipt_data"
MADE = (SQL_FILES / "plain.sql").read_text("utf-8").split("CREATE TABLE _prisma_migrations")[0]
FILES = {INIT: MADE.encode(), NEXT: b'CREATE TABLE "ReceiptData" ("id" text PRIMARY KEY);'}
HEALTHY = {"app1": {"commit": "a" * 40, "running": True, "healthy": True}}


def note_applied(live, name, sql, run=True):
    """Insert a migration into the history, after running it as the owner."""
    row = "INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at) VALUES ('%s', '%s', '%s', now())"
    with live.session(user=OWNER) as cursor:
        cursor.execute(sql.decode() if run else "SELECT 1")
        cursor.execute(row % (name, hashlib.sha256(sql).hexdigest(), name))


@pytest.fixture
def live(plain):
    """A database whose history matches the files."""
    plain.execute("UPDATE _prisma_migrations SET checksum = '%s'" % hashlib.sha256(FILES[INIT]).hexdigest())
    return plain


#: Gates that create databases: evaluated only where a test is about them.
TRIED = ("swap_rights", "restorable", "drift")


def ask(live, site=None, tried=(), only=None, **changes):
    """Gates by name, for inputs that leave them all open except for the changes."""
    question = GateInputs(
        **{
            "files": history.from_mapping(changes.pop("files", FILES)),
            "expected": [NEXT],
            "release_connections": lambda: {"DATABASE_URL": live.site.connection},
            "database_directory": str(live.store.nearest_directory()),
            "applications": HEALTHY,
            **changes,
        }
    )
    asked = [gate for gate in GATES if gate[0] not in TRIED or gate[0] in tried]
    if only:
        asked = [gate for gate in asked if gate[0] == only]
    with mock.patch.object(gates_module, "GATES", asked):
        return {gate.name: gate for gate in evaluate(site or live.site, question)}


def closed(gates):
    return sorted(name for name, gate in gates.items() if not gate.passed)


def only_closed(gates, name, *words):
    assert closed(gates) == [name], {gate.name: gate.found for gate in gates.values() if not gate.passed}
    gate = gates[name]
    said = " ".join((gate.found, gate.expected, gate.hint))
    for word in words:
        assert word in said, said
    return gate


def test_all_are_open_for_a_role_without_superuser(live):
    before = live.names()
    gates = ask(live, tried=TRIED)
    assert closed(gates) == [], {gate.name: gate.found for gate in gates.values() if not gate.passed}
    assert set(gates) == {"connection", *(name for name, _expected, _check in GATES)}
    assert all(gate.found and gate.expected for gate in gates.values())
    assert rollback_way(live.site, list(gates.values())) == "swap"
    assert live.names() == before


def test_the_connection_is_shown_without_its_password(live):
    gates = ask(live)
    shown = gates["connection"].found
    assert shown.startswith("postgresql://%s@127.0.0.1:" % OWNER) and "/shop, PostgreSQL" in shown
    assert not [gate for gate in gates.values() if PASSWORD in str(gate.to_json())]


def test_a_database_that_cannot_be_reached_is_the_only_answer(live):
    nowhere = dataclasses.replace(live.site, connection=dataclasses.replace(live.site.connection, port=1))
    gates = ask(live, nowhere)
    assert list(gates) == ["connection"] and not gates["connection"].passed
    assert rollback_way(nowhere, list(gates.values())) == "refused"


# Waivers


def test_a_waiver_keeps_its_reason_and_hides_nothing(live):
    gates = ask(live, applications=None, waivers={"application": "  looked at by hand  ", "standbys": "not needed"})
    assert closed(gates) == []
    assert gates["application"].waived == "looked at by hand" and "was not checked" in gates["application"].found
    assert gates["standbys"].waived is None, "what passed needs no waiver"


@pytest.mark.parametrize("reason", ["", "  \n", None, 7, True])
def test_a_waiver_without_a_reason_is_refused(live, reason):
    with pytest.raises(Refused, match="gives no reason") as caught:
        ask(live, waivers={"application": reason})
    assert caught.value.found == "application"


def test_a_waiver_of_an_unknown_gate_names_the_near_ones(live):
    with pytest.raises(Refused, match="does not exist") as caught:
        ask(live, waivers={"databse_disk": "grows"})
    assert "database_disk" in str(caught.value.hint)


# Connections


def test_the_release_must_use_this_database(live, databases):
    other = databases.make("other")
    elsewhere = {"DATABASE_URL": live.site.connection, "DIRECT_URL": other.site.connection}
    only_closed(ask(live, release_connections=lambda: elsewhere), "release_connection", "DIRECT_URL", "other", "shop")
    only_closed(ask(live, release_connections=None), "release_connection", "application_environment_file")


PRISMA_SCHEMA = """datasource db {
  provider  = "postgresql"
  url       = env("POSTGRES_PRISMA_URL")
  directUrl = env("POSTGRES_URL_NON_POOLING")
}
"""


def test_the_release_names_its_urls_as_it_likes(live, databases, tmp_path):
    """A provider's integration sets no DATABASE_URL; a remaining one belongs to another application."""
    (tmp_path / "schema.prisma").write_text(PRISMA_SCHEMA, "utf-8")
    file, project = tmp_path / ".env", Project(str(tmp_path))
    here, there = live.site.connection.url(), databases.make("other").site.connection.url()

    def found(*lines, project=project):
        file.write_text("\n".join(lines), "utf-8")
        return ask(live, release_connections=lambda: release_connections(str(file), "dotenv", project))

    both = ["POSTGRES_PRISMA_URL='%s' # pooled" % here, "POSTGRES_URL_NON_POOLING=${POSTGRES_PRISMA_URL}"]
    gates = found(*both, "DATABASE_URL=" + there)
    assert closed(gates) == [] and "POSTGRES_URL_NON_POOLING" in gates["release_connection"].found
    only_closed(found(both[0], "POSTGRES_URL_NON_POOLING=" + there), "release_connection", "POSTGRES_URL_NON", "other")
    only_closed(found(both[0]), "release_connection", "no POSTGRES_URL_NON_POOLING in %s" % file)
    only_closed(found(), "release_connection", "nothing can be read in %s" % file)
    # Before the release is prepared there is no schema: then the values decide.
    assert closed(found(*both, project=None)) == []
    only_closed(found(*both, "OTHER=" + there, project=None), "release_connection", "OTHER", "other")
    assert closed(found("DATABASE_URL=" + here, "OTHER=" + there, project=None)) == []


def test_prismas_lock(live):
    with live.session(user=OWNER) as cursor:
        cursor.execute("SET application_name = 'prisma elsewhere'; SELECT pg_advisory_lock(%d)" % MIGRATION_LOCK)
        only_closed(ask(live), "prisma_lock", "prisma elsewhere", "pg_terminate_backend")


def test_what_a_deploy_does_not_restart_is_told(live):
    assert ask(live)["other_programs"].found == "none"
    state = {"app1": {**HEALTHY["app1"], "others": ["worker (pm2, pid 7) in /srv/shop/releases/one"]}}
    with live.session(user=APP) as one, live.session(user=APP) as two:
        for cursor in (one, two):
            cursor.execute("SET application_name = 'a worker'")
        gate = ask(live, applications=state)["other_programs"]
    assert gate.passed and gate.found == (
        "not restarted by a deploy: app1: worker (pm2, pid 7) in /srv/shop/releases/one;"
        " in the database now: shop_app (a worker) from the socket: 2"
    )


# Programs


def test_client_programs_must_be_there(live):
    site = dataclasses.replace(live.site, client_bin_dir="/usr/sbin")
    gates = ask(live, site, tried=TRIED)
    assert closed(gates) == ["client_tools", "restorable"] and gates["restorable"].expected == "client_tools open"
    assert rollback_way(site, list(gates.values())) == "refused"


def test_the_version_on_disk_is_that_of_the_running_server(live, monkeypatch):
    gate = ask(live)["server_programs"]
    running = live.value("SELECT split_part(current_setting('server_version'), ' ', 1)")
    assert gate.passed and gate.found.startswith("version %s runs (on disk too)" % running)
    seen = []

    def upgraded(path):
        seen.append(path)
        return "%s.99" % running.split(".")[0]

    monkeypatch.setattr(programs, "program_version", upgraded)
    only_closed(ask(live), "server_programs", ".99 on disk", running, "restart the server")
    assert seen and all(os.path.basename(path) == "postgres" and os.access(path, os.X_OK) for path in seen)


def test_a_library_that_cannot_be_loaded(live):
    """An upgrade under a running server has this effect on new sessions."""
    live.execute("UPDATE pg_proc SET probin = '$libdir/gone' WHERE proname = 'plpgsql_inline_handler'")
    only_closed(ask(live), "server_programs", "gone", "restart the server")


def test_a_server_elsewhere_is_declared_or_waived(live, monkeypatch):
    """A session that can load a library does not prove that all programs on disk are the running version."""
    monkeypatch.setattr(programs, "is_local", lambda settings: False)
    running = live.value("SELECT split_part(current_setting('server_version'), ' ', 1)")
    only_closed(ask(live), "server_programs", running + " runs", "backstop_server_programs_version", "waive")
    said = "postgres (PostgreSQL) %s (Debian %s-0+deb12u1)" % (running, running)
    for declared in (running, said):
        gate = ask(live, server_programs_version=declared)["server_programs"]
        assert gate.passed and "declared to be on disk too" in gate.found
    only_closed(ask(live, server_programs_version=running + "9"), "server_programs", running + "9 on disk", "restart")
    only_closed(ask(live, server_programs_version="newest"), "server_programs", "backstop_server_programs_version")
    waived = ask(live, waivers={"server_programs": "the provider keeps it"})["server_programs"]
    assert waived.passed and waived.waived == "the provider keeps it"


def test_which_servers_are_looked_at(live):
    """Addresses that only this host can have: all of its own, in any notation."""
    own = ("localhost", "127.0.0.1", "127.3.2.1", "::1", "/var/run/postgresql")
    for host, local in [*((host, True) for host in own), ("192.0.2.1", False), ("2001:db8::1", False)]:
        assert is_local(Settings(host=host)) is local, host


# Disk


def test_a_declared_disk_counts(live):
    size = live.value("SELECT pg_database_size('shop')")
    needed = int(size * 2.1) + 2 * size  # two copies and their WAL
    gates = ask(live, database_directory=None, database_free_bytes=needed)
    assert gates["database_disk"].passed and "needed" in gates["database_disk"].found
    gates = ask(live, database_directory=None, database_free_bytes=needed - 1)
    gate = only_closed(gates, "database_disk", "two copies of the database")
    assert "free space on the database host" in gate.hint


def test_a_disk_that_cannot_be_read_closes_the_gate(live):
    only_closed(ask(live, database_directory=None), "database_disk", "backstop_database_free_bytes")
    only_closed(ask(live, database_directory="/nowhere/at/all"), "database_disk", "/nowhere/at/all")


def test_what_lies_on_one_file_system_is_added_up(live, monkeypatch):
    """Store and database on one disk: space for each alone is not enough."""
    size = live.value("SELECT pg_database_size('shop')")
    together = int(size * 2.1) + 2 * size + int(size * 1.1)
    monkeypatch.setattr(disk, "free_bytes", lambda path: together - 1)
    only_closed(ask(live), "database_disk", "two copies", "their WAL", "the backup")
    monkeypatch.setattr(disk, "free_bytes", lambda path: together)
    assert closed(ask(live)) == []
    own = {str(live.store.nearest_directory()): 1}
    monkeypatch.setattr(disk, "_device", lambda path: own.get(path, 2))
    monkeypatch.setattr(disk, "free_bytes", lambda path: together - int(size * 1.1))
    assert closed(ask(live, database_directory="/var")) == []


def test_the_store_must_have_room_and_be_private(live, monkeypatch):
    live.store.prepare()
    os.chmod(live.store.root, 0o755)
    only_closed(ask(live), "store", "0755", "chmod 700")
    os.chmod(live.store.root, 0o700)
    monkeypatch.setattr(type(live.store), "free_bytes", lambda self: 10)
    only_closed(ask(live), "store", "10 B")


# Rights


def as_role(live, role):
    """The library's view for another role."""
    settings = Settings.from_url(live.cluster.url(live.name, user=role))
    return dataclasses.replace(live.site, connection=settings, administration=settings.with_database("postgres"))


def test_a_role_that_may_make_no_database(live):
    for kind in ("TABLES", "SEQUENCES"):
        live.execute("GRANT SELECT ON ALL %s IN SCHEMA public TO %s" % (kind, APP))
    site = as_role(live, APP)
    gates = ask(live, site, tried=TRIED)
    assert closed(gates) == ["restorable", "rights", "swap_rights"]
    assert "shop_app lacks CREATEDB and ownership of shop" in gates["rights"].found
    assert rollback_way(site, list(gates.values())) == "refused"


def test_a_database_of_another_role_whose_tables_are_ours(live):
    """The database cannot be renamed, but every object in it can be altered."""
    live.execute("ALTER DATABASE shop OWNER TO %s" % REPORT)
    gates = ask(live, tried=TRIED)
    assert "rights" in closed(gates) and "ownership of shop" in gates["rights"].found


def test_what_this_role_cannot_restore(live):
    """A trusted schema is not enough for a function in C, nor for an event trigger."""
    live.execute("CREATE FUNCTION public.watch() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'")
    live.execute("CREATE EVENT TRIGGER watches ON ddl_command_end EXECUTE FUNCTION public.watch()")
    live.execute("ALTER FUNCTION public.watch() OWNER TO " + OWNER)
    before = live.names()
    gates = ask(live, tried=TRIED)
    gate = only_closed(gates, "restorable", "event trigger", "backstop_connection")
    assert PASSWORD not in str(gate.to_json())
    assert rollback_way(live.site, list(gates.values())) == "refused"
    assert live.names() == before, "a scratch database was left"


def test_a_table_that_is_locked(live):
    """The backup could not read it either; the session that holds the lock is named."""
    with live.session(user=OWNER) as cursor:
        cursor.execute('BEGIN; LOCK TABLE "User" IN ACCESS EXCLUSIVE MODE; SELECT pg_backend_pid()')
        pid = cursor.fetchone()[0]
        gates = ask(live, tried=["restorable"])
        only_closed(gates, "restorable", "public.User is locked by backend %d" % pid, "pg_terminate_backend")


def test_rows_that_row_security_hides(live):
    live.execute('ALTER TABLE "User" ENABLE ROW LEVEL SECURITY; ALTER TABLE "User" FORCE ROW LEVEL SECURITY')
    gates = ask(live)
    assert not gates["row_security"].passed and "public.User" in gates["row_security"].found


@pytest.mark.fault("deploy", "an index left invalid by CREATE INDEX CONCURRENTLY", by="a gate")
def test_indexes_left_invalid(live):
    """Each with the right statement: an attached one cannot be dropped, a copy left by REINDEX needs no REINDEX."""
    live.execute(
        "CREATE TABLE twice (a integer); INSERT INTO twice VALUES (1), (1); CREATE FUNCTION sound(integer) RETURNS"
        " integer LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END'; CREATE INDEX \"By sound\" ON twice (sound(a));"
        "CREATE TABLE parts (a integer) PARTITION BY LIST (a); CREATE TABLE part PARTITION OF parts DEFAULT;"
        "CREATE INDEX parts_a ON ONLY parts (sound(a))"
    )
    assert ask(live)["invalid_indexes"].found == "none", "of a partitioned table what is not built yet is dumped"
    live.execute(
        "CREATE OR REPLACE FUNCTION sound(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS"
        " 'BEGIN RAISE EXCEPTION ''no''; END'; INSERT INTO parts VALUES (1)"
    )
    for failing in (
        "CREATE UNIQUE INDEX CONCURRENTLY once ON twice (a)",
        'REINDEX INDEX CONCURRENTLY "By sound"',
        "CREATE INDEX CONCURRENTLY part_a ON part (sound(a))",
    ):
        with pytest.raises(psycopg2.Error):
            live.execute(failing)
    live.execute("ALTER INDEX parts_a ATTACH PARTITION part_a")
    gate = only_closed(ask(live), "invalid_indexes", "public.once on twice", "part_a on part", "leaves it out")
    remedies = gate.hint.split(". ")[0].split("; ")
    assert remedies == [
        'DROP INDEX public."By sound_ccnew" (REINDEX CONCURRENTLY left it, the index itself is in use)',
        "REINDEX INDEX public.once or DROP INDEX public.once",
        "REINDEX INDEX public.part_a",
    ]
    live.execute("DELETE FROM parts; DROP INDEX public.once")
    live.execute('DROP INDEX public."By sound_ccnew"')
    live.execute("REINDEX INDEX public.part_a")
    assert ask(live)["invalid_indexes"].found == "none"


def test_what_stays_with_the_former_database(live):
    live.execute("SELECT pg_create_logical_replication_slot('cdc', 'pgoutput')")
    live.execute("CREATE SUBSCRIPTION copies CONNECTION 'host=nowhere.invalid' PUBLICATION p WITH (connect = false)")
    try:
        gates = ask(live)
        for word in ("replication slot cdc", "subscription copies"):
            assert word in gates["swappable"].found
        assert "swappable" in closed(gates)
        waived = ask(live, tried=TRIED, waivers={"swappable": "CDC is moved by hand"})
        assert waived["swappable"].passed and rollback_way(live.site, list(waived.values())) == "in_place"
    finally:
        live.execute("ALTER SUBSCRIPTION copies SET (slot_name = NONE)")
        live.execute("DROP SUBSCRIPTION copies")


def test_standbys_are_told(live):
    assert ask(live)["standbys"].found == "none"
    with session(live.cluster, "postgres") as cursor:
        cursor.execute("SELECT pg_create_physical_replication_slot('standby_two')")
    gate = ask(live)["standbys"]
    assert gate.passed and gate.found == "unused slot standby_two"


# Other activity


def test_another_operation_that_is_open(live):
    rollback = live.begun("rollback", {"scenario": "complete"})
    gate = only_closed(ask(live), "other_operations", "rollback " + rollback.operation.id, "is running")
    assert gate.hint == "wait for it to end"
    # Its own operation does not count as another one.
    assert closed(ask(live, rollback)) == []
    header = pathlib.Path(rollback.operation.file("operation.json"))
    header.write_text(header.read_text().replace('"pid": ', '"pid": 9999'))
    only_closed(ask(live), "other_operations", "was interrupted", "backstop.postgres.rollback_complete")
    rollback.operation.close("done")
    assert closed(ask(live)) == []


def test_an_interrupted_deploy_is_taken_up(live):
    deploy = live.begun("deploy").operation
    only_closed(ask(live), "other_operations", "is running")
    header = pathlib.Path(deploy.file("operation.json"))
    header.write_text(header.read_text().replace('"pid": ', '"pid": 9999'))
    gate = ask(live)["other_operations"]
    assert gate.passed and deploy.id in gate.found
    # The application that it stopped is not unhealthy.
    stopped = {"app1": {"commit": "a" * 40, "running": False, "healthy": False}}
    only_closed(ask(live, applications=stopped), "application", "app1 does not run")
    deploy.write("stop", "done")
    assert closed(ask(live, applications=stopped)) == []


def test_a_lock_held_from_another_store(live):
    with database_lock(live.site):
        only_closed(ask(live), "other_operations", "Another operation is changing this database", "backend")


def test_an_application_that_is_sick(live):
    states = {
        "app1": HEALTHY["app1"],
        "app2": {"commit": "a" * 40, "running": True, "healthy": False, "health": "GET http://a/helth: status 404"},
        "app3": {"commit": None, "running": False, "healthy": False},
    }
    said = "app2 runs but is not healthy (GET http://a/helth: status 404)"
    only_closed(ask(live, applications=states), "application", said, "fix it first")
    only_closed(ask(live, applications=None), "application", "was not checked")
    assert ask(live, applications={"app3": states["app3"]})["application"].found == "no release runs yet"
    other = {"app4": {"commit": None, "running": False, "healthy": True, "elsewhere": ["/opt/app"]}}
    only_closed(ask(live, applications=other), "application", "app4 runs in /opt/app", "deploy the revision that runs")
    without = ask(live, files={INIT: FILES[INIT]}, expected=[], applications=states)
    assert closed(without) == [], "a deploy without a migration may mend it"


# Migrations


def test_only_the_expected_migrations_may_be_pending(live):
    only_closed(ask(live, expected=[]), "migrations", NEXT, "not expected")
    edited = {**FILES, INIT: FILES[INIT] + b"-- tidy"}
    only_closed(ask(live, files=edited), "migrations", "edited", INIT)
    live.execute("INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES ('x', 'x', '%s')" % NEXT)
    only_closed(ask(live), "migrations", "failed or were interrupted", NEXT)


def test_tables_without_a_history(live):
    """A team that adopts migrations: existing objects must be marked as applied first."""
    live.execute("DROP TABLE _prisma_migrations")
    only_closed(ask(live), "migrations", "tables but no history of migrations", "baselining")


def test_a_migration_beyond_its_database(live):
    files = {**FILES, NEXT: b"CREATE ROLE reporting;"}
    only_closed(ask(live, files=files), "cluster_statements", NEXT + " line 1", "by hand")


def test_what_a_migration_sends_out_is_shown_or_refused(live):
    live.execute("""
        CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER told AFTER INSERT ON "User" EXECUTE FUNCTION tell();
        CREATE EXTENSION postgres_fdw;
        CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw;
        CREATE FOREIGN TABLE received (note text) SERVER elsewhere;
    """)

    def asked(sql):
        return ask(live, files={**FILES, NEXT: sql})["isolation"]

    shown = asked(b'INSERT INTO "User" DEFAULT VALUES; NOTIFY orders')
    assert shown.passed
    assert "fires trigger told on public." in shown.found and NEXT + " sends notifications" in shown.found
    far = asked(b"INSERT INTO public.received VALUES ('x')")
    assert not far.passed and "received (server elsewhere)" in far.found and "by hand" in far.hint
    live.execute("CREATE EXTENSION dblink")
    assert "in a server of its own, because of: extension dblink" in asked(b"SELECT 1").found
    with mock.patch.object(isolation, "require_programs", side_effect=Refused("missing", hint="install them")):
        nowhere = asked(b"SELECT 1")
    assert not nowhere.passed and "install them. Then it runs in a server of its own" in nowhere.hint


def test_drift_is_shown_and_can_be_refused(live):
    assert "is that of the migrations" in ask(live, tried=["drift"])["drift"].found
    live.execute(
        'CREATE INDEX by_hand ON "User" (name); DROP INDEX "User_email_key";'
        'ALTER TABLE "User" ALTER name SET DEFAULT \'x\'; GRANT SELECT ON "User" TO %s;'
        'ALTER TABLE "TokenPurchase" OWNER TO %s; GRANT ALL ON "TokenPurchase" TO %s' % (REPORT, APP, OWNER)
    )
    gates = ask(live, tried=["drift"])
    told = [
        "index public.by_hand is only in the database",
        "index public.User_email_key is only in the migrations",
        "table public.User is changed (- name text | + name text DEFAULT 'x'::text)",
    ]
    assert gates["drift"].passed and gates["drift"].found == "; ".join(told)
    assert not [name for name in live.names() if name.startswith("backstop_")]
    refused = ask(live, tried=["drift"], refuse_drift=True)["drift"]
    assert not refused.passed and "index public.by_hand" in refused.found and "waive" in refused.hint


def test_a_migration_in_force_whose_objects_are_gone_closes_the_gate(live):
    """By the history alone the next deploy would pass with nothing to apply; partitions may be added and dropped."""
    data = b'SELECT 1 / (SELECT count(*) FROM "User");'
    parted = b"CREATE TABLE parted (a int) PARTITION BY LIST (a); CREATE TABLE part PARTITION OF parted DEFAULT;"
    files = {**FILES, "20251107000000_parted": parted}
    note_applied(live, "20251107000000_parted", parted)
    live.execute("DROP TABLE part")
    assert ask(live, tried=["drift"], files=files)["drift"].passed
    note_applied(live, NEXT, FILES[NEXT], run=False)
    live.execute('ALTER TABLE "User" DROP COLUMN name')
    gate = ask(live, tried=["drift"], files=files, expected=[])["drift"]
    assert not gate.passed and "the next deploy applies it again" in gate.hint
    assert gate.found.endswith("is missing: table public.ReceiptData, column public.User.name")
    # Where the migrations cannot be run again, the first backup with the same history is compared.
    note_applied(live, "20251109000000_data", data)
    live.as_owner("CREATE TABLE of_no_migration (); " + FILES[NEXT].decode())
    live.backup("post-migration")
    live.execute('DROP TABLE "ReceiptData", of_no_migration')
    live.backup("daily")
    gate = ask(live, tried=["drift"], files={**files, "20251109000000_data": data}, expected=[])["drift"]
    assert not gate.passed and gate.found.endswith("is missing: table public.ReceiptData")


def test_drift_of_a_database_that_was_restored(live):
    """A restore prints some expressions differently; that is not drift."""
    check = b"ALTER TABLE \"User\" ADD CONSTRAINT known CHECK (name::varchar(9) IN ('a', 'b') OR true);"
    files = {INIT: FILES[INIT] + check, NEXT: FILES[NEXT]}
    live.execute(check.decode())
    live.execute("UPDATE _prisma_migrations SET checksum = '%s'" % hashlib.sha256(files[INIT]).hexdigest())
    place = live.backup()
    name = scratch_name(new_id(), "new")
    build_database(live.site, place, name)
    restored = dataclasses.replace(live.site, connection=live.site.connection.with_database(name))
    with restored.connect() as there, live.site.connect() as here:
        key = "constraint public.User.known"
        assert definitions.definitions(here)[key] != definitions.definitions(there)[key], "this proves nothing"
        assert compare(restored, there, history.from_mapping(files))[0] == []
        there.execute('ALTER TABLE public."User" DROP CONSTRAINT known, ADD CONSTRAINT known CHECK (name IS NOT NULL)')
        [told] = compare(restored, there, history.from_mapping(files))[0]
        assert told.startswith("table public.User is changed (- CONSTRAINT known CHECK"), told
        assert told.endswith(" | + CONSTRAINT known CHECK ((name IS NOT NULL)))"), told


def test_drift_that_cannot_be_told(live):
    """A migration that was applied may fail on an empty database; this closes the gate only where drift is refused."""
    data = b'SELECT 1 / (SELECT count(*) FROM "User");'
    files = {**FILES, "20251002000000_data": data}
    live.execute(
        "INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at)"
        " VALUES ('d', '%s', '20251002000000_data', now())" % hashlib.sha256(data).hexdigest()
    )
    gate = ask(live, tried=["drift"], files=files)["drift"]
    assert gate.passed and "not compared: migration 20251002000000_data cannot be run" in gate.found
    only_closed(ask(live, tried=["drift"], files=files, refuse_drift=True), "drift", "division by zero")


@pytest.mark.offsite
def test_encrypted_backups_must_be_readable_here(live, tmp_path):
    """A deploy drills its backup: proved with a few bytes, before anything is made or stopped."""
    key, other = make_key(tmp_path), make_key(tmp_path, "other.txt")
    secret = dataclasses.replace(live.site, recipients=(key.recipient,))
    told = "backup_encryption"
    assert ask(live)[told].found == "backups are not encrypted"
    only_closed(ask(live, secret), told, "cannot drill what it cannot read", "backstop_age_identity")
    only_closed(ask(live, dataclasses.replace(secret, identity=other.identity)), told, "is not a recipient")
    only_closed(ask(live, dataclasses.replace(secret, identity=str(tmp_path / "none"))), told, "No such file")
    assert ask(live, dataclasses.replace(secret, identity=key.identity))[told].passed
    assert live.store.backups() == []


# The module


def test_the_module_keeps_waivers_in_the_journal(live, tmp_path):
    operation = live.begun("deploy").operation
    arguments = {
        "connection": {"url": live.cluster.url("shop", user=OWNER)},
        "client_bin_dir": str(live.cluster.bin_dir),
        "store": live.store.root,
        "operation": operation.id,
        "migrations": {name: sql.decode() for name, sql in FILES.items()},
        "expected": [NEXT],
        "database_directory": live.store.root,
        "applications": HEALTHY,
        "waivers": {"release_connection": "there is no release yet"},
    }
    checked = run_module(tmp_path, "deploy_gates_info", arguments, check=True)
    assert not checked.failed and operation.last("gates") is None
    answer = run_module(tmp_path, "deploy_gates_info", arguments)
    assert not answer.failed and answer.result["passed"] and answer.result["rollback"] == "swap", answer.printed
    assert answer.result["waived"] == {"release_connection": "there is no release yet"}
    assert {**answer.result, "invocation": 0} == {**checked.result, "invocation": 0}
    assert [(entry["step"], entry["event"]) for entry in operation.journal()] == [("gates", "began"), ("gates", "done")]
    kept = operation.facts("gates")
    assert kept["waived"] == answer.result["waived"] and kept["rollback"] == "swap"
    assert PASSWORD not in answer.printed
    refused = run_module(tmp_path, "deploy_gates_info", {**arguments, "waivers": {"store": " "}})
    assert refused.failed and "gives no reason" in refused.result["msg"]


def ask_for_copy(live, **changes):
    return ask(live, only="safety_copy", **changes)


def test_a_safety_copy_is_tried_first(live):
    """The time for all files is estimated from a copy of a scratch database."""
    before = live.names()
    assert ask_for_copy(live)["safety_copy"].found == "not requested"
    gate = ask_for_copy(live, safety_copy="template")["safety_copy"]
    assert gate.passed and "a copy of every file" in gate.found and "in about" in gate.found
    slow = ask_for_copy(live, safety_copy="template", safety_copy_seconds=0.001)
    only_closed(slow, "safety_copy", "takes too long", "at most 0.001 s")
    live.execute("BEGIN; SELECT 1; PREPARE TRANSACTION 'left'")
    only_closed(ask_for_copy(live, safety_copy="template"), "safety_copy", "prepared transaction left")
    live.execute("ROLLBACK PREPARED 'left'")
    assert live.names() == before


def test_a_clone_needs_a_server_that_can(live):
    with mock.patch.object(server, "major_version", return_value=17):
        gate = ask_for_copy(live, safety_copy="auto")["safety_copy"]
        assert gate.passed and gate.found == "none: PostgreSQL 17 cannot clone, version 18 and newer can"
        only_closed(ask_for_copy(live, safety_copy="clone"), "safety_copy", "cannot clone", "auto, template or off")
