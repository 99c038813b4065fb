# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names that playbook users know for settings and actions. The only file of the library with Ansible names."""

from __future__ import annotations

import enum
import json
import re
import shlex
from typing import Dict

from .base.remedies import Action, Given, Setting, Start, Words, shown

NAMES: Dict[enum.Enum, str] = {
    Setting.ACCEPT_CASCADE: "rollback_accept_cascade",
    Setting.ACCEPT_LOST_OBJECTS: "rollback_accept_lost_objects",
    Setting.ACCEPT_LOST_ROWS: "rollback_accept_lost_rows",
    Setting.ACCEPT_UNREADABLE: "rollback_accept_unreadable",
    Setting.ADMINISTRATION: "backstop_administration",
    Setting.AGAIN: "rollback_again",
    Setting.BACKUP: "rollback_backup",
    Setting.CLIENT_BIN_DIR: "backstop_client_bin_dir",
    Setting.CONNECTION: "backstop_connection",
    Setting.DATABASE_DIRECTORY: "backstop_database_directory",
    Setting.DATABASE_FREE_BYTES: "backstop_database_free_bytes",
    Setting.DOWN_SQL: "rollback_down_sql",
    Setting.ENVIRONMENT_FILE: "application_environment_file",
    Setting.IDENTITY: "backstop_age_identity",
    Setting.KEYS: "rollback_keys",
    Setting.MANAGER: "application_manager",
    Setting.METHOD: "rollback_method",
    Setting.MODE: "rollback_mode",
    Setting.OPERATION: "rollback_operation",
    Setting.PASSWORD: "backstop_connection, from a vault",
    Setting.POOLERS: "backstop_poolers",
    Setting.PYTHON: "the Python that Ansible uses here (ansible_python_interpreter)",
    Setting.REAPPLY: "rollback_reapply",
    Setting.REAPPLY_DELETES: "rollback_reapply_deletes",
    Setting.RECIPIENTS: "backstop_age_recipients",
    Setting.RELEASE: "rollback_revision",
    Setting.RESTORE_METHOD: "rollback_restore_method",
    Setting.REVISION_TO_DEPLOY: "deploy_revision",
    Setting.SAFETY_COPY: "deploy_safety_copy",
    Setting.SAFETY_COPY_SECONDS: "deploy_safety_copy_seconds",
    Setting.SERVER_PROGRAMS_VERSION: "backstop_server_programs_version",
    Setting.SHARE_TO_DELETE: "max_delete_share",
    Setting.STORE: "backstop_store",
    Setting.SYSTEMD_UNIT: "application_systemd_unit",
    Setting.SYSTEMD_USER: "application_systemd_user",
    Setting.TABLE: "rollback_table",
    Setting.TAKE_OVER: "backstop_take_over",
    Setting.URL: "backstop_connection (or DATABASE_URL)",
    Setting.USER: "backstop_user",
    Setting.WHERE: "rollback_where",
    Action.ALL_STEPS: "run the whole playbook, without --tags, --skip-tags or --start-at-task",
    Action.APPLICATION_ERRORS: "ansible-playbook backstop.postgres.rollback_application_errors",
    Action.COMPLETE: "ansible-playbook backstop.postgres.rollback_complete",
    Action.CORRUPTED_TABLE: "ansible-playbook backstop.postgres.rollback_corrupted_table",
    Action.DEPLOY: "ansible-playbook backstop.postgres.deploy",
    Action.DROP_RETIRED: "the module pg_retired_prune",
    Action.FAILED_MIGRATION: "ansible-playbook backstop.postgres.rollback_failed_migration",
    Action.LIST_BACKUPS: "pg_backup_info",
    Action.MARK_MIGRATION: "the module prisma_migrate_resolve",
    Action.MIGRATION_STATE: "prisma_migrate_info",
    Action.PLAN: "ansible-playbook backstop.postgres.rollback_plan",
    Action.SAME_AGAIN: "run the same playbook again",
    Action.THE_REST: "run the playbook again, or with --tags change,finish",
    Action.UNDO: "ansible-playbook backstop.postgres.undo_rollback",
}


class AnsibleWords(Words):
    """Variables of the roles, playbooks and modules."""

    def name_of(self, part: enum.Enum) -> str:
        return NAMES[part]

    def given(self, given: Given) -> str:
        """An extra variable, as JSON where a plain value would be read as another type."""
        name, value = NAMES[given.setting], given.value
        if isinstance(value, int) or isinstance(value, str) and re.fullmatch(r"[\w.-]+", value):
            return "-e %s=%s" % (name, shown(value))
        return "-e " + shlex.quote(json.dumps({name: value}, ensure_ascii=False))

    def start(self, start: Start) -> str:
        if start.action is Action.DEPLOY and start.as_before:
            what = "run ansible-playbook with the deploy that was started again, as it was"
            return what + "; it continues where it stopped"
        words = [NAMES[start.action], *["--check"] * start.check, *map(self.given, start.given)]
        return " ".join(words) + (", with the other options as before" if start.as_before else "")
