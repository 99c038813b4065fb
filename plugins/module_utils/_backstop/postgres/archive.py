# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archives: writing pg_dump's custom or directory format, reading all of it, restoring it into an empty database."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import subprocess
import tempfile
import threading
from typing import IO, Any, Dict, Iterator, List, Optional, Sequence, Tuple, Union

from ..base.encryption import Decrypting, Encrypted, Encrypting, Tee
from ..base.errors import BackstopError
from ..base.processes import Running, describe_failure, run
from ..base.progress import Progress
from ..base.sql_names import qualified
from . import restore_failures
from .client_tools import ClientTools
from .connection import Settings

#: Settings of a role or a database that would stop pg_dump and pg_restore, which reset them only later.
_UNHINDERED = "-c default_transaction_read_only=off -c statement_timeout=0 -c idle_in_transaction_session_timeout=0"
_RESTORE_OPTIONS = "-c lc_monetary=C " + _UNHINDERED
#: Settings that change the text of timestamps and of money in an archive.
_DUMP_OPTIONS = "-c timezone=UTC -c datestyle=ISO -c extra_float_digits=3 " + _RESTORE_OPTIONS
#: Definitions only have the same text under these settings, whatever a role or a database sets.
_COMPARABLE_OPTIONS = (
    _DUMP_OPTIONS + " -c role=none -c quote_all_identifiers=off -c bytea_output=hex -c xmlbinary=base64"
    " -c standard_conforming_strings=on"
)
#: Lock timeout of pg_dump, in seconds.
LOCK_WAIT_SECONDS = 10
#: The archive: a file, a directory, or an encrypted file, which is decrypted into pg_restore and never to disk.
Source = Union[str, Encrypted]
_END_OF_SQL = b"-- PostgreSQL database dump complete"
_END_OF_ROLES = b"-- PostgreSQL database cluster dump complete"


def choose_compression(tools: ClientTools) -> str:
    """The value for ``--compress``: zstd if the client was built with it (possible since 16), else fast gzip.

    Level 1 of gzip takes 40 % of the CPU time of the default level 6, and its output is 12 % larger.
    """
    if tools.major >= 16:
        # pg_dump refuses an unsupported method before it connects.
        argv = [tools.pg_dump, "-w", "-Fc", "--compress=zstd:1", "-d", "host=/nonexistent/backstop"]
        if "compression" not in run(argv, timeout=30).stderr:
            return "zstd:1"
    return "1"


@dataclasses.dataclass(frozen=True)
class DumpOptions:
    snapshot: Optional[str] = None
    compression: str = "1"
    schema_only: bool = False
    #: in UTF-8 and with settings under which equal definitions have equal text
    comparable: bool = False
    #: tables that are dumped in parallel, into a directory; 0 means into one file
    jobs: int = 0
    #: schema and name of the only relations to dump
    relations: Optional[Sequence[Tuple[str, str]]] = None
    lock_wait_seconds: int = LOCK_WAIT_SECONDS


def start_dump(
    tools: ClientTools, settings: Settings, path: Optional[str], options: DumpOptions, keep_open: Sequence[int] = ()
) -> Running:
    """Start pg_dump into a new archive at ``path``; the caller waits for it and checks its status.

    :param path: None for standard output, which the caller reads
    """
    argv = [
        tools.pg_dump,
        "--no-password",
        # The caller syncs the files, while it does other work.
        "--no-sync",
        "--format=" + ("directory" if options.jobs else "custom"),
        "--lock-wait-timeout=%ds" % options.lock_wait_seconds,
        "--compress=" + options.compression,
        "--dbname=" + settings.conninfo(),
    ]
    if path is not None:
        argv.append("--file=" + path)
    if options.jobs:
        argv.append("--jobs=%d" % options.jobs)
    if options.snapshot:
        argv.append("--snapshot=" + options.snapshot)
    if options.schema_only:
        argv.append("--schema-only")
    if options.comparable or options.relations is not None:
        # Patterns are read in the encoding of the dump.
        argv.append("--encoding=UTF8")
    if options.relations is not None:
        # In patterns everything between double quotes is literal.
        argv.append("--strict-names")
        argv += ["--table=" + qualified(schema, name) for schema, name in options.relations]
    return Running(
        argv,
        environment=settings.client_environment(_COMPARABLE_OPTIONS if options.comparable else _DUMP_OPTIONS),
        secrets=settings.secrets,
        keep_open=keep_open,
        stdout=subprocess.PIPE if path is None else None,
    )


class EncryptedDump:
    """pg_dump's standard output, encrypted into a file and decoded to its end at the same time.

    Without an identity the file cannot be read here later, so the archive is verified while it is written.
    """

    def __init__(
        self, tools: ClientTools, dump: Running, path: str, recipients: Sequence[str], keep_open: Sequence[int] = ()
    ) -> None:
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self._target = stack.enter_context(Encrypting(path, recipients, keep_open))
            self._decoding, self._listing = (
                stack.enter_context(
                    Running([tools.pg_restore, *options], stdin=subprocess.PIPE, stdout=out, keep_open=keep_open)
                )
                for options, out in ((["--file=" + os.devnull], None), (["--list"], subprocess.PIPE))
            )
            self._listed: List[bytes] = []
            self._reader = threading.Thread(target=self._read_list, daemon=True)
            self._reader.start()
            self._tee = Tee(dump.stdout, self._target, [self._decoding, self._listing])
            self._stack = stack.pop_all()
        self._dump = dump

    def __enter__(self) -> "EncryptedDump":
        return self

    def __exit__(self, *_exc: object) -> None:
        # Each thread ends when its programs do; its pipes must not be closed before.
        for program in (self._dump, self._target, self._decoding, self._listing):
            program.stop()
        self._tee.wait()
        self._reader.join()
        self._stack.close()

    def _read_list(self) -> None:
        self._listed += iter(lambda: os.read(self._listing.stdout.fileno(), 65536), b"")

    def wait_for_target(self) -> None:
        """Wait until all of pg_dump's output was passed on. If encrypting failed, raise that error."""
        self._tee.wait()
        if self._tee.cut_off:
            self._target.finish()

    def finish(self) -> Tuple[str, List["Entry"]]:
        """The sha256 of the encrypted file and the table of contents, once all is on disk and decoded."""
        self._tee.wait()
        digest = self._target.finish()
        self._decoding.check("The archive cannot be read completely")
        self._reader.join()
        self._listing.check("The archive's table of contents cannot be read")
        return digest, _entries(b"".join(self._listed).decode(errors="replace"))


def dump_roles(tools: ClientTools, settings: Settings, keep_open: Sequence[int] = ()) -> bytes:
    """Roles and tablespaces as SQL, without passwords (which only a superuser may read)."""
    done = run(
        [tools.pg_dumpall, "--no-password", "--globals-only", "--no-role-passwords", "--dbname=" + settings.conninfo()],
        environment=settings.client_environment(),
        secrets=settings.secrets,
        keep_open=keep_open,
        check="pg_dumpall could not write the roles",
    )
    if _END_OF_ROLES not in done.output:
        raise BackstopError("pg_dumpall did not write the roles to their end", found="%d bytes" % len(done.output))
    return done.output


def _read_by(argv: List[str], source: Source, keep_open: Sequence[int]) -> Dict[str, Any]:
    """How to start a pg_restore that reads an archive: its arguments, and the program that decrypts for it."""
    if isinstance(source, Encrypted):
        return {"argv": argv, "fed_by": Decrypting(source, keep_open), "keep_open": keep_open}
    return {"argv": [*argv, source], "keep_open": keep_open}


def decode(
    tools: ClientTools,
    source: Source,
    keep_open: Sequence[int] = (),
    target: str = os.devnull,
    progress: Optional[Progress] = None,
) -> None:
    """Read and decompress the whole archive, because ``pg_restore --list`` would accept a truncated one.

    :param target: where to write it as plain SQL
    :param progress: gets a phase for it
    """
    path = os.path.realpath(source.path if isinstance(source, Encrypted) else source)
    progress = progress or Progress()
    progress.phase("reading the archive back", archive=path, bytes_total=size_of(path))
    run(
        **_read_by([tools.pg_restore, "--file=" + target], source, keep_open),
        check="The archive cannot be read completely",
        watch=lambda program: progress.done(program.bytes_counted("rchar")),
    )
    if target != os.devnull and not _ends_with(target, _END_OF_SQL):
        raise BackstopError("pg_restore did not write the plain SQL to its end", found=target)


def _ends_with(path: str, mark: bytes) -> bool:
    with open(path, "rb") as stream:
        stream.seek(max(0, os.path.getsize(path) - 4096))
        return mark in stream.read()


def size_of(path: str) -> int:
    """Size of an archive in bytes: of its file, or of all files in its directory."""
    if os.path.isdir(path):
        return sum(entry.stat().st_size for entry in os.scandir(path))
    return os.path.getsize(path)


@dataclasses.dataclass(frozen=True)
class Entry:
    """A line of an archive's table of contents."""

    number: int
    line: str


def contents(tools: ClientTools, source: Source) -> List[Entry]:
    """The table of contents. It does not show whether the data can be read: see decode()."""
    how = _read_by([tools.pg_restore, "--list"], source, ())
    return _entries(run(**how, check="The archive's table of contents cannot be read").stdout)


def _entries(listing: str) -> List[Entry]:
    lines = [line for line in listing.splitlines() if line and not line.startswith(";")]
    return [Entry(int(line.split(";", 1)[0]), line) for line in lines]


#: TABLE DATA entries contain the oid that the table had when it was dumped.
_TABLE_DATA = re.compile(r"\d+; \d+ (\d+) TABLE DATA (.*)")


def rows_of(entries: Sequence[Entry], oid: int, schema: str, name: str) -> Entry:
    """The one entry that holds the rows of a table.

    :param oid: of the table when it was dumped, as in the manifest
    :raises BackstopError: there is none, or more than one
    """
    # As the listing prints names: it has one line for each entry.
    printed = "%s %s " % tuple(re.sub(r"[\r\n]", " ", part) for part in (schema, name))
    found = []
    for entry in entries:
        match = _TABLE_DATA.fullmatch(entry.line)
        # If the archive is not in UTF-8, a name may be unreadable; then the oid alone decides.
        if match and int(match.group(1)) == oid and (match.group(2).startswith(printed) or "\ufffd" in entry.line):
            found.append(entry)
    if len(found) != 1:
        raise BackstopError(
            "The archive does not hold the rows of table %s.%s exactly once" % (schema, name),
            found="%d entries" % len(found),
            hint="use another backup",
        )
    return found[0]


_COLUMN = re.compile(r'"(?:[^"]|"")*"|[^\s,()"]+')


class CopyBlock:
    """The rows of one table in an archive, as input for COPY ... FROM STDIN, up to their end mark."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        #: encoding of names and rows
        self.encoding = "UTF8"
        #: the columns of each row, in order
        self.columns: List[str] = []
        #: rows read so far, and whether the end mark was read
        self.rows = 0
        self.ended = False
        self._read_head()

    def _read_head(self) -> None:
        for line in self._stream:
            match = re.match(rb"SET client_encoding = '(\w+)';", line)
            if match:
                self.encoding = match.group(1).decode()
            if line.startswith(b"COPY "):
                while not line.endswith(b" FROM stdin;\n"):
                    more = self._stream.readline()
                    if not more:
                        return
                    line += more
                names = line[: -len(b" FROM stdin;\n")].decode(errors="replace")
                listed = names[names.index(" (") + 2 : -1] if names.endswith(")") else ""
                found = _COLUMN.findall(listed)
                self.columns = [name[1:-1].replace('""', '"') if name.startswith('"') else name for name in found]
                return

    def read(self, _size: int = -1) -> bytes:
        """Some whole lines; none after the end mark."""
        lines: List[bytes] = []
        size = 0
        while not self.ended and size < 65536:
            line = self._stream.readline()
            if not line:
                break
            self.ended = line == b"\\.\n"
            if not self.ended:
                lines.append(line)
                size += len(line)
        self.rows += len(lines)
        return b"".join(lines)


@contextlib.contextmanager
def rows_to_copy(
    tools: ClientTools, source: Source, entry: Entry, keep_open: Sequence[int] = ()
) -> Iterator[CopyBlock]:
    """The rows of one entry of an archive.

    :raises BackstopError: at the end of the block, if the end mark was not reached or pg_restore failed
    """
    with tempfile.NamedTemporaryFile("w", prefix="backstop-", suffix=".list", encoding="utf-8") as listing:
        listing.write(entry.line + "\n")
        listing.flush()
        argv = [tools.pg_restore, "--data-only", "--use-list=" + listing.name, "--file=-"]
        with Running(**_read_by(argv, source, keep_open)) as program:
            block = CopyBlock(program.stdout)
            yield block
            for _rest in iter(lambda: program.stdout.read(1 << 16), b""):
                pass
            program.check("The rows of a table cannot be read from the archive", hint="use another backup")
            if not block.ended:
                raise BackstopError(
                    "The archive ends within the rows of a table", found=entry.line, hint="use another backup"
                )


def restore(
    tools: ClientTools,
    settings: Settings,
    source: Source,
    *,
    jobs: int = 2,
    schema_only: bool = False,
    keep_open: Sequence[int] = (),
) -> None:
    """Restore an archive into the (empty) database of the settings; stops at the first error.

    An encrypted archive is restored by one job, because pg_restore reads it from a pipe and cannot seek.
    Subscriptions are left out: a restored one would take over the live one's slot.

    :raises BackstopError: names the object that failed, the cause, and what to do about it
    """
    argv = [
        tools.pg_restore,
        "--no-password",
        "--exit-on-error",
        "--no-subscriptions",
        "--dbname=" + settings.conninfo(),
    ]
    if not isinstance(source, Encrypted):
        argv.append("--jobs=%d" % jobs)
    if schema_only:
        argv.append("--schema-only")
    done = run(**_read_by(argv, source, keep_open), environment=restore_environment(settings), secrets=settings.secrets)
    if done.status != 0:
        raise restore_failures.explain(done.stderr, settings, describe_failure(argv[0], done.status, done.stderr))


def start_script(tools: ClientTools, source: Source, *, keep_open: Sequence[int] = ()) -> Running:
    """Start writing an archive as an SQL script to standard output; the caller reads it and checks the status.

    It has one BEGIN at the start and one COMMIT at the end: without ``--single-transaction`` large objects have their
    own BEGIN and COMMIT.
    """
    argv = [tools.pg_restore, "--single-transaction", "--no-subscriptions", "--file=-"]
    return Running(**_read_by(argv, source, keep_open))


def restore_environment(settings: Settings) -> Dict[str, str]:
    return settings.client_environment(_RESTORE_OPTIONS)
