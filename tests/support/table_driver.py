# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores a table, or undoes this, as the role does with modules; a test kills it at a failpoint and restarts it.

python -m support.table_driver restore|undo SETTINGS.json
"""

from __future__ import annotations

import sys
from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.loss.acceptance import LossPolicy
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.lifecycle import begin, this_controller
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import (
    Operation,
    open_operations,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.restored_tables import plan_table_undo
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.table import (
    TableRestoreRequest,
    plan,
    restore_table,
    undo_table,
)
from support.forks import drive


def run(what: str, given: Dict[str, Any]) -> Dict[str, Any]:
    connection = Settings.from_url(given["url"])
    store = Store(given["store"])
    site = Site(connection, connection.with_database("postgres"), store, given["client_bin_dir"])
    interrupted = bool(open_operations(store))
    if what == "undo":
        planned = plan_table_undo(site, None)
        kind, request = "undo", {"undoes": planned["undoes"] if planned else None}
        needed = bool(planned and planned["needed"])
    else:
        kind, request = "rollback", {"scenario": "corrupted_table", "table": given["table"]}
        needed = bool(plan(site, TableRestoreRequest(given["table"])).changed)
    if not needed and not interrupted:
        return {"outcome": "nothing"}
    operation, _adopted = begin(store, kind, site.database, request, this_controller())
    run = site.run(operation)
    if what == "undo":
        undo_table(run, Operation.load(store, str(request["undoes"])), LossPolicy(0))
    else:
        restore_table(run, TableRestoreRequest(given["table"]))
    operation.close("done")
    return {"outcome": "done"}


def main() -> int:
    return drive(run)


if __name__ == "__main__":
    sys.exit(main())
