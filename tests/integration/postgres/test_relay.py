# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The relay on a real server: who may connect through it, what it passes on, how it ends."""

from __future__ import annotations

import contextlib
import datetime
import io
import ipaddress
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg2
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import private_directory as directories
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.relay import relayed
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.server_login import pack
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from demo.postgres_server import Cluster
from support.collection_files import ROOT
from support.prisma_database import until

USER, SECRET = "shop user", "p@ss/w#rd $HOME%ä\u00a0Ⅸ'"
#: Roles by the server's password authentication method.
METHODS = {USER: "scram-sha-256", "old": "md5", "plain": "password"}


def certificate(folder, name):
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "server.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    server = Cluster.create(tmp_path_factory.mktemp("postgres"), options={"fsync": "off", "ssl": "on"})
    try:
        certificate(server.data, "server")
        for name in ("server.crt", "server.key"):
            (server.data / name).chmod(0o600)
            server._give(server.data / name)
        server.start()
        for user, method in METHODS.items():
            stored = "md5" if method == "md5" else "scram-sha-256"
            server.sql("ALTER ROLE postgres SET password_encryption = '%s'" % stored)
            server.create_role(user, "LOGIN", password=SECRET)
        lines = "".join('host all "%s" 127.0.0.1/32 %s\n' % pair for pair in METHODS.items())
        rules = server.data / "pg_hba.conf"
        rules.write_text(lines + rules.read_text("utf-8"), "utf-8")
        server.sql("SELECT pg_reload_conf()")
        yield server
    finally:
        server.destroy()


@pytest.fixture(params=["disable", "require"])
def way(request, cluster):
    """The relay's directory, with and without TLS between it and the server."""
    with relay_to(cluster.url(user=USER) + "?sslmode=" + request.param) as folder:
        yield folder


@contextlib.contextmanager
def relay_to(url):
    """Start a relay; the directory of its socket."""
    with relayed(url) as way:
        yield parse_qs(urlsplit(way).query)["host"][0]


@contextlib.contextmanager
def through(folder, user=USER, **keywords):
    connection = psycopg2.connect(host=folder, user=user, dbname="postgres", **keywords)
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


def ask(connection, sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def refusal(folder, **keywords):
    with pytest.raises(psycopg2.OperationalError) as caught, through(folder, **keywords):
        raise AssertionError("not reached")
    assert SECRET not in str(caught.value)
    return str(caught.value)


# Who gets in


def test_let_in_with_its_own_settings_and_without_a_password(way, request):
    with through(way, options="-c lock_timeout=1500ms", application_name="prisma of x") as connection:
        assert ask(connection, "SELECT current_user::text") == USER
        assert ask(connection, "SHOW application_name") == "prisma of x"
        assert ask(connection, "SHOW lock_timeout") == "1500ms"
        encrypted = ask(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert encrypted == ("require" in request.node.name)
    assert os.stat(way).st_mode & 0o777 == 0o700 and os.stat(way).st_uid == os.geteuid()


@pytest.mark.parametrize("user", METHODS)
def test_each_way_to_ask_for_a_password(cluster, user):
    with relay_to(cluster.url(user=user)) as folder, through(folder, user) as connection:
        assert ask(connection, "SELECT current_user") == user


def test_a_wrong_password_is_the_servers_answer(cluster):
    with relay_to(cluster.url(user=USER, password="wrong")) as folder:
        assert "password authentication failed for user" in refusal(folder)


def test_a_missing_database_is_the_servers_answer(cluster):
    missing = pytest.raises(psycopg2.OperationalError, match='database "nowhere" does not exist')
    with missing, relay_to(cluster.url(user=USER)) as folder:
        psycopg2.connect(host=folder, user=USER, dbname="nowhere")


def test_only_for_the_user_whose_password_it_has(way):
    assert "for another user" in refusal(way, user="postgres")


def test_other_users_of_the_host_are_turned_away(way, monkeypatch):
    """The directory already keeps them out; here the kernel reports another user id than ours."""
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert "closed the connection" in refusal(way)


def test_nobody_answers(cluster):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed = listener.getsockname()[1]
    with relay_to(cluster.url(user=USER).replace(":%d/" % cluster.port, ":%d/" % closed)) as folder:
        assert "Connection refused" in refusal(folder)


def test_a_server_without_the_expected_certificate(cluster, tmp_path):
    certificate(tmp_path, "another")
    for mode, path, works in (
        ("verify-full", cluster.data / "server.crt", True),
        ("verify-ca", cluster.data / "server.crt", True),
        ("require", tmp_path / "server.crt", False),
        ("verify-full", tmp_path / "server.crt", False),
        ("prefer", tmp_path / "server.crt", True),
    ):
        with relay_to(cluster.url(user=USER) + "?sslmode=%s&sslrootcert=%s" % (mode, path)) as folder:
            if works:
                with through(folder) as connection:
                    assert ask(connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            else:
                assert "certificate" in refusal(folder).lower()


class FalseServer:
    """Asks for the password by SCRAM, and accepts every client without proving that it knows the password itself."""

    def __init__(self, answers):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._answers = answers
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        connection, _address = self._listener.accept()
        with connection, self._listener:
            connection.recv(10000)
            for answer in self._answers[:-1]:
                connection.sendall(answer)
                connection.recv(10000)
            connection.sendall(self._answers[-1])


def question(code, content=b""):
    return pack(b"R", code.to_bytes(4, "big") + content)


ASKS = question(10, b"SCRAM-SHA-256\0\0")


@pytest.mark.parametrize(
    "answers, expected",
    [
        ([ASKS, question(0)], "did not prove"),
        ([ASKS, question(11, b"r=of another,s=AAAA,i=4096")], "does not match ours"),
        ([ASKS, question(11, b"s=AAAA")], "cannot be read"),
        ([ASKS, question(12, b"v=AAAA"), question(0)], "did not prove"),
        ([question(7)], "another authentication method"),
        ([question(10, b"SCRAM-SHA-512\0\0")], "another authentication method"),
        ([question(0)[:-1]], "closed the connection"),
        ([b"HTTP/1.1 200 OK"], "closed the connection"),
    ],
)
def test_a_server_that_does_not_know_the_password(answers, expected):
    server = FalseServer(answers)
    url = "postgresql://u:%s@127.0.0.1:%d/postgres?sslmode=disable" % ("secret", server.port)
    with relay_to(url) as folder, pytest.raises(psycopg2.OperationalError, match=expected):
        psycopg2.connect(host=folder, user="u", dbname="postgres")


def test_a_server_without_tls_where_it_is_wanted():
    url = "postgresql://u:x@127.0.0.1:%d/postgres?sslmode=require" % FalseServer([b"N"]).port
    with relay_to(url) as folder, pytest.raises(psycopg2.OperationalError, match="does not support TLS"):
        psycopg2.connect(host=folder, user="u", dbname="postgres")


def test_the_url_keeps_what_does_not_concern_the_way():
    url = "postgresql://a%20b:s%40c@h:1/my%20db?schema=x&password=s&sslmode=require&options=-c%20a%3Db&host=/y"
    with relayed(url) as way:
        start, end = way.split("&host=")
        assert start == "postgresql://a%20b@localhost:5432/my%20db?schema=x&options=-c%20a%3Db"
        assert os.path.isdir(unquote(end))


def test_a_certificate_of_the_client_is_refused():
    with pytest.raises(Refused, match="leave the password out"), relayed("postgresql://u:x@h/d?sslidentity=a.p12"):
        raise AssertionError("not reached")


# What passes through


def test_large_results_both_ways(way):
    """More than any buffer holds, in both directions, byte for byte."""
    with through(way) as connection, connection.cursor() as cursor:
        text = io.StringIO()
        cursor.copy_expert("COPY (SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 30000) n) TO STDOUT", text)
        assert text.tell() > 19_000_000
        cursor.execute("CREATE TEMPORARY TABLE kept (n int, text text)")
        text.seek(0)
        cursor.copy_expert("COPY kept FROM STDIN", text)
        cursor.execute("SELECT count(*), bool_and(text = repeat(md5(n::text), 20)) FROM kept")
        assert cursor.fetchone() == (30000, True)


def test_notices_notifications_and_errors(way):
    with through(way) as listening, through(way) as connection, connection.cursor() as cursor:
        ask(listening, "LISTEN news; SELECT 1")
        cursor.execute("DO $$BEGIN RAISE WARNING 'look'; END$$; NOTIFY news, 'payload'")
        assert "look" in connection.notices[-1]

        def arrived():
            listening.poll()
            return listening.notifies

        assert until(arrived, "the notification")[0].payload == "payload"
        with pytest.raises(psycopg2.errors.UndefinedTable):
            cursor.execute("SELECT * FROM nowhere")
        assert ask(connection, "SELECT 1") == 1


_CANCELS = """
import psycopg2, sys, threading
connection = psycopg2.connect(host=sys.argv[1], user=sys.argv[2], dbname="postgres")
def ask():
    try:
        connection.cursor().execute("SELECT pg_sleep(60)")
    except psycopg2.errors.QueryCanceled:
        print("cancelled")
thread = threading.Thread(target=ask)
thread.start()
while thread.is_alive():
    connection.cancel()
    thread.join(0.1)
"""


def test_cancelling(way):
    argv = [sys.executable, "-c", _CANCELS, way, USER]
    assert subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=50).stdout == b"cancelled\n"


# How it ends


def test_a_session_that_the_server_ends(way, cluster):
    with through(way) as connection:
        pid = ask(connection, "SELECT pg_backend_pid()")
        cluster.sql("SELECT pg_terminate_backend(%d)" % pid)
        with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as heard:
            heard.setblocking(True)
            said = b"".join(iter(lambda: heard.recv(1000), b""))
        assert b"terminating connection due to administrator command" in said
        with pytest.raises(psycopg2.OperationalError):
            ask(connection, "SELECT 1")


_CLIENT = """
import psycopg2, sys
connection = psycopg2.connect(host=sys.argv[1], user=sys.argv[2], dbname="postgres",
                              application_name="killed")
connection.autocommit = True
connection.cursor().execute("SELECT 1")
print(flush=True)
sys.stdin.read()
"""


def test_a_killed_program_leaves_no_session(way, cluster):
    argv = [sys.executable, "-c", _CLIENT, way, USER]
    program = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    program.stdout.readline()
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'killed'"
    assert cluster.sql(sessions) == "1"
    program.kill()
    program.communicate()
    until(lambda: cluster.sql(sessions) == "0", "the session is gone")


def test_ends_with_its_work(cluster):
    before = threading.active_count()
    with relay_to(cluster.url(user=USER)) as folder, through(folder) as connection:
        ask(connection, "SELECT 1")
        left_open = psycopg2.connect(host=folder, user=USER, dbname="postgres")
    assert not os.path.exists(folder) and threading.active_count() == before
    with pytest.raises(psycopg2.OperationalError):
        ask(left_open, "SELECT 1")


_KEEPS = """
import sys
from urllib.parse import parse_qs, urlsplit
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.relay import relayed
with relayed("postgresql://u:x@127.0.0.1:1/d") as way:
    print(parse_qs(urlsplit(way).query)["host"][0], flush=True)
    sys.stdin.read()
"""


def test_what_a_killed_run_left_is_removed_by_the_next(request, monkeypatch):
    short = tempfile.mkdtemp(prefix="r-", dir="/tmp")  # pytest's own path can be too long for a socket
    request.addfinalizer(lambda: shutil.rmtree(short))
    monkeypatch.setenv("TMPDIR", short)
    monkeypatch.setattr(directories.tempfile, "tempdir", None)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", _KEEPS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    killed, alive = (subprocess.Popen(argv, env=environment, cwd=ROOT, **pipes) for _which in range(2))
    try:
        left, kept = (program.stdout.readline().decode().strip() for program in (killed, alive))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert os.path.isdir(left)
        os.symlink(short, os.path.join(short, directories.PREFIX + "link"))
        with directories.private_directory() as own:
            assert not os.path.exists(left) and os.path.isdir(kept) and os.path.isdir(own)
        assert not os.path.exists(own) and os.path.isdir(kept)
    finally:
        for program in (killed, alive):
            program.kill()
            program.communicate()


def test_a_directory_with_too_long_a_name(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    monkeypatch.setattr(directories.tempfile, "tempdir", str(folder))
    with pytest.raises(Refused, match="TMPDIR"), relayed("postgresql://u:x@127.0.0.1:1/d"):
        raise AssertionError("not reached")
