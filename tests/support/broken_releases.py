# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Releases of the example application that fail, each in one way, as the differences from ET-100, by file."""

from __future__ import annotations

from typing import Dict, Mapping, Optional

from demo import repository

MIGRATION = "20251108000000_add_receipt_data"
FIRST = "20251001000000_init"
SURPRISE = "20251109000000_add_surprise"


def script(name: str) -> str:
    return "prisma/migrations/%s/migration.sql" % name


_FILES = repository.files_of(("base", "et-100"))
_BASE = repository.files_of(("base",))
_ADD_RECEIPTS = _FILES[script(MIGRATION)].read_text("utf-8")
#: True on the copy of the rehearsal, an error on the live database: no rehearsal finds it.
_ONLY_LIVE = """
DO $$ BEGIN
  IF current_database() NOT LIKE 'backstop\\_scratch\\_%' THEN
    RAISE EXCEPTION 'this fails on the live database only';
  END IF;
END $$;
"""
_CHANGE_ROWS = """
UPDATE "User" SET "name" = upper("name");
ALTER TABLE "TokenPurchase" ALTER COLUMN "totalTokens" SET DEFAULT 0;
COMMIT;
"""
_SICK = """
'use strict'
module.exports = ({ config }) => [
  {
    method: 'GET',
    path: '/api/health',
    handle: async () => ({ status: 503, body: { status: 'unavailable', release: config.release } }),
  },
]
"""

#: Tag of a release to the files that differ from ET-100; None: the file does not exist.
BROKEN: Mapping[str, Mapping[str, Optional[str]]] = {
    "fails-everywhere": {script(MIGRATION): _ADD_RECEIPTS + 'ALTER TABLE "NoSuchTable" ADD COLUMN "x" TEXT;\n'},
    "fails-live": {script(MIGRATION): _ADD_RECEIPTS + _ONLY_LIVE},
    "leaves-objects": {script(SURPRISE): 'CREATE TABLE "Half" (id int PRIMARY KEY);\nCOMMIT;\n' + _ONLY_LIVE},
    "changes-rows": {script(MIGRATION): _ADD_RECEIPTS + _CHANGE_ROWS + _ONLY_LIVE},
    "wrong-in-three-ways": {
        script(FIRST): _FILES[script(FIRST)].read_text("utf-8") + "-- tidied up\n",
        script(SURPRISE): 'ALTER TABLE "User" ADD COLUMN "surprise" TEXT;\n',
        script(MIGRATION): _ADD_RECEIPTS + "CREATE ROLE reporting;\n",
    },
    "forgets-the-past": {script(FIRST): None},
    "never-healthy": {"src/routes/health.js": _SICK},
    "crashes": {"src/server.js": "'use strict'\nconsole.error('this release cannot start')\nprocess.exit(1)\n"},
    "lacks-receipts": {"src/routes/index.js": _BASE["src/routes/index.js"].read_text("utf-8")},
}


def mended(tag: str) -> Dict[str, Optional[str]]:
    """The release after a broken one: the same change, fixed; another commit than ET-100."""
    return {"MENDED": "after %s\n" % tag}
