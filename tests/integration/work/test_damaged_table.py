# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A table that the server itself cannot read any more: what can be read is saved, and it goes on only with consent.

pg_surgery kills the stored parts of large values, so that the rows are there and cannot be read whole, as after a disk
lost a page.
"""
from __future__ import annotations

import json
import pathlib

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import digests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.tables.table_restore import (
    Wish,
    plan,
    restore_table,
    undo_table,
)
from support.databases import OWNER

BIG = "(SELECT string_agg(md5((g * 1000 + i)::text), '') FROM generate_series(1, 200) i)"


@pytest.fixture
def damaged(plain):
    """Of 40 rows with a large text, 2 cannot be read; a backup from before that has all."""
    with plain.session(user=OWNER) as cursor:
        cursor.execute("CREATE TABLE documents (id int PRIMARY KEY, body text);"
                       "ALTER TABLE documents ALTER body SET STORAGE EXTERNAL;"
                       "INSERT INTO documents SELECT g, %s FROM generate_series(1, 40) g" % BIG)
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


def test_saved_and_restored_with_consent(damaged):
    context = damaged.begun("rollback", {"scenario": "corrupted_table"})
    for way in (lambda: plan(damaged.context, Wish("documents")),
                lambda: restore_table(damaged.context, Wish("documents", accept_unreadable=True))):
        with pytest.raises(Refused, match="cannot be read: it is damaged") as caught:
            way()
        assert "missing chunk" in caught.value.found
    with pytest.raises(Refused, match="2 of its rows cannot be read") as caught:
        restore_table(context, Wish("documents"))
    saved = pathlib.Path(caught.value.details["file"])
    rows = saved.read_text("utf-8").splitlines()
    assert len(rows) == 38 and all(len(row.split("\t")[1]) == 6400 for row in rows)
    assert json.loads(saved.with_suffix(".json").read_text("utf-8"))["unreadable"] == 2
    assert oct(saved.stat().st_mode)[-3:] == "600"

    wish = Wish("documents", accept_unreadable=True)
    planned = plan(damaged.context, wish)
    assert planned["changed"] and "missing chunk" in planned["damaged"]
    result = restore_table(context, wish)
    assert result["changed"] and result["emergency"] is None and result["accepted"]["unreadable"]
    assert damaged.value("SELECT count(*) FROM documents WHERE length(body) = 6400") == 40
    with damaged.context.connect() as session:
        digests.table_digest(session, "public", "documents", ["id", "body"])
    assert context.operation.facts("restore_table")["accepted"]["unreadable"] is True
    context.operation.close("done")
    assert not restore_table(damaged.context, Wish("documents"))["changed"]
    with pytest.raises(Refused, match="cannot be undone"):
        undo_table(damaged.begun("undo", {"undoes": context.operation.id}), context.operation, 0, False)


def test_no_other_failure_counts_as_damage(damaged, monkeypatch):
    """A backup that fails for another reason is never passed over."""
    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.work.tables import table_restore

    def fails(*_arguments, **_keywords):
        raise BackstopError("No space")

    monkeypatch.setattr(table_restore, "make_backup", fails)
    damaged.execute("UPDATE \"User\" SET \"name\" = 'x'")
    context = damaged.begun("rollback")
    with pytest.raises(BackstopError, match="No space"):
        restore_table(context, Wish("User", accept_unreadable=True))
    assert damaged.value("SELECT count(*) FROM \"User\" WHERE \"name\" = 'x'") == 20
