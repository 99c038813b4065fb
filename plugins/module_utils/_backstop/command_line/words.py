# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The names that users of the command know for settings and actions: options, configuration keys, subcommands."""

from __future__ import annotations

import enum
import json
import shlex
import sys
from typing import Dict

from ..base.remedies import Action, Given, Setting, Start, Words
from .configuration import DIRECTORY

#: Configuration keys; ``%s`` is the configuration's directory.
_KEYS: Dict[enum.Enum, str] = {
    Setting.ADMINISTRATION: "the section administration of the configuration below %s",
    Setting.CLIENT_BIN_DIR: "client_bin_dir in the configuration below %s",
    Setting.CONNECTION: "the section connection of the configuration below %s",
    Setting.PASSWORD: "a file that password_file or passfile in the configuration below %s names",
    Setting.POOLERS: "the file that poolers in the configuration below %s names",
    Setting.RECIPIENTS: "age_recipients in the configuration below %s",
    Setting.SHARE_TO_DELETE: "max_delete_share in the configuration below %s",
    Setting.STORE: "store in the configuration below %s",
    Setting.URL: "the configuration below %s",
}
#: Options of ``backstop rollback`` or ``backstop undo``.
OPTIONS: Dict[enum.Enum, str] = {
    Setting.ACCEPT_CASCADE: "--accept-cascade",
    Setting.ACCEPT_LOST_OBJECTS: "--accept-lost-objects",
    Setting.ACCEPT_LOST_ROWS: "--accept-lost-rows",
    Setting.ACCEPT_UNREADABLE: "--accept-unreadable",
    Setting.AGAIN: "--again",
    Setting.BACKUP: "--backup",
    Setting.DOWN_SQL: "--down-sql-file",
    Setting.KEYS: "--keys",
    Setting.METHOD: "--method",
    Setting.MODE: "--mode",
    Setting.OPERATION: "--operation",
    Setting.REAPPLY: "--reapply",
    Setting.REAPPLY_DELETES: "--reapply-deletes",
    Setting.RELEASE: "--release",
    Setting.RESTORE_METHOD: "--restore-method",
    Setting.TABLE: "--table",
    Setting.TAKE_OVER: "--take-over",
    Setting.WHERE: "--where",
}
#: Subcommands; ``%s`` is the name of a configuration.
_ACTIONS: Dict[enum.Enum, str] = {
    Action.APPLICATION_ERRORS: "backstop rollback %s --scenario application_errors",
    Action.COMPLETE: "backstop rollback %s",
    Action.CORRUPTED_TABLE: "backstop rollback %s --scenario corrupted_table",
    Action.FAILED_MIGRATION: "backstop rollback %s --scenario failed_migration",
    Action.PLAN: "backstop plan %s",
    Action.UNDO: "backstop undo %s",
}
_NAMES: Dict[enum.Enum, str] = {
    **OPTIONS,
    Setting.IDENTITY: "--identity, or age_identity in its configuration",
    Setting.PYTHON: sys.executable,
    Setting.USER: "the user of this command",
    Action.LIST_BACKUPS: "backstop list",
    Action.MARK_MIGRATION: "npx prisma migrate resolve",
}


class CommandWords(Words):
    """
    :param directory: of the configurations
    :param name: of the configuration
    """

    def __init__(self, directory: str = DIRECTORY, name: str = "DATABASE") -> None:
        self._directory = directory
        self._name = name

    def name_of(self, part: enum.Enum) -> str:
        if part in _KEYS:
            return _KEYS[part] % self._directory
        if part in _ACTIONS:
            return _ACTIONS[part] % shlex.quote(self._name)
        return _NAMES.get(part) or super().name_of(part)

    def given(self, given: Given) -> str:
        option, value = OPTIONS.get(given.setting), given.value
        if option is None or value is False:
            return super().given(given)
        if value is True:
            return option
        return "%s %s" % (option, shlex.quote(value if isinstance(value, str) else json.dumps(value)))

    def start(self, start: Start) -> str:
        if start.action not in _ACTIONS:
            return super().start(start) + (", as it was before" if start.as_before else "")
        words = [self.name_of(start.action), *["--check"] * start.check, *map(self.given, start.given)]
        return " ".join(words) + (", with the other options as before" if start.as_before else "")
