# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names that would run a command of their own if a program read them as more than names."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import subprocess
import tempfile

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.cluster_drill import run_cluster_drill
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.options import BackupOptions
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import (
    quote_identifier,
    quote_literal,
)
from support.reliability import times


@pytest.fixture
def ran():
    """A file that a command in a name would make; its path is short, as a name has 63 bytes, and open to every user."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="b", dir="/tmp"))
    folder.chmod(0o777)
    yield folder / "r"
    shutil.rmtree(folder)


#: How psql, a shell and the server would run it.
COMMANDS = ["x\n\\! touch %s\n--", "$(touch %s)`touch %s`;touch %s", "\"'; COPY (SELECT 1) TO '%s'; --"]


@pytest.mark.fault(
    "input", "names of tables, columns, functions and roles that hold commands", by="quoted: restored, nothing was run"
)
@pytest.mark.parametrize("text", COMMANDS, ids=["psql", "shell", "SQL"])
def test_a_name_runs_nothing(databases, ran, text, tried):
    live = databases.make("shop", user=None)
    name = quote_identifier((text.replace("%s", str(ran), 2).replace(";touch %s", ""))[:63])
    made = [
        "CREATE SCHEMA %s",
        "CREATE TABLE %s.%s (%s text, id int PRIMARY KEY)",
        "INSERT INTO %s.%s VALUES ('a', 1)",
        "CREATE FUNCTION %s.%s() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE ROLE %s",
        "ALTER ROLE %s SET search_path = public",
        "GRANT SELECT ON %s.%s TO %s",
    ]
    for statement in made:
        live.execute(statement.replace("%s", name))
    try:
        place = make_backup(live.site, "daily", form=BackupOptions(plain=True))
        assert verify(live.site, place, "restored").level == "restored"
        tried()
        assert run_cluster_drill(live.site, place).rows > 0
        tried()
        live.execute("CREATE DATABASE copy TEMPLATE template0", "postgres")
        argv = [str(live.cluster.bin_dir / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", place.file("plain.sql")]
        environment = {**os.environ, **live.cluster.environment("copy")}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        tried()
        assert live.value("SELECT count(*) FROM %s.%s" % (name, name), "copy") == 1
        assert not ran.exists()
    finally:
        live.execute("DROP DATABASE IF EXISTS copy", "postgres")
        live.execute("DROP OWNED BY %s; DROP ROLE %s" % (name, name))


@pytest.mark.fault("input", "random names and texts quoted, read by the server", by="read as they were given")
def test_quoted_for_the_server(plain, seed, tried):
    chance = random.Random(seed)
    letters = "aZ9_ \t\n\r\\'\"`$;:%-/*.,(){}[]äß电\u0301\u202e\x01\x7f"
    with plain.session() as cursor:
        for scs in ("on", "off"):
            cursor.execute("SET standard_conforming_strings = %s" % scs)
            for _round in range(times(100, 3000)):
                text = "".join(chance.choice(letters) for _letter in range(chance.randrange(1, 15)))
                cursor.execute("SELECT %s AS %s" % (quote_literal(text), quote_identifier(text)))
                assert (cursor.fetchone()[0], cursor.description[0].name) == (text, text)
                tried()
