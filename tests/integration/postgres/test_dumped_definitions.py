# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of contents of an archive, read as pg_restore reads it."""

from __future__ import annotations

import pathlib
import re

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.processes import run
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import dumped_definitions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.client_tools import (
    find_client_tools,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from support.databases import REALISTIC


@pytest.fixture(scope="module")
def archive(cluster, tmp_path_factory) -> pathlib.Path:
    """The definitions of a database with an object of every kind."""
    path = tmp_path_factory.mktemp("archive") / "schema.dump"
    argv = [cluster.bin_dir / "pg_dump", "-Fc", "--schema-only", "--file", path, "--dbname", cluster.url(REALISTIC)]
    run([str(part) for part in argv], check="pg_dump")
    return path


def listed(cluster, path: pathlib.Path) -> int:
    """Number of entries that pg_restore lists and that are compared here."""
    lines = run([str(cluster.bin_dir / "pg_restore"), "--list", str(path)], check="pg_restore").stdout.splitlines()
    elsewhere = r"\d+; \d+ \d+ (DATABASE|ENCODING|STDSTRINGS|SEARCHPATH|(ACL|COMMENT) - DATABASE)\b"
    return len([line for line in lines if line and not line.startswith(";") and not re.match(elsewhere, line)])


def test_every_entry_is_read(cluster, archive):
    found = dumped_definitions.of_archive(str(archive))
    assert sum(map(len, found.values())) == listed(cluster, archive) > 100
    table = found["TABLE public.User"][0]
    assert table["owner"] == "shop_owner"
    assert table["text"].startswith('ACCESS METHOD heap\nCREATE TABLE public."User" (\n')
    assert "ALTER DATABASE" not in repr(found)


def test_a_database_and_an_archive_of_it_have_the_same(cluster, archive):
    tools = find_client_tools(15, str(cluster.bin_dir))
    settings = Settings.from_url(cluster.url(REALISTIC))
    here = dumped_definitions.of_database(tools, settings)
    assert here == dumped_definitions.of_archive(str(archive))


def test_a_directory_has_the_same(cluster, archive, tmp_path):
    argv = [cluster.bin_dir / "pg_dump", "-Fd", "--file", tmp_path / "all", "--dbname", cluster.url(REALISTIC)]
    run([str(part) for part in argv], check="pg_dump")
    assert dumped_definitions.of_archive(str(tmp_path / "all")) == dumped_definitions.of_archive(str(archive))


def test_drops_are_those_of_pg_restore_in_its_order_and_never_of_the_database(cluster, archive):
    argv = [str(cluster.bin_dir / "pg_restore"), "--clean", "--schema-only", "--file=-", str(archive)]
    script = run(argv, check="pg_restore").stdout
    statements = [drop.statement for drop in dumped_definitions.drops(str(archive))]
    positions = [script.index("\n%s\n" % statement) for statement in statements]
    assert len(positions) > 50 and positions == sorted(positions)
    assert len(positions) == len(re.findall(r"\n(?:DROP|ALTER TABLE .* DROP) ", script))
    assert not [statement for statement in statements if statement.startswith("DROP DATABASE")]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[:4000], "truncated"),
        (lambda content: b"PGDMQ" + content[5:], "not an archive"),
        (lambda content: content[:6] + b"\x63" + content[7:], "does not know. Found: version 1.99"),
    ],
)
def test_an_archive_that_cannot_be_read_is_refused(archive, tmp_path, spoil, message):
    (tmp_path / "spoilt").write_bytes(spoil(archive.read_bytes()))
    with pytest.raises(BackstopError, match=message):
        dumped_definitions.of_archive(str(tmp_path / "spoilt"))


def test_the_same_name_twice_is_two_entries():
    once = {"owner": "", "text": "a"}
    found = dumped_definitions.compare({"INDEX a.b": [once]}, {"INDEX a.b": [once, once]})
    assert found == {"missing": [], "added": [], "changed": ["INDEX a.b"]}


def test_the_same_password_has_another_hash_in_each_manifest():
    entries = {"USER MAPPING USER MAPPING a SERVER b": [{"owner": "", "text": "OPTIONS (password 'x')"}]}
    one, other = dumped_definitions.to_json(entries), dumped_definitions.to_json(entries)
    assert one != other
    assert not any(dumped_definitions.compare(one, entries).values())
