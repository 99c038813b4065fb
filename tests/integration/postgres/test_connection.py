# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connecting: each error has a clear message, with what to do, and without the password."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import server
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.client_tools import find_client_tools
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import (
    PINNED_SETTINGS,
    Settings,
    connect,
)
from support.databases import APP, OWNER, PASSWORD


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def refused(settings, message):
    with pytest.raises(Refused, match=message) as caught:
        connect(settings)
    assert caught.value.hint and caught.value.found
    for form in settings.secrets:
        assert form not in str(caught.value)
    return caught.value


def changed(live, **fields):
    return Settings.from_mapping(fields, base=live.site.connection)


def test_wrong_password(plain):
    refused(changed(plain, password="n0t th!s"), "The password for the database is wrong")


def test_no_password(plain):
    settings = Settings(host="127.0.0.1", port=plain.cluster.port, user=OWNER, database=plain.name)
    with pytest.raises(Refused, match="requires a password"):
        connect(settings)


def test_unreachable_server(plain):
    port = closed_port()
    error = refused(changed(plain, port=port), "No PostgreSQL server answers at 127.0.0.1:%d" % port)
    assert "host and port" in error.hint


def test_unknown_host(plain):
    refused(changed(plain, host="no-such-host.invalid"), "The database host is unknown: no-such-host.invalid")


def test_socket_that_is_not_there(plain, tmp_path):
    refused(changed(plain, host=str(tmp_path)), "No PostgreSQL server answers at the socket")


def test_missing_database_lists_near_ones(plain):
    error = refused(changed(plain, database="Shop"), "There is no database Shop")
    assert "shop" in error.expected


def test_unknown_user(plain):
    # The server does not distinguish an unknown user from a wrong password.
    refused(changed(plain, user="nobody_like_this"), "The password for the database is wrong")


def test_user_that_may_not_log_in(plain):
    plain.execute("CREATE ROLE sleeping NOLOGIN PASSWORD '0pen'")
    try:
        refused(changed(plain, user="sleeping", password="0pen"), "does not exist or may not log in")
    finally:
        plain.execute("DROP ROLE sleeping")


def test_database_that_accepts_nobody(plain):
    plain.execute("ALTER DATABASE shop ALLOW_CONNECTIONS false", "postgres")
    refused(plain.site.connection, "The database shop accepts no connections")


def test_connection_limit(databases):
    live = databases.make("shop")
    live.execute("ALTER DATABASE shop CONNECTION LIMIT 0", "postgres")
    refused(live.site.connection, "no free connection")


def test_no_database_given():
    with pytest.raises(Refused, match="No database is given"):
        connect(Settings())


def test_pinned_settings_win_over_those_of_role_and_database(plain):
    plain.execute("ALTER ROLE %s SET datestyle = 'German'" % OWNER)
    plain.execute("ALTER DATABASE shop SET timezone = 'Asia/Tokyo'")
    try:
        with plain.site.connect() as session:
            for name, value in PINNED_SETTINGS:
                shown = session.value("SELECT current_setting(%s)", (name,))
                assert shown.replace(" ", "") in (value, "ISO,YMD"), name
        with plain.site.connect(pinned=False) as session:
            assert session.value("SHOW timezone") == "Asia/Tokyo"
    finally:
        plain.execute("ALTER ROLE %s RESET datestyle" % OWNER, "postgres")


def test_errors_of_statements_have_a_state_and_a_hint(plain):
    with plain.site.connect() as session:
        with pytest.raises(BackstopError, match="refused a statement") as caught:
            session.execute("SELECT * FROM nothing_there")
        assert caught.value.details == {"sqlstate": "42P01", "broken": False} and "nothing_there" in caught.value.found
        with pytest.raises(BackstopError) as caught:
            session.execute("CREATE ROLE another")
        assert caught.value.details["sqlstate"] == "42501" and caught.value.hint


def test_a_connection_that_breaks(plain):
    with plain.site.connect() as session:
        plain.execute("SELECT pg_terminate_backend(%d)" % session.backend, "postgres")
        with pytest.raises(BackstopError) as caught:
            session.rows("SELECT 1")
        assert "terminat" in caught.value.found or "closed" in caught.value.found
        with pytest.raises(BackstopError, match="was lost|refused"):
            session.rows("SELECT 1")


def test_a_transaction_is_rolled_back_on_any_error(plain):
    with plain.site.connect() as session:
        with pytest.raises(ZeroDivisionError), session.transaction():
            session.execute("CREATE TABLE public.half ()")
            raise ZeroDivisionError
        assert session.value("SELECT to_regclass('public.half')") is None
        with session.transaction("ISOLATION LEVEL SERIALIZABLE"):
            session.execute("CREATE TABLE public.whole ()")
        assert session.value("SELECT to_regclass('public.whole')") is not None


def test_urls_of_prisma_reach_the_database(plain):
    url = plain.cluster.url(plain.name, user=OWNER) + "?schema=public&connection_limit=5&pgbouncer=true"
    settings = Settings.from_url(url)
    assert settings.password == PASSWORD
    with connect(settings) as session:
        assert session.value("SELECT current_database()") == "shop"
    with connect(Settings.from_url(settings.url())) as session:
        assert session.value("SELECT current_user::text") == OWNER


@pytest.mark.parametrize(
    "written, host",
    [
        ("db.Example.org:5433", "db.Example.org"),
        ("[::1]", "::1"),
        ("%2Frun%2FMy%20Sockets", "/run/My Sockets"),
        ("localhost/shop?host=/run/My Sockets", "/run/My Sockets"),
        ("localhost/shop?host=%2Frun%2Fpostgresql&schema=public", "/run/postgresql"),
        ("", "localhost"),
    ],
)
def test_where_a_url_leads(written, host):
    url = "postgresql://someone:w%40rd@" + written + ("" if "/shop" in written else "/shop")
    settings = Settings.from_url(url)
    assert (settings.user, settings.password, settings.host, settings.database) == ("someone", "w@rd", host, "shop")
    assert Settings.from_url(settings.url()) == settings


@pytest.mark.parametrize("given, found", [("", "nothing"), ("shop", "no scheme"), ("mysql://h/shop", "'mysql'")])
def test_a_url_that_is_none(given, found):
    with pytest.raises(Refused, match="not one of PostgreSQL") as caught:
        Settings.from_url(given)
    assert found in caught.value.found


# Facts about the server


def test_identity_tells_databases_and_servers_apart(databases):
    one, two = databases.make("one"), databases.make("two")
    found = []
    for live in (one, two, one):
        with live.site.connect() as session:
            found.append(server.identity(session))
    assert found[0] == found[2] != found[1] and found[0].system_identifier == found[1].system_identifier != ""


def test_rights(plain):
    with plain.site.administer() as admin:
        rights = server.rights(admin, "shop")
    assert (rights.role, rights.superuser, rights.create_database, rights.owns_database) == (OWNER, False, True, True)
    app = Settings.from_url(plain.cluster.url("shop", user=APP))
    with connect(app) as session:
        rights = server.rights(session, "shop")
    assert (rights.create_database, rights.owns_database) == (False, False)


def test_other_sessions(plain):
    with plain.session(user=OWNER) as mine, plain.session() as superusers, plain.site.administer() as admin:
        mine.execute("BEGIN; SELECT 1")
        superusers.execute("SELECT 1")
        found = {other.user: other for other in server.other_sessions(admin, "shop")}
        assert set(found) == {OWNER, "postgres"}
        assert not found[OWNER].idle and found[OWNER].transaction_seconds is not None
        # The superuser's activity is hidden from the owner, so the session is not assumed to be idle.
        assert not found["postgres"].idle and "state hidden" in str(found["postgres"])


# Client programs


def test_client_tools_of_the_servers_major(cluster):
    tools = find_client_tools(cluster.major, str(cluster.bin_dir))
    assert tools.major == cluster.major and tools.pg_dump == str(cluster.bin_dir / "pg_dump")


def test_client_tools_that_are_missing(tmp_path):
    with pytest.raises(Refused, match="client programs of version 99 are missing") as caught:
        find_client_tools(99)
    assert "postgresql-client-99" in caught.value.hint and "client_bin_dir" in caught.value.hint
    for name in ("pg_dump", "pg_restore"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(Refused) as caught:
        find_client_tools(15, str(tmp_path))
    assert str(tmp_path) in caught.value.found
