# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of modules that use the store."""

from __future__ import annotations


class ModuleDocFragment:
    """The store, and the operation."""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - The directory that holds backups and operations, of mode 0700 and owned by the user that runs this.
    type: path
    required: true
"""

    OPERATION = r"""
options:
  operation:
    description:
      - Id of the operation that this is a step of, as M(backstop.postgres.operation) returned it.
      - The step is written to its journal by this module's own process, which holds the operation's locks meanwhile.
    type: str
  controller:
    description:
      - The process that runs the playbook. Once another one has adopted the operation, this one's modules are refused.
      - Set by this collection's action plugin, which also shows the module's progress, one line every few seconds from the fifth second on.
      - Do not set it.
    type: dict
"""

    CONTROLLER = r"""
options:
  controller:
    description:
      - The process that runs the playbook.
      - Set by this collection's action plugin, which also shows the module's progress, one line every few seconds from the fifth second on.
      - Do not set it.
    type: dict
"""
