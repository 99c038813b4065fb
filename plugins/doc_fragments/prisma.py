# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of modules that run Prisma."""
from __future__ import annotations


class ModuleDocFragment:
    """Where Prisma is and how it is run."""

    DOCUMENTATION = r"""
options:
  project:
    description: Directory of the release, with C(node_modules) and the Prisma schema.
    type: path
    required: true
  node_bin_dir:
    description: Directory of C(node); without it PATH is used.
    type: path
  prisma_environment:
    description:
      - Further environment variables for Prisma.
      - No secrets; the connection is handed over separately.
    type: dict
    default: {}
  schema_path:
    description: The Prisma schema, where it is not in one of Prisma's usual places; relative to O(project).
    type: str
"""
