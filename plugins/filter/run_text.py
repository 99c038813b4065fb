# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the roles say about a run of several hosts: the library words it from facts that only the controller has."""

from __future__ import annotations

DOCUMENTATION = r"""
name: run_text
short_description: Words what a deploy or rollback says about its hosts
version_added: "0.1.0"
description:
  - For the roles of this collection, which print these texts.
author:
  - The backstop.postgres contributors (@backstop)
positional: name
options:
  _input:
    description: What the role knows about the run, as its variables C(deploy_run) and C(rollback_run) have it.
    type: dict
    required: true
  name:
    description: Name of the text.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show whom to call
  ansible.builtin.debug:
    msg: "{{ {'contacts': [{'name': 'On call', 'phone': '555 0100'}]} | backstop.postgres.run_text('contacts') }}"
"""

RETURN = r"""
_value:
  description: The text, or a list of short lines.
  type: raw
"""

from typing import Any, Callable, Dict, Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import AnsibleWords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import in_words_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.run_texts import NAMES, Run, Text, text


def run_text(run: Mapping[str, Any], name: str) -> Text:
    if name not in NAMES:
        raise AnsibleFilterError("There is no text %s. Expected one of: %s" % (name, ", ".join(NAMES)))
    with in_words_of(AnsibleWords()):
        return text(name, Run.of(run))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> Dict[str, Callable[..., Any]]:
        return {"run_text": run_text}
