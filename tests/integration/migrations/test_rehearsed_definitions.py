# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the migration the live definitions equal those of its rehearsal, however a restore prints them."""

from __future__ import annotations

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import build_database
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import write_json
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import scratch_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.migrations import rehearse as rehearsal
from support.databases import OWNER

#: Printed differently after a restore.
CHECK = "CHECK (%s::varchar(9) IN ('a', 'b') OR true)"
MIGRATION = 'ALTER TABLE "User" ADD COLUMN more text CONSTRAINT more %s; CREATE TABLE added (a int)' % CHECK % "more"


def test_it_is_the_same_and_a_difference_is_seen(plain):
    with plain.session(user=OWNER) as cursor:
        cursor.execute('ALTER TABLE "User" ADD CONSTRAINT known ' + CHECK % "name")
        cursor.execute('ALTER TABLE "TokenPurchase" ADD CONSTRAINT known ' + CHECK % '"createdBy"')
    run = plain.begun("deploy")
    place = plain.backup()
    run.operation.write("backup", "done", backup=place.backup_id)
    copy = scratch_name(run.operation.id, "drill")
    build_database(run, place, copy)
    # Like a copy whose outgoing connections were all closed.
    plain.execute('ALTER TABLE "UserContribution" DROP CONSTRAINT "UserContribution_userId_fkey"', database=copy)
    with run.connect(copy) as session, plain.session(user=OWNER, database=copy) as cursor:
        untouched = rehearsal._entries(run, session)
        cursor.execute(MIGRATION)
    write_json(run.operation.file(rehearsal.EXPECTED_DEFINITIONS), rehearsal._expected(run, copy, untouched))

    def found():
        with run.connect() as session:
            return rehearsal.check_against_rehearsal(run, session)

    assert any("table public.added is missing" in told for told in found())
    with plain.session(user=OWNER) as cursor:
        cursor.execute(MIGRATION)
        assert found() == []
        cursor.execute("ALTER TABLE added ALTER a SET STATISTICS 9; CREATE INDEX late ON added (a)")
    told = found()
    assert len(told) == 2 and told[0] == "index public.late is not expected" and "SET STATISTICS 9" in told[1], told
