# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How people at a host's terminal call what they set and start: options, keys of the configuration, subcommands."""

from __future__ import annotations

import enum
import sys
from typing import Dict

from ..base.remedies import Action, Setting, Words
from .configuration import DIRECTORY

#: Keys of the configuration; ``%s`` is its directory.
_KEYS: Dict[enum.Enum, str] = {
    Setting.ADMINISTRATION: "the section administration of the configuration below %s",
    Setting.CLIENT_BIN_DIR: "client_bin_dir in the configuration below %s",
    Setting.CONNECTION: "the section connection of the configuration below %s",
    Setting.PASSWORD: "a file that password_file or passfile in the configuration below %s names",
    Setting.RECIPIENTS: "age_recipients in the configuration below %s",
    Setting.SHARE_TO_DELETE: "max_delete_share in the configuration below %s",
    Setting.STORE: "store in the configuration below %s",
    Setting.URL: "the configuration below %s",
}
_NAMES: Dict[enum.Enum, str] = {
    Setting.IDENTITY: "--identity, or age_identity in its configuration",
    Setting.PYTHON: sys.executable,
    Setting.USER: "the user of this command",
    Action.APPLICATION_ERRORS: "the playbook for application errors",
    Action.COMPLETE: "the playbook for a complete rollback",
    Action.CORRUPTED_TABLE: "the playbook for a corrupted table",
    Action.DEPLOY: "the deploy",
    Action.FAILED_MIGRATION: "the playbook for a failed migration",
    Action.LIST_BACKUPS: "backstop list",
    Action.MARK_MIGRATION: "npx prisma migrate resolve",
    Action.PLAN: "the playbook for a rollback plan",
    Action.UNDO: "the playbook for an undo",
}


class CommandWords(Words):
    """
    :param directory: of the configurations
    """

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._directory = directory

    def name_of(self, part: enum.Enum) -> str:
        if part in _KEYS:
            return _KEYS[part] % self._directory
        return _NAMES.get(part) or super().name_of(part)
