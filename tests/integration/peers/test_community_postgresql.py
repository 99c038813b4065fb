# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where ``community.postgresql.postgresql_db`` reports success and loses data, and what this collection does there.

Each test runs both modules in the same situation. docs/comparison.md has a row for each.
"""

from __future__ import annotations

import pathlib
import resource
import stat

import pytest
from support import peer_collection
from support.databases import OWNER, PASSWORD
from support.reliability import FULL

THEIRS, DUMP, VERIFY, RESTORE = (
    "community.postgresql.postgresql_db",
    "backstop.postgres.pg_dump",
    "backstop.postgres.pg_backup_verify",
    "backstop.postgres.pg_restore",
)
#: What theirs loses in the same situation is in docs/comparison.md.
OURS = "refused or failed; the other module ran in the same situation"
#: Small enough for a pipe, and does not compress below the limit of a file.
RANDOM = "CREATE TABLE noise AS SELECT g AS id, md5(g::text || 'x') AS a FROM generate_series(1, 700) g"
FILE_LIMIT = 16 << 10


class Both:
    """The same database for both."""

    def __init__(self, databases, folder: pathlib.Path) -> None:
        self.databases, self.folder = databases, folder
        self.live = databases.make("shop")
        self.port = databases.cluster.port
        self.connection = {
            "login_host": "127.0.0.1",
            "login_port": self.port,
            "login_user": OWNER,
            "login_password": PASSWORD,
        }

    def theirs(self, state, target, name="shop", check=False, keywords=None, **more):
        arguments = {**self.connection, "name": name, "state": state, "target": str(target), **more}
        return peer_collection.run(THEIRS, arguments, check=check, **(keywords or {}))

    def ours(self, module, check=False, keywords=None, connected="shop", **more):
        url = self.databases.cluster.url(connected, user=OWNER)
        arguments = {**more, "connection": {"url": url}, "store": str(self.live.store.root)}
        if module != RESTORE:
            arguments["client_bin_dir"] = str(self.databases.cluster.bin_dir)
        return peer_collection.run(module, arguments, check=check, **(keywords or {}))

    def backup(self, **more):
        said = self.ours(DUMP, kind="daily", **more)
        assert not said.failed, said.msg
        return said.result["backup"], pathlib.Path(said.result["directory"])

    def empty(self, name):
        self.databases.make(name, "template0")
        return self.databases.existing(name)

    def purchases(self, database):
        return self.live.value('SELECT count(*) FROM "TokenPurchase"', database)

    def names(self):
        return self.live.names()


@pytest.fixture
def both(databases, tmp_path):
    return Both(databases, tmp_path)


@pytest.mark.parametrize("suffix", ["sql", "pgc", "dir", "sql.gz"] if FULL else ["dir"])
def test_what_works_with_both(both, suffix):
    """Dumped, restored, and there: the cases of their own tests."""
    target = both.folder / ("shop." + suffix)
    assert both.theirs("dump", target).changed
    both.empty("again")
    restored = both.theirs("restore", target, name="again")
    assert restored.changed and not restored.failed, restored.result
    assert both.purchases("again") == 500
    form = {"format": "directory", "jobs": 2} if suffix == "dir" else {"plain": suffix == "sql"}
    backup, _path = both.backup(**form)
    restored = both.ours(RESTORE, backup=backup, database="ours")
    assert restored.changed and not restored.failed, restored.msg
    assert both.purchases("ours") == 500


@pytest.mark.fault("peers", "a dump that fails over the last good one", by=OURS)
def test_a_failing_dump_over_the_last_good_one(both):
    target = both.folder / "shop.sql"
    assert both.theirs("dump", target).changed and target.stat().st_size > 10_000
    _backup, good = both.backup()
    both.live.execute(
        "CREATE TABLE locked (a int); REVOKE ALL ON locked FROM PUBLIC; ALTER TABLE locked OWNER TO postgres"
    )
    said = both.theirs("dump", target)
    assert said.failed and target.stat().st_size == 0, "the good dump is gone"
    said = both.ours(DUMP, kind="daily")
    assert said.failed and (good / "manifest.json").exists()
    assert not both.ours(VERIFY, backup=good.name).failed
    assert [place.backup_id for place in both.live.store.backups()] == [good.name]


def limited():
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))


@pytest.mark.fault("peers", "a full disk while a small dump is compressed", by=OURS)
def test_the_disk_is_full(both):
    """The compressor fails, and nobody asks for its status."""
    both.live.as_owner(RANDOM)
    target = both.folder / "full.sql.gz"
    said = both.theirs("dump", target, keywords={"preexec_fn": limited})
    assert said.changed and not said.failed and said.result["rc"] == 0, said.result
    assert target.stat().st_size <= FILE_LIMIT
    both.empty("again")
    assert both.theirs("restore", target, name="again").failed, "and it cannot be restored"
    said = both.ours(DUMP, kind="daily", keywords={"preexec_fn": limited})
    assert said.failed and not both.live.store.backups()


@pytest.mark.fault("peers", "a dump that was cut", by=OURS)
def test_a_dump_that_is_cut(both):
    """Half of the rows are restored, and the task is changed."""
    target = both.folder / "shop.sql"
    both.theirs("dump", target)
    text = target.read_text("utf-8")
    target.write_text(text[: text.index("p000250")].rstrip("\n") + "\n", encoding="utf-8")
    both.empty("again")
    said = both.theirs("restore", target, name="again")
    assert said.changed and not said.failed and said.result["rc"] == 0
    assert both.purchases("again") == 249
    backup, path = both.backup()
    archive = path / "archive.dump"
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 2])
    for said in (both.ours(VERIFY, backup=backup), both.ours(RESTORE, backup=backup, database="ours")):
        assert said.failed, said.result
    assert "ours" not in both.names()


@pytest.mark.fault("peers", "a restore over a database that has the tables", by=OURS)
def test_a_restore_over_a_database_that_has_the_tables(both):
    """Every statement fails, psql goes on, and the task is changed."""
    target = both.folder / "shop.sql"
    both.theirs("dump", target)
    both.live.execute('UPDATE "TokenPurchase" SET "totalTokens" = 0')
    said = both.theirs("restore", target)
    assert said.changed and not said.failed and "already exists" in said.result["stderr"]
    assert both.live.value('SELECT sum("totalTokens") FROM "TokenPurchase"') == 0, "nothing was restored"
    backup, _path = both.backup()
    said = both.ours(RESTORE, backup=backup, database="shop")
    assert said.failed and "shop" in said.msg


@pytest.mark.fault("peers", "a restore that fails half way", by=OURS)
def test_a_restore_that_fails_half_way(both):
    target = both.folder / "shop.sql.gz"
    both.theirs("dump", target)
    target.write_bytes(target.read_bytes()[:-2000])
    both.empty("again")
    assert both.theirs("restore", target, name="again").failed
    left = both.live.value(
        "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace", "again"
    )
    assert left > 0, "tables are left"
    backup, path = both.backup()
    archive = path / "archive.dump"
    archive.write_bytes(archive.read_bytes()[:-2000])
    assert both.ours(RESTORE, backup=backup, database="ours").failed
    assert not [name for name in both.names() if name == "ours" or name.startswith("backstop_scratch_")]


@pytest.mark.fault("peers", "a dump that other users can read", by=OURS)
def test_other_users_can_read_it(both):
    target = both.folder / "shop.pgc"
    both.theirs("dump", target, keywords={"umask": 0o022})
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    said = both.ours(DUMP, kind="daily", keywords={"umask": 0})
    made = pathlib.Path(said.result["directory"])
    for path in [made, *made.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.fault("peers", "a server without the certificate that was asked for", by=OURS)
def test_a_certificate_that_was_asked_for(both):
    """The server has no TLS at all."""
    target = both.folder / "shop.sql"
    said = both.theirs("dump", target, ssl_mode="verify-full", ca_cert="/nowhere/ca.crt")
    assert said.changed and target.stat().st_size > 10_000, "dumped in the clear"
    url = both.databases.cluster.url("shop", user=OWNER) + "?sslmode=verify-full&sslrootcert=/nowhere/ca.crt"
    said = peer_collection.run(DUMP, {"kind": "daily", "connection": {"url": url}, "store": both.live.store.root})
    assert said.failed and "SSL" in said.msg and not both.live.store.backups()


@pytest.mark.fault("peers", "a name that a shell would run", by=OURS)
def test_names_that_a_shell_reads(both):
    made = both.folder / "made"
    said = both.theirs("dump", both.folder / "x.sql", login_user="%s; touch %s #" % (OWNER, made))
    assert made.exists(), "the rest of the user's name was run: %s" % (said.result,)
    made.unlink()
    url = "postgresql://127.0.0.1:%d/shop?user=x%%3B%%20touch%%20%s%%20%%23" % (both.port, made)
    said = peer_collection.run(DUMP, {"kind": "daily", "connection": {"url": url}, "store": both.live.store.root})
    assert said.failed and "password" in said.msg and not made.exists()


@pytest.mark.fault("peers", "check mode without database or file", by=OURS)
def test_check_mode(both):
    """Theirs foretells success for a database and a file that are not there."""
    assert not both.theirs("dump", both.folder / "x.sql", name="nowhere", check=True).failed
    assert not both.theirs("restore", both.folder / "nothing.sql", check=True).failed
    said = both.ours(DUMP, kind="daily", connected="nowhere", check=True)
    assert said.failed and "nowhere" in said.msg
    said = both.ours(RESTORE, backup="nothing", database="new", check=True)
    assert said.failed and "nothing" in said.msg
