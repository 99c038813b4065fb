#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_mark
short_description: Mark a backup to be kept
version_added: "0.1.0"
description:
  - A marked backup is kept whatever the rule of M(backstop.postgres.pg_backup_prune), until the mark is removed.
  - The mark is a file C(keep.json) in the backup's directory; the backup itself and its verification stay as they are.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.store
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  backup:
    description: Id of the backup.
    type: str
    required: true
  state:
    description: Whether the backup is marked.
    type: str
    choices: [present, absent]
    default: present
  reason:
    description: Why it is kept; needed for O(state=present), shown by M(backstop.postgres.pg_backup_info) and M(backstop.postgres.pg_backup_prune).
    type: str
notes:
  - "On failure: the message lists the existing backups; the marks are unchanged."
  - "How to undo: run it again with the other O(state)."
seealso:
  - module: backstop.postgres.pg_backup_prune
  - module: backstop.postgres.pg_backup_info
"""

EXAMPLES = r"""
- name: Keep the last backup of the year
  backstop.postgres.pg_backup_mark:
    store: /var/backups/backstop
    backup: electricity_tokens-20251231T020000Z-3fa9c1
    reason: closing of the books 2025

- name: Leave it to the rule again
  backstop.postgres.pg_backup_mark:
    store: /var/backups/backstop
    backup: electricity_tokens-20251231T020000Z-3fa9c1
    state: absent
"""

RETURN = r"""
mark:
  description: The mark as it is now, or would be, with C(reason) and C(at); none without a mark.
  returned: success
  type: dict
  sample: {reason: closing of the books 2025, at: "2026-01-02T09:00:00.000Z"}
"""

from typing import Any, Dict, Optional

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_boundary import (
    Request,
    run_module,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.marks import (
    mark_of,
    remove_mark,
    set_mark,
)


def act(request: Request) -> Dict[str, Any]:
    place = request.store.find_backup(request.params["backup"])
    before = mark_of(place)
    wanted: Optional[str] = request.params["reason"].strip() if request.params["state"] == "present" else None
    changed = (before["reason"] if before else None) != wanted
    after: Optional[Dict[str, Any]] = (
        before if not changed else None if wanted is None else {"reason": wanted, "at": None}
    )
    if changed and not request.check_mode:
        if wanted is None:
            remove_mark(request.store, place)
        else:
            set_mark(request.store, place, wanted)
        after = mark_of(place)
    result: Dict[str, Any] = {"changed": changed, "mark": after}
    if request.diff:
        result["diff"] = {"before": _line(before), "after": _line(after)}
    return result


def _line(mark: Optional[Dict[str, Any]]) -> str:
    return "kept: %s\n" % mark["reason"] if mark else ""


def main() -> None:
    run_module(
        dict(
            backup=dict(type="str", required=True),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            reason=dict(type="str"),
            store=dict(type="path", required=True),
        ),
        act,
        required_if=[("state", "present", ("reason",))],
    )


if __name__ == "__main__":
    main()
