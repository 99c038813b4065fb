# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the option of modules that check tables."""

from __future__ import annotations


class ModuleDocFragment:
    """What is expected of tables."""

    DOCUMENTATION = r"""
options:
  tables:
    description: The tables and what is expected of them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the table, with or without quotes and schema.
        type: str
        required: true
      exists:
        description: Whether it must exist.
        type: bool
        default: true
      columns:
        description: Columns that it must have, in any order.
        type: list
        elements: str
      key:
        description: Columns of its primary key, else of a unique index over NOT NULL columns, in their order.
        type: list
        elements: str
      rows:
        description: Exact number of rows.
        type: int
      min_rows:
        description: Minimum number of rows.
        type: int
      max_rows:
        description: Maximum number of rows.
        type: int
      earliest:
        description: Column to its smallest value, in any spelling of its type; null only measures it.
        type: dict
      latest:
        description: Column to its largest value, in any spelling of its type; null only measures it.
        type: dict
      sums:
        description:
          - Column to the exact sum of its numbers, as text or number; null only measures it.
          - If the column contains NaN or infinities, the check fails.
        type: dict
"""
