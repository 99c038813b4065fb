# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A system library sorts differently since the database was built: reported, and no obstacle to a revert."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations.gates import surroundings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres import collations
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.in_place import revert_in_place
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.plan import notes
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.swap import build_successor, revert, undo
from support.databases import OWNER

VERSIONS = "SELECT datcollversion, pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = '%s'"


@pytest.fixture
def aged(databases):
    """A database whose default collation is ICU's, and a column with another one; both built with an older library."""
    live = databases.existing("shop")
    properties = "TEMPLATE template0 OWNER %s LOCALE_PROVIDER icu ICU_LOCALE 'en-US'" % OWNER
    live.execute("CREATE DATABASE shop " + properties, "postgres")
    live.run("plain.sql")
    with live.session(user=OWNER) as cursor:
        cursor.execute("CREATE COLLATION swedish (provider = icu, locale = 'sv')")
        cursor.execute("CREATE COLLATION unused (provider = icu, locale = 'de')")
        cursor.execute('CREATE TABLE named ("name" text COLLATE swedish PRIMARY KEY)')
        cursor.execute("INSERT INTO named VALUES ('å'), ('z'), ('a')")
    live.execute("UPDATE pg_collation SET collversion = '1.0' WHERE collname IN ('swedish', 'unused')")
    live.execute("UPDATE pg_database SET datcollversion = '2.0' WHERE datname = 'shop'")
    return live


def test_they_are_told(aged):
    with aged.site.connect() as session:
        told = collations.mismatches(session)
        assert len(told) == 2 and told[0].startswith("database shop was built with version 2.0, the system has 1")
        assert told[1].startswith("collation public.swedish has version 1.0, the system has 1")
        gate = surroundings.collations(aged.site, session, None)
    assert told[0] in gate and "indexes may be corrupt" in gate and "REINDEX" in gate
    assert told[1] in " ".join(notes(aged.site, "complete"))
    aged.execute('REINDEX DATABASE "shop"; ')
    aged.execute("ALTER DATABASE shop REFRESH COLLATION VERSION; ALTER COLLATION swedish REFRESH VERSION")
    with aged.site.connect() as session:
        assert surroundings.collations(aged.site, session, None) == "of the versions that the system has"


def test_a_revert_builds_with_todays_and_an_undo_brings_back_what_was(aged):
    """template0 records no version, so creating a database from it never fails because of one."""
    place = aged.backup()
    assert verify(aged.site, place, "restored").level == "restored"
    run = aged.begun("rollback")
    build_successor(run, place)
    revert(run, place, LossPolicy(0))
    run.operation.close("done")
    ((recorded, now),) = aged.rows(VERSIONS % "shop", "postgres")
    assert recorded == now != "2.0"
    with aged.site.connect() as session:
        assert collations.mismatches(session) == []
    back = aged.begun("undo", {"undoes": run.operation.id})
    undo(back, run.operation, LossPolicy(0))
    assert aged.rows(VERSIONS % "shop", "postgres")[0][0] == "2.0"
    with aged.site.connect() as session:
        assert len(collations.mismatches(session)) == 2
    back.operation.close("done")


def test_a_restore_in_place_keeps_that_of_the_database(aged):
    """The collation is recreated; the database keeps its recorded version, and its indexes are rebuilt today."""
    place = aged.backup()
    run = aged.begun("rollback")
    revert_in_place(run, place, LossPolicy(0))
    with aged.site.connect() as session:
        (told,) = collations.mismatches(session)
    assert told.startswith("database shop was built with version 2.0")


def test_a_template_of_another_version_is_told(aged):
    """As after an upgrade that kept template0: the server's own error is shown, and nothing is left."""
    place = aged.backup()
    aged.execute("UPDATE pg_database SET datcollversion = '2.0' WHERE datname = 'template0'", "postgres")
    before = aged.names()
    try:
        with pytest.raises(BackstopError) as caught:
            verify(aged.site, place, "restored")
    finally:
        aged.execute("UPDATE pg_database SET datcollversion = NULL WHERE datname = 'template0'", "postgres")
    assert "template0" in str(caught.value), caught.value
    assert aged.names() == before
