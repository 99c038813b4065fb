# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Connections to PostgreSQL: reading the user's settings, connecting, errors that tell the user what to do.

This is the only file that imports psycopg2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import select
import time
from typing import IO, Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Type
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from ..base import sqlstates
from ..base.errors import BackstopError, Refused
from ..base.processes import redact
from ..base.remedies import Setting, remedy
from ..base.secret_texts import encoded_forms
from ..base.sql_names import near_names

try:
    import psycopg2
    import psycopg2.extensions

    PSYCOPG2_ERROR: Optional[ImportError] = None
except ImportError as missing:  # require_driver reports it, with what to install
    PSYCOPG2_ERROR = missing

#: The driver's errors; empty without a driver.
DRIVER_ERRORS: Tuple[Type[BaseException], ...] = (psycopg2.Error,) if PSYCOPG2_ERROR is None else ()

#: Session settings under which a row always has the same text, and without timeouts of a role or database, which would
#: end a long snapshot (an idle_in_transaction_session_timeout would invalidate an exported one).
PINNED_SETTINGS = (
    ("statement_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("lock_timeout", "10s"),
    ("row_security", "off"),
    ("search_path", "pg_catalog"),
    ("extra_float_digits", "3"),
    ("datestyle", "ISO,YMD"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("bytea_output", "hex"),
    ("xmlbinary", "base64"),
    ("lc_monetary", "C"),
    ("client_encoding", "UTF8"),
    ("synchronize_seqscans", "off"),
    ("default_transaction_read_only", "off"),
    # Else the server compiles code for each question about the catalog that it takes for expensive.
    ("jit", "off"),
    ("exit_on_error", "off"),
)
#: Further settings, with the server_version_num from which servers have them.
_NEWER_PINNED_SETTINGS = ((140000, "idle_session_timeout", "0"), (170000, "transaction_timeout", "0"))

#: https://www.prisma.io/docs/orm/overview/databases/postgresql#arguments
_PRISMA_PARAMETERS = {
    "schema",
    "connection_limit",
    "pool_timeout",
    "socket_timeout",
    "pgbouncer",
    "statement_cache_size",
    "sslidentity",
    "sslpassword",
    "sslaccept",
    "max_idle_connection_lifetime",
    "single_use_connections",
}
#: application_name of a session that gets no other
_NAME = "backstop"
_FIELDS = {"url", "host", "port", "user", "password", "database", "sslmode", "sslrootcert", "connect_timeout", "schema"}


def _host(netloc: str) -> str:
    """The host of a URL in its original case: a socket directory may have capital letters."""
    host = netloc.rpartition("@")[2]
    return unquote(host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0])


@dataclasses.dataclass(frozen=True)
class Settings:
    """Where to connect, and as which user. The password never shows in repr()."""

    host: str = "localhost"
    port: int = 5432
    user: str = ""
    password: str = dataclasses.field(default="", repr=False)
    database: str = ""
    sslmode: str = ""
    sslrootcert: str = ""
    connect_timeout: int = 10
    #: The schema that Prisma works in.
    schema: str = "public"
    #: Parameters of a Prisma URL that libpq does not know, kept for url().
    prisma: Tuple[Tuple[str, str], ...] = ()

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any], base: Optional["Settings"] = None) -> "Settings":
        """Read the O(connection) option: a url, or single fields, or fields that override those of the url.

        :param base: defaults for fields that the mapping lacks
        """
        unknown = sorted(set(given) - _FIELDS)
        if unknown:
            near = near_names(unknown[0], _FIELDS)
            raise Refused(
                "The connection has an unknown field",
                found=", ".join(unknown),
                expected=", ".join(sorted(_FIELDS)),
                hint="did you mean %s?" % near[0] if near else None,
            )
        settings = base or cls()
        if given.get("url"):
            settings = cls.from_url(str(given["url"]))
        fields = {key: value for key, value in given.items() if key != "url" and value not in (None, "")}
        if "port" in fields:
            fields["port"] = _port(str(fields["port"]))
        if "connect_timeout" in fields:
            fields["connect_timeout"] = int(fields["connect_timeout"])
        return dataclasses.replace(settings, **fields)

    @classmethod
    def from_url(cls, url: str) -> "Settings":
        """Read a connection URL as Prisma and libpq write it; user, password and database are percent-decoded."""
        try:
            parts = urlsplit(url.strip().strip("\"'"))
            port = parts.port
        except ValueError:
            raise Refused(
                "The connection URL cannot be read",
                found="an invalid host or port (the URL is not shown, it may hold a password)",
                expected="postgresql://user:password@host:port/database",
                hint="percent-encode the characters : / ? # [ ] @ in user and password",
            ) from None
        if parts.scheme not in ("postgresql", "postgres"):
            what = "the scheme %r" % parts.scheme if "://" in url else "no scheme" if url.strip() else "nothing"
            hint = "DATABASE_URL must be the direct URL of the database"
            if not url.strip():
                hint = "give %s" % Setting.URL
            if parts.scheme in ("prisma", "prisma+postgres"):
                hint = "this is Prisma's proxy: give the direct URL of the database"
            raise Refused(
                "The connection URL is not one of PostgreSQL", found=what, expected="postgresql://...", hint=hint
            )
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        # In Prisma and libpq the parameter host, often a socket directory, overrides the host before it.
        host = query.get("host", "") or _host(parts.netloc)
        prisma = tuple(sorted((key, value) for key, value in query.items() if key in _PRISMA_PARAMETERS - {"schema"}))
        return cls(
            host=host or "localhost",
            port=port or 5432,
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            database=unquote(parts.path.lstrip("/")),
            sslmode=query.get("sslmode", ""),
            # Prisma's sslcert is the CA certificate, which libpq calls sslrootcert.
            sslrootcert=query.get("sslrootcert", "") or query.get("sslcert", ""),
            connect_timeout=int(query["connect_timeout"]) if query.get("connect_timeout", "").isdigit() else 10,
            schema=query.get("schema", "public"),
            prisma=prisma,
        )

    def with_database(self, database: str) -> "Settings":
        return dataclasses.replace(self, database=database)

    def url(self, database: Optional[str] = None) -> str:
        """The URL for Prisma; it contains the password."""
        query: List[Tuple[str, str]] = [("schema", self.schema), *self.prisma]
        if self.sslmode:
            query.append(("sslmode", self.sslmode))
        if self.sslrootcert:
            query.append(("sslcert", self.sslrootcert))
        host = self.host
        if host.startswith("/"):
            query.append(("host", host))
            host = "localhost"
        secret = ":" + quote(self.password, safe="") if self.password else ""
        return "postgresql://%s%s@%s:%d/%s?%s" % (
            quote(self.user, safe=""),
            secret,
            "[%s]" % host if ":" in host else host,
            self.port,
            quote(self.database if database is None else database, safe=""),
            urlencode(query, quote_via=quote),
        )

    @property
    def masked(self) -> str:
        """The target of the connection for messages: without password and parameters."""
        return "postgresql://%s@%s:%d/%s" % (self.user, self.host, self.port, self.database)

    @property
    def secrets(self) -> List[str]:
        """Every form in which the password can appear."""
        return sorted(encoded_forms(self.password)) if self.password else []

    def conninfo(self) -> str:
        """A libpq connection string without password, safe for argv with any database name."""
        pairs = (("host", self.host), ("port", str(self.port)), ("user", self.user), ("dbname", self.database))
        return " ".join(
            "%s='%s'" % (key, value.replace("\\", "\\\\").replace("'", "\\'")) for key, value in pairs if value
        )

    def client_environment(self, options: str = "") -> Dict[str, str]:
        """What libpq programs need besides conninfo(). The password is only in the child's environment."""
        environment = {
            "PGPASSWORD": self.password,
            "PGSSLMODE": self.sslmode,
            "PGSSLROOTCERT": self.sslrootcert,
            "PGCONNECT_TIMEOUT": str(self.connect_timeout),
            "PGAPPNAME": _NAME,
            "PGOPTIONS": options,
        }
        return {key: value for key, value in environment.items() if value}


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise Refused("Invalid port", found=repr(text), expected="a number from 1 to 65535")
    return int(text)


def require_driver() -> None:
    if PSYCOPG2_ERROR is not None:
        raise Refused(
            "The Python module psycopg2 is missing on this host",
            found=str(PSYCOPG2_ERROR),
            hint=remedy("install python3-psycopg2 (Debian, Fedora) or psycopg2-binary (pip) for %s", Setting.PYTHON),
        )


class Session:
    """One connection, in autocommit unless a transaction is open."""

    def __init__(self, raw: Any, settings: Settings) -> None:
        self.raw = raw
        self.settings = settings

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self.raw.close()

    def answers(self) -> bool:
        """Whether the server still has this session."""
        try:
            return bool(self.value("SELECT true"))
        except BackstopError:
            return False

    def cursor(self) -> Any:
        return self.raw.cursor()

    def execute(self, sql: str, parameters: Optional[Sequence[Any]] = None) -> int:
        """Run a statement; the number of affected rows."""
        with database_errors(), self.raw.cursor() as cursor:
            cursor.execute(sql, parameters)
            return int(cursor.rowcount)

    def rows(self, sql: str, parameters: Optional[Sequence[Any]] = None) -> List[Tuple[Any, ...]]:
        with database_errors(), self.raw.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    def row(self, sql: str, parameters: Optional[Sequence[Any]] = None) -> Optional[Tuple[Any, ...]]:
        found = self.rows(sql, parameters)
        return found[0] if found else None

    def one(self, sql: str, parameters: Optional[Sequence[Any]] = None) -> Tuple[Any, ...]:
        """The first row of a query that always has one."""
        found = self.row(sql, parameters)
        if found is None:
            raise BackstopError("A query returned no row", found=sql[:200])
        return found

    def value(self, sql: str, parameters: Optional[Sequence[Any]] = None) -> Any:
        found = self.row(sql, parameters)
        return found[0] if found else None

    def copy_out(self, sql: str, stream: IO[bytes]) -> None:
        with database_errors(), self.raw.cursor() as cursor:
            cursor.copy_expert(sql, stream)

    def copy_in(self, sql: str, stream: Any) -> int:
        """Run COPY ... FROM STDIN with a readable object as input; the number of rows."""
        with database_errors(), self.raw.cursor() as cursor:
            cursor.copy_expert(sql, stream)
            return int(cursor.rowcount)

    @property
    def backend(self) -> int:
        """Process id of the server process (backend)."""
        return int(self.raw.get_backend_pid())

    @property
    def in_transaction(self) -> bool:
        return bool(self.raw.info.transaction_status)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """A savepoint: on an error only the block is rolled back; outside of a transaction it does nothing."""
        if not self.in_transaction:
            yield
            return
        self.execute("SAVEPOINT backstop")
        try:
            yield
        except BackstopError:
            self.execute("ROLLBACK TO SAVEPOINT backstop")
            self.execute("RELEASE SAVEPOINT backstop")
            raise
        self.execute("RELEASE SAVEPOINT backstop")

    @contextlib.contextmanager
    def transaction(self, mode: str = "") -> Iterator[None]:
        """BEGIN with the given mode; COMMIT at the end, ROLLBACK on an error."""
        self.execute("BEGIN " + mode)
        try:
            yield
        except BaseException:
            with contextlib.suppress(BackstopError):
                self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")


def connect(settings: Settings, *, pinned: bool = True, name: str = _NAME) -> Session:
    """Open a session.

    :param pinned: with PINNED_SETTINGS; False leaves the session as the role and database set it
    :param name: application_name, by which other sessions can recognise it
    :raises Refused: for everything that the user can fix: password, address, name, privileges
    """
    require_driver()
    if not settings.database:
        raise Refused("No database is given", hint=remedy("name it in %s", Setting.URL))
    try:
        raw = psycopg2.connect(**_arguments(settings, name))
    except psycopg2.Error as error:
        raise _connect_error(str(error), settings) from None
    raw.autocommit = True
    session = Session(raw, settings)
    if pinned:
        known = [(name, value) for since, name, value in _NEWER_PINNED_SETTINGS if raw.server_version >= since]
        _lift_statement_timeout(session)
        session.execute("; ".join("SET %s = '%s'" % pair for pair in [*PINNED_SETTINGS, *known]))
    return session


def _lift_statement_timeout(session: Session) -> None:
    """With SET, because poolers refuse startup options: so the database's own timeout may end even this statement."""
    for attempts_left in reversed(range(10)):
        try:
            session.execute("SET statement_timeout = 0")
            return
        except BackstopError as error:
            if error.sqlstate != sqlstates.QUERY_CANCELED or not attempts_left:
                raise


def _arguments(settings: Settings, name: str) -> Dict[str, Any]:
    """The driver's connection arguments."""
    arguments: Dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "user": settings.user,
        "password": settings.password,
        "dbname": settings.database,
        "sslmode": settings.sslmode,
        "sslrootcert": settings.sslrootcert,
        "connect_timeout": settings.connect_timeout,
        "application_name": name,
        # psycopg2 reads it when it connects, and uses it to decode.
        "client_encoding": "UTF8",
    }
    return {key: value for key, value in arguments.items() if value}


def execute_within(settings: Settings, sql: str, seconds: float) -> bool:
    """Run one statement in a separate connection; False when it has not ended in time.

    The connection is then closed; what happens to the statement depends on the server.
    """
    require_driver()
    deadline = time.monotonic() + seconds
    with database_errors():
        raw = psycopg2.connect(async_=1, **_arguments(settings, _NAME))
        with contextlib.closing(raw):
            if not _ended(raw, deadline):
                return False
            cursor = raw.cursor()  # kept: without it the answer cannot be read
            cursor.execute(sql)
            return _ended(raw, deadline)


def _ended(raw: Any, deadline: float) -> bool:
    """Wait until an asynchronous connection is idle, or until the deadline."""
    while True:
        state = raw.poll()
        if state == psycopg2.extensions.POLL_OK:
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        reading = [raw] if state == psycopg2.extensions.POLL_READ else []
        writing = [raw] if state == psycopg2.extensions.POLL_WRITE else []
        select.select(reading, writing, [], left)


def _connect_error(text: str, settings: Settings) -> Refused:
    said = " ".join(text.split()) or "no reason given"
    said = re.sub(r"connection to server .*? failed: ", "", said)
    # Decided before secrets are hidden: a short password may be part of a word.
    shown = redact(said, settings.secrets)
    where = "%s:%d" % (settings.host, settings.port)
    rules = (
        (
            "password authentication failed",
            "The password for the database is wrong",
            remedy("check user and password in %s; in a URL it must be percent-encoded", Setting.URL),
        ),
        (
            "no password supplied",
            "The server requires a password and none was given",
            remedy("put it into %s", Setting.PASSWORD),
        ),
        (
            "Connection refused",
            "No PostgreSQL server answers at " + where,
            "check host and port, and that the server runs and listens there",
        ),
        ("could not translate host name", "The database host is unknown: " + settings.host, "check the host's name"),
        (
            "timeout expired",
            "The database server did not answer in time: " + where,
            "check the address, firewalls and that the server is up",
        ),
        (
            "No such file or directory",
            "No PostgreSQL server answers at the socket in " + settings.host,
            "check the socket's directory and the port",
        ),
        (
            "no pg_hba.conf entry",
            "The server rejects connections of this user from this host",
            "add a line to pg_hba.conf for this user, database and address",
        ),
        (
            "too many connections",
            "The server or the database has no free connection",
            "close sessions or raise the limit",
        ),
        ("remaining connection slots", "The server has no free connection", "close sessions or raise max_connections"),
        (
            "not currently accepting connections",
            "The database %s accepts no connections" % settings.database,
            "it may be a database that a rollback retired; to use it: ALTER DATABASE ... ALLOW_CONNECTIONS true",
        ),
        ("the database system is", "The server is not ready", "wait until it has started, then run this again"),
        (
            "role ",
            "The database user does not exist or may not log in",
            remedy("check the user in %s", Setting.CONNECTION),
        ),
    )
    if "database " in said and "does not exist" in said:
        return _missing_database(shown, settings)
    details = {"broken": any(words in said for words in _NOT_THERE)}
    for pattern, message, hint in rules:
        if pattern in said:
            return Refused(message, found=shown, hint=hint, details=details)
    return Refused(
        "The connection to %s failed" % settings.masked,
        found=shown,
        hint=remedy("check %s", Setting.CONNECTION),
        details=details,
    )


def _missing_database(said: str, settings: Settings) -> Refused:
    names: List[str] = []
    if settings.database != "postgres":
        with contextlib.suppress(BackstopError), connect(settings.with_database("postgres")) as session:
            names = [row[0] for row in session.rows("SELECT datname FROM pg_database WHERE datallowconn")]
    near = near_names(settings.database, names)
    return Refused(
        "There is no database %s on %s:%d" % (settings.database, settings.host, settings.port),
        found=said,
        expected="one of: " + ", ".join(near) if near else None,
        hint=remedy("check the database's name in %s (names are case-sensitive)", Setting.CONNECTION),
    )


@contextlib.contextmanager
def database_errors() -> Iterator[None]:
    """Turn the driver's errors into ours. :attr:`BackstopError.sqlstate` is the server's code; ``details["broken"]``
    shows whether the connection was lost, as in a restart, after which it may soon work again."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise _statement_error(error) from error


#: The session was ended: by an administrator or a shutdown, by a crash, or before it began.
_ENDED_STATES = (sqlstates.ADMIN_SHUTDOWN, sqlstates.CRASH_SHUTDOWN, sqlstates.CANNOT_CONNECT_NOW)
#: libpq's messages about a server that is down, restarts, or has disconnected.
_NOT_THERE = (
    "Connection refused", "No such file or directory", "the database system is", "server closed the connection",
    "Connection reset", "terminating connection",
)  # fmt: skip
_STATE_HINTS = {
    sqlstates.INSUFFICIENT_PRIVILEGE: "give this role the right, or use a role that has it",
    sqlstates.LOCK_NOT_AVAILABLE: "another session holds a lock: see pg_stat_activity, end it or wait, then run this"
    " again",
    sqlstates.QUERY_CANCELED: "a timeout or a user cancelled the statement: see statement_timeout and lock_timeout of"
    " this role",
    sqlstates.DISK_FULL: "the server's disk is full: free space there",
    sqlstates.OUT_OF_MEMORY: "raise max_locks_per_transaction on the server (a restart), or its memory",
    sqlstates.ADMIN_SHUTDOWN: "the session was terminated on the server: find out why, then run this again",
    sqlstates.OBJECT_IN_USE: "other sessions use the database: see pg_stat_activity",
}


def _statement_error(error: Any) -> BackstopError:
    state = getattr(error, "pgcode", None)
    diagnosis = getattr(error, "diag", None)
    said = (diagnosis.message_primary if diagnosis else None) or str(error).strip() or type(error).__name__
    detail = diagnosis.message_detail if diagnosis and diagnosis.message_detail else ""
    lost = state is None and not (diagnosis and diagnosis.message_primary)
    message = "The connection to the database was lost" if lost else "The database refused a statement"
    broken = lost or state in _ENDED_STATES or (state or "").startswith(sqlstates.CONNECTION_EXCEPTION)
    return BackstopError(
        message,
        found="%s%s%s" % (said, " (" + detail + ")" if detail else "", " [%s]" % state if state else ""),
        hint=_STATE_HINTS.get(state or ""),
        details={"sqlstate": state, "broken": broken},
    )
