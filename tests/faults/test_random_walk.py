# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A long random walk: load, backups, deploys, failed migrations, every way back, undo, prune, and kills in all of them.

A model in Python knows each row that must exist. After every step the database is compared with it, row by row.

    BACKSTOP_WALK_CYCLES=300 BACKSTOP_TEST_SEED=1 pytest tests/faults/test_random_walk.py

walks longer, and repeats a walk. Every step is printed with the seed.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import (
    RETIRED_PREFIX,
    retired_name,
)
from support.databases import seed, session
from support.forks import Forks
from support.reliability import times
from support.walk_model import Row, State, Table, carry, difference, lost

__all__ = ["seed"]
CYCLES = int(os.environ.get("BACKSTOP_WALK_CYCLES") or times(6, 150))
ROLE, NAME = "electricity_tokens", "walk"
EVERYTHING = 10**9
#: A migration that fails in the live database alone, or already in the rehearsal.
LIVE, COPY = "fails", "fails on the copy"
SCHEMA = """
CREATE TABLE "User" (id integer PRIMARY KEY, v text);
CREATE TABLE "Purchase" (id integer PRIMARY KEY, parent integer NOT NULL REFERENCES "User" ON DELETE CASCADE, v text);
CREATE TABLE "Note" (id integer PRIMARY KEY, v text);
CREATE TABLE "Log" (v text);
CREATE TABLE _prisma_migrations (
  id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
  migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
  started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count integer NOT NULL DEFAULT 0);
CREATE SEQUENCE numbers;
"""


class Change:
    """What can be undone: its operation, and the database before it."""

    def __init__(self, operation: str, way: str, before: State, after: State, table: Optional[str] = None) -> None:
        self.operation, self.way, self.table = operation, way, table
        self.before, self.after = before, after


class Walk:
    def __init__(self, cluster: Any, folder: pathlib.Path, forks: Forks, number: int) -> None:
        self.cluster, self.folder, self.forks = cluster, folder, forks
        self.random = random.Random(number)
        self.given = {
            "url": cluster.url(NAME, user=ROLE) + "?schema=public",
            "store": str(folder / "store"),
            "client_bin_dir": str(cluster.bin_dir),
            "migrations": str(folder / "migrations"),
        }
        for name in ("migrations", "attic"):
            (folder / name).mkdir()
        self.model = State(
            {
                "User": Table(["id", "v"]),
                "Purchase": Table(["id", "parent", "v"], parent="User"),
                "Note": Table(["id", "v"]),
                "Log": Table(["v"], keyed=False),
            }
        )
        #: the state in each backup, by its id
        self.backups: Dict[str, State] = {}
        self.changes: List[Change] = []
        self.effects: Dict[str, Callable[[State], None]] = {}
        self.down: Dict[str, str] = {}
        #: failpoints that a run of this sort passed
        self.passed: Dict[str, List[str]] = {}
        self.kills = 0
        self.counter = 0
        #: value of the sequence
        self.highest = 0
        self.said: List[str] = []
        self.sql(SCHEMA)
        self.load()
        self.check()

    # Talking to it

    def sql(self, text: str) -> List[Tuple[Any, ...]]:
        with session(self.cluster, NAME, ROLE) as cursor:
            cursor.execute(text)
            return list(cursor.fetchall()) if cursor.description else []

    def say(self, text: str) -> None:
        self.said.append(text)
        print(text, flush=True)

    def next(self) -> int:
        self.counter += 1
        return self.counter

    def run(self, what: str, **more: Any) -> Dict[str, Any]:
        """Run an action to its end; often killed on its way, and then done again."""
        path = self.folder / "action.json"
        path.write_text(json.dumps({**self.given, **more}), encoding="utf-8")
        sort = what + str(sorted(more.get("asked", {})))
        while self.passed.get(sort) and self.random.random() < 0.35:
            point = self.random.choice(self.passed[sort])
            if point == "operation.closed":
                # It was done; a second run says that there is nothing to do.
                continue
            done = self.forks.run([what, str(path)], {"BACKSTOP_FAILPOINT": point})
            if done.returncode == 0:
                return json.loads(done.stdout)
            assert done.returncode == -signal.SIGKILL, "%s %s: %s" % (what, more, done.stderr)
            self.kills += 1
            self.say("    killed at %s" % point)
            assert self.sql("SELECT 1") == [(1,)], "somebody can always connect"
            if self.random.random() < 0.3:
                settled = self.forks.run(["settle", str(path)], {})
                assert settled.returncode == 0, settled.stderr
                self.say("    settled: %s" % json.loads(settled.stdout)["settled"])
        log = self.folder / "passed.log"
        log.write_text("", encoding="utf-8")
        done = self.forks.run([what, str(path)], {"BACKSTOP_FAILPOINT_LOG": str(log)})
        assert done.returncode == 0, "%s %s: %s" % (what, more, done.stderr)
        self.passed.setdefault(sort, []).extend(log.read_text("utf-8").split())
        return json.loads(done.stdout)

    # Comparing

    def check(self) -> None:
        """Every row is where the model has it, and nothing else is there."""
        found = self.read()
        assert sorted(found) == sorted(self.model.tables), "tables"
        for name, table in self.model.tables.items():
            rows, expected = found[name], rows_of(table)
            assert rows == expected, "%s: lacks %s, has besides %s" % (
                name, sorted(set(expected) - set(rows), key=str)[:5], sorted(set(rows) - set(expected), key=str)[:5],
            )  # fmt: skip
        applied = self.sql(
            "SELECT migration_name FROM _prisma_migrations WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL"
        )
        assert sorted(name for (name,) in applied) == sorted(self.model.migrations), "history"
        left = self.sql("SELECT datname FROM pg_database WHERE starts_with(datname, 'backstop_scratch_')")
        assert not left, left
        assert self.sql("SELECT rolled_back_at IS NULL AND finished_at IS NULL FROM _prisma_migrations"
                        " WHERE rolled_back_at IS NULL AND finished_at IS NULL") == []  # fmt: skip

    def read(self) -> Dict[str, List[Row]]:
        names = self.sql("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        found: Dict[str, List[Row]] = {}
        for (name,) in names:
            if name == "_prisma_migrations":
                continue
            columns = self.model.tables[name].columns if name in self.model.tables else ["*"]
            rows = self.sql('SELECT %s FROM "%s"' % (", ".join(columns), name))
            found[name] = sorted((tuple(None if v is None else str(v) for v in row) for row in rows), key=str)
        return found

    # Load

    def load(self) -> None:
        """Rows come, change and go; sometimes a table is made by hand."""
        statements: List[str] = []
        for _statement in range(self.random.randrange(1, 30)):
            statements += self.write(self.random.choice(sorted(self.model.tables)))
        statements.append("SELECT nextval('numbers')")
        ((number,),) = self.sql("; ".join(statements))
        assert number > self.highest, "a value of a sequence came twice"
        self.highest = number

    def write(self, name: str) -> List[str]:
        table, key = self.model.tables[name], self.next()
        value = "v%d" % key
        if not table.keyed:
            if table.bag and self.random.random() < 0.3:
                (gone,) = self.random.choice(sorted(table.bag, key=str))
                del table.bag[(gone,)]
                return ["DELETE FROM \"%s\" WHERE v = '%s'" % (name, gone)]
            value = "v%d" % (key % 7)
            table.bag[(value,)] += 1
            return ["INSERT INTO \"%s\" VALUES ('%s')" % (name, value)]
        chance = self.random.random()
        keys = sorted(table.rows)
        if keys and chance < 0.25:
            chosen = self.random.choice(keys)
            old = table.rows[chosen]
            table.rows[chosen] = tuple(value if column == "v" else v for column, v in zip(table.columns, old))
            return ["UPDATE \"%s\" SET v = '%s' WHERE id = %d" % (name, value, chosen)]
        if keys and chance < 0.4:
            chosen = self.random.choice(keys)
            del table.rows[chosen]
            for child in self.model.tables.values():
                if child.parent == name:
                    place = child.columns.index("parent")
                    child.rows = {k: row for k, row in child.rows.items() if row[place] != str(chosen)}
            return ['DELETE FROM "%s" WHERE id = %d' % (name, chosen)]
        given = {"id": str(key), "v": value}
        if table.parent:
            parents = sorted(self.model.tables[table.parent].rows)
            if not parents:
                return []
            given["parent"] = str(self.random.choice(parents))
        for column in table.columns:
            if column.startswith("c") and self.random.random() < 0.7:
                given[column] = value
        table.rows[key] = tuple(given.get(column) for column in table.columns)
        values = ", ".join("'%s'" % given[column] for column in given)
        return ['INSERT INTO "%s" (%s) VALUES (%s)' % (name, ", ".join(given), values)]

    # Deploys

    def migration(self, fails: str) -> str:
        """A new migration in the folder, with its effect on the model and its down-SQL."""
        number = self.next()
        name = "2025%010d_m" % number
        sort = self.random.choice(["table", "filled", "column", "index", "data"])
        keyed = [one for one in ("User", "Purchase", "Note") if one in self.model.tables]
        target = self.random.choice(keyed)
        sql, down, effect = self.body(sort, number, target)
        if fails:
            # With a transaction of its own, the first half stays.
            begin, commit = ("BEGIN;", "COMMIT;") if self.random.random() < 0.6 else ("", "")
            where = "current_database() = '%s'" % NAME if fails == LIVE else "true"
            sql = "%s %s; %s DO $$ BEGIN IF %s THEN RAISE 'fails'; END IF; END $$" % (begin, sql, commit, where)
        folder = self.folder / "migrations" / name
        folder.mkdir()
        (folder / "migration.sql").write_text(sql, encoding="utf-8")
        self.effects[name], self.down[name] = effect, down
        self.say("  migration %s: %s of %s %s" % (name, sort, target, fails))
        return name

    def body(self, sort: str, number: int, target: str) -> Tuple[str, str, Callable[[State], None]]:
        if sort in ("table", "filled"):
            sql = 'CREATE TABLE "T%d" (id integer PRIMARY KEY, v text)' % number
            rows: Dict[int, Row] = {}
            if sort == "filled":
                sql += "; INSERT INTO \"T%d\" SELECT g, 'f' FROM generate_series(1, 5) g" % number
                rows = {key: (str(key), "f") for key in range(1, 6)}

            def made(state: State) -> None:
                state.tables["T%d" % number] = Table(["id", "v"], rows=dict(rows))

            return sql, 'DROP TABLE "T%d"' % number, made
        if sort == "column":
            column = "c%d" % number

            def added(state: State) -> None:
                table = state.tables[target]
                table.columns.append(column)
                table.rows = {key: (*row, None) for key, row in table.rows.items()}

            down = 'ALTER TABLE "%s" DROP COLUMN %s' % (target, column)
            return 'ALTER TABLE "%s" ADD COLUMN %s text' % (target, column), down, added
        if sort == "index":
            sql = 'CREATE INDEX i%d ON "%s" (v)' % (number, target)
            return sql, "DROP INDEX i%d" % number, lambda state: None

        def changed(state: State) -> None:
            table = state.tables[target]
            place = table.columns.index("v")
            table.rows = {
                key: (*row[:place], (row[place] or "") + "!", *row[place + 1 :]) if key % 3 == 0 else row
                for key, row in table.rows.items()
            }

        return "UPDATE \"%s\" SET v = v || '!' WHERE id %% 3 = 0" % target, "", changed

    def deploy(self) -> bool:
        fails = self.random.choices(["", LIVE, COPY], [6, 4, 1])[0]
        self.migration(fails)
        pending = sorted(set(os.listdir(self.folder / "migrations")) - set(self.model.migrations))
        before = self.model.copy()
        result = self.run("deploy", expected=pending)
        self.say("  deploy: %s %s" % (result["outcome"], result.get("way", "")))
        if fails:
            assert result["outcome"] == ("rolled_back" if fails == LIVE else "stopped"), result
            shutil.rmtree(self.folder / "migrations" / pending[-1])
        else:
            assert result["outcome"] == "done", result
            for name in pending:
                self.effects[name](self.model)
                self.model.migrations.append(name)
        self.note_backups(before)
        self.changes = []
        return True

    def note_backups(self, state: State) -> None:
        """Backups that are new hold this."""
        for path in sorted((self.folder / "store").glob("*/%s-*/manifest.json" % NAME)):
            if path.parent.parent.name != "emergency":
                self.backups.setdefault(path.parent.name, state.copy())

    # Ways back

    def revert(self) -> bool:
        """A complete revert: a swap or in place; rows are lost with consent, or carried over."""
        if not self.backups:
            return False
        chosen = self.random.choice(sorted(self.backups)[-3:])
        base, live = self.backups[chosen], self.model.copy()
        total, exact = lost(live, base)
        carrying = self.random.random() < 0.4 and not self.changed_by_data(base)
        asked: Dict[str, Any] = {"scenario": "complete", "backup": chosen, "accept_lost_objects": 99}
        if carrying:
            asked.update(reapply="apply", reapply_deletes=True, accept_lost_rows=EVERYTHING)
        else:
            if self.random.random() < 0.4:
                asked["restore_method"] = "in_place"
            if exact and total > 0 and not self.filled_by_migration(base):
                refused = self.run("back", asked={**asked, "accept_lost_rows": total - 1})
                assert refused["outcome"] in ("refused", "nothing"), (total, refused)
                self.check()
            asked["accept_lost_rows"] = EVERYTHING
        result = self.run("back", asked=asked)
        self.say("  revert to %s (%s): %s %s lost %s of %d" % (
            chosen, asked, result["outcome"], result.get("way"), result.get("lost_rows"), total))  # fmt: skip
        if result["outcome"] == "nothing":
            return False
        assert result["outcome"] == "done", result
        after = carry(live, base, base) if carrying else base.copy()
        if exact and not carrying and not self.filled_by_migration(base):
            assert result["lost_rows"] == total, (result["lost_rows"], total)
        self.model = after
        self.changes.append(Change(result["operation"], result["way"], live, after.copy()))
        self.tidy()
        if not carrying and result["way"] == "restore" and self.random.random() < 0.5:
            self.check()
            self.put_back(live, base, pathlib.Path(result["lost"]))
        return True

    def changed_by_data(self, base: State) -> bool:
        """Whether migrations since changed rows of tables that the base has."""
        since = [name for name in self.model.migrations if name not in base.migrations]
        return any(not self.down[name] for name in since)

    def filled_by_migration(self, base: State) -> bool:
        since = [name for name in self.model.migrations if name not in base.migrations]
        gone = [name for name in base.migrations if name not in self.model.migrations]
        return bool(since or gone)

    def tidy(self) -> None:
        """The folder has what is applied; of what was reverted, a part is given up, the rest is deployed again."""
        folder, attic = self.folder / "migrations", self.folder / "attic"
        for name in self.model.migrations:
            if not (folder / name).exists():
                (attic / name).rename(folder / name)
        for name in sorted(set(os.listdir(folder)) - set(self.model.migrations)):
            if self.random.random() < 0.5:
                (folder / name).rename(attic / name)

    def put_back(self, live: State, base: State, folder: pathlib.Path) -> None:
        """Run the scripts that were written with the lost rows."""
        readme = folder / "README.txt"
        if not readme.exists():
            return
        environment = self.cluster.environment(NAME, ROLE)
        done = []
        for line in readme.read_text("utf-8").splitlines():
            if not line.startswith("psql "):
                continue
            script = line.rsplit(" ", 1)[1].strip("'")
            name = pathlib.Path(script).name[len("public.") : -len(".sql")]
            if name not in base.tables:
                continue
            argv = [str(self.cluster.bin_dir / "psql"), "-X", "-d", NAME, "-v", "ON_ERROR_STOP=1", "-f", script]
            ended = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr
            done.append(name)
        for name in live.tables:
            if name in base.tables:
                assert not difference(live.tables[name], base.tables[name]).more or name in done
        self.model = carry(live, base, self.model, deletes=False)
        self.say("  kept rows put back: %s" % ", ".join(done))

    def take_out(self) -> bool:
        """Down-SQL for what the last deploy applied."""
        last = self.last_deploy()
        if last is None or not all(self.down[name] for name in last):
            return False
        down = "; ".join(self.down[name] for name in reversed(last))
        asked = {"scenario": "application_errors", "method": "drop",
                 "accept_lost_rows": EVERYTHING, "accept_lost_objects": 99}  # fmt: skip
        live = self.model.copy()
        result = self.run("back", asked=asked, down_sql=down)
        self.say("  down-SQL: %s %s" % (result["outcome"], result.get("why", "")))
        assert result["outcome"] == "done" and result["way"] == "drop", result
        after = live.copy()
        for name in last:
            after.migrations.remove(name)
            words = self.down[name].split('"')
            if self.down[name].startswith("DROP TABLE"):
                del after.tables[words[1]]
            elif self.down[name].startswith("ALTER TABLE"):
                table = after.tables[words[1]]
                after.tables[words[1]] = table.seen_by([c for c in table.columns if c != words[2].split()[-1]])
        self.model = after
        self.changes = []
        self.tidy()
        return True

    def last_deploy(self) -> Optional[List[str]]:
        """Migrations that a rollback of application errors reverts, if it is that simple."""
        if self.changes:
            return None
        states = [self.backups[name] for name in sorted(self.backups)]
        if not states:
            return None
        since = [name for name in self.model.migrations if name not in states[-1].migrations]
        return since or None

    def restore_table(self) -> bool:
        if not self.backups:
            return False
        chosen = self.random.choice(sorted(self.backups)[-3:])
        base = self.backups[chosen]
        names = [name for name in ("Note", "Purchase", "Log") if self.same_columns(name, base)]
        if not names:
            return False
        name = self.random.choice(names)
        if name == "Purchase" and not self.parents_are_there(base):
            return False
        asked = {"scenario": "corrupted_table", "table": name, "backup": chosen, "accept_lost_rows": EVERYTHING,
                 "accept_cascade": True, "again": True}  # fmt: skip
        live = self.model.copy()
        result = self.run("back", asked=asked)
        self.say("  table %s from %s: %s %s" % (name, chosen, result["outcome"], result.get("why", "")))
        if result["outcome"] == "nothing":
            assert difference(live.tables[name], base.tables[name]).total == 0
            return False
        assert result["outcome"] == "done", result
        self.model.tables[name] = base.copy().tables[name]
        self.changes.append(Change(result["operation"], "table", live, self.model.copy(), name))
        return True

    def same_columns(self, name: str, base: State) -> bool:
        return self.model.tables[name].columns == base.tables[name].columns

    def parents_are_there(self, base: State) -> bool:
        place = base.tables["Purchase"].columns.index("parent")
        needed = {int(str(row[place])) for row in base.tables["Purchase"].rows.values()}
        return needed <= set(self.model.tables["User"].rows)

    def undo(self) -> bool:
        if not self.changes:
            return False
        change = self.changes[-1]
        asked: Dict[str, Any] = {"scenario": "undo", "undo": change.operation, "accept_lost_rows": EVERYTHING,
                                 "accept_lost_objects": 99}  # fmt: skip
        live = self.model.copy()
        carrying = change.way == "restore" and self.random.random() < 0.4 and self.simple(change)
        if carrying:
            asked.update(reapply="apply", reapply_deletes=True)
        result = self.run("back", asked=asked)
        said = (change.operation, change.way, result["outcome"], result.get("why", ""), result.get("lost_rows"))
        self.say("  undo of %s (%s): %s %s lost %s" % said)
        assert result["outcome"] == "done", result
        if change.way == "table":
            self.model.tables[str(change.table)] = change.before.copy().tables[str(change.table)]
        elif carrying:
            self.model = carry(live, change.after, change.before)
        else:
            self.model = change.before.copy()
        self.changes[-1] = Change(result["operation"], change.way, live, self.model.copy(), change.table)
        self.tidy()
        return True

    def simple(self, change: Change) -> bool:
        """Whether no row was changed on both sides, which would be a conflict."""
        return all(
            name in change.after.tables and difference(table, change.after.tables[name]).total == 0
            for name, table in change.before.tables.items()
        )

    def prune(self) -> bool:
        before = self.retired()
        result = self.run("prune")
        self.say("  prune: %s" % [(one["name"], one["action"]) for one in result["pruned"]])
        # A run that was killed before may have dropped some.
        gone = before - self.retired()
        if any(retired_name(change.operation, NAME) in gone for change in self.changes):
            self.changes = []
        return True

    def retired(self) -> Set[str]:
        found = self.sql("SELECT datname FROM pg_database WHERE starts_with(datname, '%s')" % RETIRED_PREFIX)
        return {name for (name,) in found}

    def backup(self) -> bool:
        result = self.run("backup")
        self.say("  backup %s" % result["backup"])
        self.note_backups(self.model)
        return True

    def step(self, number: int) -> None:
        """One cycle: load, and one action that has something to do."""
        self.say("cycle %d" % number)
        self.load()
        self.check()
        weights = {
            self.deploy: 5, self.revert: 4, self.undo: 5, self.restore_table: 2, self.take_out: 4, self.prune: 1,
            self.backup: 1,
        }  # fmt: skip
        while not self.random.choices(list(weights), list(weights.values()))[0]():
            pass
        self.check()


def rows_of(table: Table) -> List[Row]:
    rows = list(table.rows.values()) if table.keyed else list(table.bag.elements())
    return sorted(rows, key=str)


@pytest.fixture
def walk(cluster, tmp_path, seed) -> Iterator[Walk]:
    cluster.create_database(NAME, owner=ROLE)
    try:
        with Forks("support.walk_driver") as forks:
            yield Walk(cluster, tmp_path, forks, seed)
    finally:
        ours = "SELECT datname FROM pg_database WHERE datname ~ '^(backstop_retired_.*_)?%s$'" % NAME
        for name in cluster.sql(ours).split():
            cluster.sql('DROP DATABASE "%s" WITH (FORCE)' % name)


@pytest.mark.fault(
    "walk", "load, deploys, failures, every way back, undo and kills at random", by="a model of every row"
)
def test_no_row_is_lost(walk, tried):
    for number in range(CYCLES):
        walk.step(number)
        tried()
    print("%d cycles, %d kills" % (CYCLES, walk.kills))
