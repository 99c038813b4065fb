# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Down-SQL by `prisma migrate diff` from the new release's schema to the old one's, or from files of migrations."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.down_sql import find_down_sql
from support.prisma_database import PASSWORD
from support.prisma_project import SCHEMA, PrismaProject

pytestmark = pytest.mark.prisma

OLD = SCHEMA + "model User {\n  id String @id\n%s}\n"
RECEIPT = "model ReceiptData {\n  id String @id\n  userId String @unique\n"
RECEIPT += "  user User @relation(fields: [userId], references: [id])\n}\n"
FIRST, SECOND = "20250101000000_init", "20250102000000_receipts"


@pytest.fixture
def releases(tmp_path):
    old = PrismaProject.create(tmp_path / "old", {FIRST: "SELECT 1"}, OLD % "")
    schema = OLD % "  receipt ReceiptData?\n  more Int?\n" + RECEIPT
    new = PrismaProject.create(tmp_path / "new", {FIRST: "SELECT 1", SECOND: "SELECT 1"}, schema)
    return old, new


@pytest.fixture
def find(releases, database):
    def find(old=releases[0], new=releases[1], migrations=(SECOND,)):
        return find_down_sql(migrations, prisma=new.prisma(), old_release=str(old.path), url=database.url)

    return find


def test_by_the_schemas(find, database):
    found = find()
    assert found.source == "prisma migrate diff" and PASSWORD not in found.text
    assert database.value("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0
    assert 'DROP TABLE "ReceiptData"' in found.text and 'DROP COLUMN "more"' in found.text
    assert 'ALTER TABLE "ReceiptData" DROP CONSTRAINT "ReceiptData_userId_fkey"' in found.text


def test_equal_schemas(find, releases):
    assert "DROP" not in find(new=releases[0]).text


def test_a_schema_that_cannot_be_read(find, releases):
    old, _new = releases
    (old.path / "prisma" / "schema.prisma").write_text("model {", "utf-8")
    with pytest.raises(BackstopError, match="schema is not valid.*old.prisma.schema.prisma"):
        find()


def test_files_beside_the_migrations_come_first(find, releases):
    _old, new = releases
    new.script(SECOND).with_name("down.sql").write_text("DROP TABLE second;", "utf-8")
    assert find().text == "DROP TABLE second;"
    with pytest.raises(Refused, match="Not every migration has down-SQL.*" + FIRST):
        find(migrations=(FIRST, SECOND))
    new.script(FIRST).with_name("down.sql").write_text("DROP TABLE first;", "utf-8")
    assert find(migrations=(FIRST, SECOND)).text == "DROP TABLE second;\nDROP TABLE first;"
