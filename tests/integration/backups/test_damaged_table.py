# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table that the server itself cannot read any more: readable rows are saved, and work continues only with consent.

pg_surgery kills the TOAST chunks of large values, so that the rows exist but cannot be read completely, as after a
disk lost a page.
"""

from __future__ import annotations

import json
import pathlib

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.leftovers import leftovers
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import digests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.facts import gather
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import (
    revert_in_place,
    undo_in_place,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    plan,
    restore_table,
    undo_table,
)
from support.databases import OWNER

BIG = "(SELECT string_agg(md5((g * 1000 + i)::text), '') FROM generate_series(1, 200) i)"


@pytest.fixture
def damaged(plain):
    """Of 40 rows with a large text, 2 cannot be read; an earlier backup has all of them."""
    with plain.session(user=OWNER) as cursor:
        cursor.execute(
            "CREATE TABLE documents (id int PRIMARY KEY, body text);"
            "ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;"
            "INSERT INTO documents SELECT g, %s FROM generate_series(1, 40) g" % BIG
        )
    plain.backup()
    if not plain.value("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_surgery'"):
        pytest.skip("this server has no pg_surgery (PostgreSQL's contrib, 14 and newer): damage goes untested")
    toast = plain.value("SELECT reltoastrelid::regclass::text FROM pg_class WHERE oid = 'documents'::regclass")
    ids = "SELECT DISTINCT chunk_id FROM %s ORDER BY 1 LIMIT 2 OFFSET 5" % toast
    parts = plain.value("SELECT array_agg(ctid)::text FROM %s WHERE chunk_id IN (%s)" % (toast, ids))
    plain.execute("CREATE EXTENSION pg_surgery")
    plain.execute("SELECT heap_force_kill('%s'::regclass, '%s')" % (toast, parts))
    plain.execute("DROP EXTENSION pg_surgery")
    with pytest.raises(Exception, match="missing chunk"):
        plain.rows("SELECT max(length(body || '')) FROM documents")
    return plain


@pytest.mark.fault(
    "backup",
    "a table's file damaged on the server's disk",
    by="the server's checksum; readable rows saved after consent",
)
def test_saved_and_restored_with_consent(damaged):
    run = damaged.begun("rollback", {"scenario": "corrupted_table"})
    accepting = TableRestoreRequest("documents", policy=LossPolicy(unreadable=True))
    for way in (
        lambda: plan(damaged.site, TableRestoreRequest("documents")),
        lambda: restore_table(damaged.site, accepting),
    ):
        with pytest.raises(Refused, match="cannot be read: it is damaged") as caught:
            way()
        assert "missing chunk" in caught.value.found
    with pytest.raises(Refused, match="2 of its rows cannot be read") as caught:
        restore_table(run, TableRestoreRequest("documents"))
    saved = pathlib.Path(caught.value.details["file"])
    rows = saved.read_text("utf-8").splitlines()
    assert len(rows) == 38 and all(len(row.split("\t")[1]) == 6400 for row in rows)
    assert json.loads(saved.with_suffix(".json").read_text("utf-8"))["unreadable"] == 2
    assert oct(saved.stat().st_mode)[-3:] == "600"

    wanted = TableRestoreRequest("documents", policy=LossPolicy(unreadable=True))
    planned = plan(damaged.site, wanted)
    assert planned.changed and "missing chunk" in planned.damaged
    result = restore_table(run, wanted)
    assert result.changed and result.emergency is None and result.accepted["unreadable"]
    assert damaged.value("SELECT count(*) FROM documents WHERE length(body) = 6400") == 40
    with damaged.site.connect() as session:
        digests.table_digest(session, "ONLY public.documents", ["id", "body"])
    assert run.operation.facts("restore_table")["accepted"]["unreadable"] is True
    run.operation.close("done")
    assert not restore_table(damaged.site, TableRestoreRequest("documents")).changed
    with pytest.raises(Refused, match="cannot be undone"):
        undo_table(damaged.begun("undo", {"undoes": run.operation.id}), run.operation, LossPolicy(0))


def test_no_other_failure_counts_as_damage(damaged, monkeypatch):
    """A backup that fails for another reason is never ignored."""
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways import table as table_restore

    def fails(*_arguments, **_keywords):
        raise BackstopError("No space")

    monkeypatch.setattr(table_restore, "make_backup", fails)
    damaged.execute('UPDATE "User" SET "name" = \'x\'')
    run = damaged.begun("rollback")
    with pytest.raises(BackstopError, match="No space"):
        restore_table(run, TableRestoreRequest("User", policy=LossPolicy(unreadable=True)))
    assert damaged.value('SELECT count(*) FROM "User" WHERE "name" = \'x\'') == 20


# The whole database


def whole(live):
    """The number of documents whose body can be read completely, each row separately."""
    return live.value("SELECT count(*) FROM documents WHERE length(body) = 6400")


def test_a_swap_keeps_the_damaged_table_and_wants_a_word(damaged):
    """Its loss cannot be counted, so it is not estimated; continuing destroys nothing."""
    place = damaged.store.backups()[0]
    damaged.execute('UPDATE "User" SET "name" = \'x\' WHERE "id" = \'u1\'')
    run = damaged.begun("rollback", {"backup": place.backup_id})
    build_successor(run, place)
    with pytest.raises(Refused, match="What would be lost cannot be counted: a table is damaged") as caught:
        revert(run, place, LossPolicy(1))
    assert "public.documents: cannot be counted" in caught.value.found and "missing chunk" in caught.value.found
    assert "the former database keeps the table" in caught.value.hint
    with pytest.raises(Refused, match="1 rows would be lost"):
        revert(run, place, LossPolicy(0, unreadable=True))
    result = revert(run, place, LossPolicy(1, unreadable=True))
    assert result.changed and result.lost_rows == 1 and whole(damaged) == 40
    assert run.operation.facts("count")["accepted_unreadable"] == ["public.documents"]
    run.operation.close("done")
    back = damaged.begun("undo", {"undoes": run.operation.id})
    assert undo(back, run.operation, LossPolicy(0)).changed
    with pytest.raises(Exception, match="missing chunk"):
        damaged.rows("SELECT max(length(body || '')) FROM documents")


def test_in_place_what_can_be_read_is_saved_first(damaged):
    place = damaged.store.backups()[0]
    damaged.execute('UPDATE "User" SET "name" = \'x\' WHERE "id" = \'u1\'')
    run = damaged.begun("rollback", {"backup": place.backup_id})
    with pytest.raises(Refused, match="The database cannot be backed up completely") as caught:
        revert_in_place(run, place, LossPolicy(1))
    assert "public.documents (2 rows cannot be read: missing chunk" in caught.value.found
    assert "rollback_accept_unreadable=true" in caught.value.hint and "that cannot be undone" in caught.value.hint
    rows = pathlib.Path(run.operation.file("saved-rows"), "public.documents.copy").read_text("utf-8").splitlines()
    assert len(rows) == 38 and all(len(row.split("\t")[1]) == 6400 for row in rows)
    others, schema = (manifests.load(one) for one in damaged.store.backups("emergency"))
    others, schema = (others, schema) if others.scope == "tables" else (schema, others)
    assert sorted(entry.name for entry in others.tables) == [
        "TokenPurchase",
        "User",
        "UserContribution",
        "_prisma_migrations",
    ]
    assert schema.scope == "schema" and "relation public.documents" in schema.definitions
    assert damaged.value('SELECT "name" FROM "User" WHERE "id" = \'u1\'') == "x"

    result = revert_in_place(run, place, LossPolicy(1, unreadable=True))
    assert result.changed and result.lost_rows == 1 and whole(damaged) == 40
    assert [loss["table"] for loss in result.losses if loss["unreadable"]] == ["public.documents"]
    assert run.operation.facts("emergency")["accepted"] == {"unreadable": True}
    run.operation.close("done")
    with pytest.raises(Refused, match="cannot be undone: no whole backup could be made") as caught:
        undo_in_place(damaged.begun("undo", {"undoes": run.operation.id}), run.operation, LossPolicy(0))
    assert "saved-rows" in caught.value.hint


def test_the_other_ways_back_say_what_is_wrong(damaged):
    """Down-SQL is proved on a copy, which needs a complete backup; leftovers are compared row by row."""
    with pytest.raises(Refused, match="Table public.documents is damaged: the server cannot read all of it") as caught:
        damaged.backup("emergency")
    assert "rollback_corrupted_table" in caught.value.hint and "rollback_accept_unreadable" in caught.value.hint
    assert not damaged.store.backups("emergency")
    place = damaged.store.backups()[0]
    damaged.run("receipts.sql")
    with damaged.site.connect() as session:
        found = leftovers(damaged.site, session, place)
    assert "table public.ReceiptData" in found.added
    [reason] = found.reasons
    assert reason.startswith("table public.documents cannot be read: it is damaged (missing chunk")
    facts = gather(damaged.site, healthy=True)
    assert facts.unreadable == ["public.documents"]
