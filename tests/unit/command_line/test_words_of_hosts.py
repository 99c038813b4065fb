# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the command says names nothing that only those who run playbooks have."""
from __future__ import annotations

import ast
import re

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.main import in_words_of_hosts
from support.collection_files import LIBRARY, name_of, python_files

#: Files whose errors the command can meet: what it does is to back up, drill, restore and list.
_MET = ("base", "postgres", "store", "command_line", "site", "backups")
#: What only a fence of a swap meets, what keeps a swap's emergency backup, and what begins operations.
_NOT_MET = ("postgres/pgbouncer.py", "store/lifecycle.py", "backups/salvage.py", "command_line/main.py")
_OF_ANSIBLE = re.compile(
    r"\b(?:backstop_(?!scratch|retired|drill|lost)|rollback_|deploy_|ansible|pg_backup_|pg_table_)\w+"
    r"|(?<!\w)-e \w|\.yml"
)


def texts():
    for path in python_files(LIBRARY):
        place = str(path.relative_to(LIBRARY))
        if place.startswith(_MET) and place not in _NOT_MET:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.keyword) and node.arg in ("hint", "expected") or isinstance(node, ast.Return):
                    for part in ast.walk(node):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str):
                            yield pytest.param(part.value, id="%s:%d" % (name_of(path), part.lineno))


@pytest.mark.parametrize("text", [one for one in texts() if _OF_ANSIBLE.search(one.values[0])])
def test_a_hint_says_nothing_of_ansible(text):
    assert not _OF_ANSIBLE.search(in_words_of_hosts(text)), in_words_of_hosts(text)
