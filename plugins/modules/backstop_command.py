#!/usr/bin/python
# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backstop_command
short_description: Install the command backstop on a host
version_added: "0.1.0"
description:
  - Builds the command from the library of this collection on the controller, as one file, and copies it to the host.
  - The same collection builds the same bytes, so nothing is transferred the second time.
  - The command needs Python 3.8 or newer and psycopg2 on the host, and no Ansible.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - backstop.postgres.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
options:
  path:
    description: Path of the command on the host. Its directory must exist.
    type: path
    default: /usr/local/bin/backstop
  python:
    description: The host's Python that runs it; it must have psycopg2.
    type: path
    default: /usr/bin/python3
notes:
  - "On failure: the former file is unchanged."
  - "How to undo: remove the file, or install the command from an earlier version of the collection."
seealso:
  - module: backstop.postgres.pg_dump
"""

EXAMPLES = r"""
- name: Install the command
  backstop.postgres.backstop_command:
    path: /usr/local/bin/backstop
  become: true
"""

RETURN = r"""
dest:
  description: Where the command is.
  returned: success
  type: str
  sample: /usr/local/bin/backstop
checksum:
  description: SHA-1 of the command, which shows whether it changed.
  returned: success
  type: str
"""
