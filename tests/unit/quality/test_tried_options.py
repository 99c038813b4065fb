# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every option of a role is set by a run: in a test of playbooks, in Molecule, or in the demo's inventory."""

from __future__ import annotations

import pathlib
import re
from typing import Set

import yaml
from support.collection_files import ROOT

#: Where playbooks run with options of roles.
RUNS = ("tests/**/*.py", "tests/**/*.yml", "molecule/**/*", "examples/demo/*.py", "playbooks/vars/*")
SUFFIXES = (".py", ".yml", ".j2", ".sh")
#: Options that no run sets, by the reason. The list may only become shorter.
NOT_TRIED = {
    # How an application is described; the modules' tests set it
    "application_pm2_save",
    "application_start_service_command",
    "application_status_command",
    "application_stop_command",
    "application_systemd_scope",
    "application_systemd_unit",
    "application_systemd_user",
    # Other users than the one who runs the tests
    "application_user",
    "deploy_maintenance_user",
    # Set by other roles of this collection
    "application_attempt",
    "backstop_operation",
    "backup_commit",
    "backup_prisma",
    "backup_step",
    # An option of a module that the module's tests set
    "backup_schema_only",
    "deploy_lint_exclude",
    "operation_report_whole_store",
    "restore_drill_backup",
    "restore_drill_keep_scratch",
    "restore_drill_level",
    "rollback_accept_cascade",
    "rollback_down_sql_file",
    "rollback_undo_backup",
}


def options() -> Set[str]:
    found: Set[str] = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text("utf-8"))["argument_specs"].values():
            found |= set(entry.get("options") or {})
    return found


def test_every_option_of_a_role_is_tried() -> None:
    paths = [path for pattern in RUNS for path in ROOT.glob(pattern) if path.suffix in SUFFIXES]
    words: Set[str] = set()
    for path in set(paths) - {pathlib.Path(__file__)}:
        words |= set(re.findall(r"\w+", path.read_text("utf-8")))
    assert sorted(options() - words) == sorted(NOT_TRIED)
