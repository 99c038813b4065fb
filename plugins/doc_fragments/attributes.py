# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the attributes that the modules share."""

from __future__ import annotations


class ModuleDocFragment:
    """Check mode, diff mode, action group."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the target.
  diff_mode:
    description: Returns what has changed (or would), when in diff mode.
"""

    INFO = r"""
attributes:
  check_mode:
    support: full
    details:
      - This module only reads.
  diff_mode:
    support: N/A
    details:
      - This module only reads.
"""

    ACTION_GROUP = r"""
attributes:
  action_group:
    description: Use C(group/backstop.postgres.database) in C(module_defaults) to set the connection once.
    support: full
    membership:
      - backstop.postgres.database
"""
