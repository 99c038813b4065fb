#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: check_variables
short_description: Find misspelt and unusable variables before a run does anything
version_added: "0.1.0"
description:
  - Compares the names of variables with the options of this collection's roles, and the values of options with their types.
    It works on the controller alone; every playbook of this collection begins with it.
  - An extra variable whose name has the prefix of a role, is not an option, and is at most two edits away from one, is an error that names that
    option. Any other unknown name with such a prefix is a warning.
  - A variable of the inventory causes only a warning, and only when it is at most two edits away from an option.
  - Facts, registered results and names that the roles use themselves are ignored, and so are the names in the list C(backstop_known_variables).
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
  - backstop.postgres.attributes.info
options:
  roles:
    description:
      - The roles whose options must have usable values. Without it, all roles.
      - Names are always compared with the options of all roles.
    type: list
    elements: str
notes:
  - "On failure: nothing was changed. The message names every wrong variable."
  - "How to undo: there is nothing to undo."
"""

EXAMPLES = r"""
- name: Check the variables
  backstop.postgres.check_variables:
    roles: [rollback, application]
"""

RETURN = r"""
"""
