# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options of modules that run Prisma."""

from __future__ import annotations


class ModuleDocFragment:
    """Where Prisma is and how it is run."""

    DOCUMENTATION = r"""
notes:
  - Prisma 6 and 7. Prisma 7, and Prisma 6 with a C(datasource) in C(prisma.config.ts), show the database's URL in the argument list of their engine.
    So they get a URL without the password, to a socket in a directory that only this user can enter. Behind it the module opens the connection to the
    server, with TLS as in O(connection), and authenticates (scram-sha-256, md5 or password in C(pg_hba.conf)). A URL without a password is passed
    unchanged.
options:
  project:
    description: Directory of the release, with C(node_modules) and the Prisma schema.
    type: path
    required: true
"""

    SETTINGS = r"""
options:
  node_bin_dir:
    description: Directory of C(node). Default is E(PATH).
    type: path
  prisma_environment:
    description:
      - Further environment variables for Prisma.
      - No secrets; the connection is passed separately.
    type: dict
    default: {}
  schema_path:
    description: The Prisma schema, if it is not in one of Prisma's usual places; relative to O(project).
    type: str
  config_path:
    description:
      - Prisma's configuration, if it is not in a usual place such as C(prisma.config.ts); relative to O(project).
      - Its C(schema) and C(migrations.path) must be string literals; its C(datasource) does not count.
    type: str
"""

    FILES = r"""
options:
  schema_path:
    description: The Prisma schema, if it is not in one of Prisma's usual places; relative to O(project).
    type: str
  config_path:
    description: Prisma's configuration, if it is not in one of its usual places; relative to O(project).
    type: str
  node_bin_dir:
    description: Directory of C(node), which runs Prisma's configuration if there is one. Default is E(PATH).
    type: path
"""
