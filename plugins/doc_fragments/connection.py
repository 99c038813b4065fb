# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the options that every module of the action group ``database`` has."""

from __future__ import annotations


class ModuleDocFragment:
    """The connection options."""

    DOCUMENTATION = r"""
options:
  connection:
    description:
      - The application's database, reached directly, never through a pooler.
      - O(connection.url) gives all fields at once; the other fields override its parts.
      - Secrets given here never show in results, logs or the argument lists of programs.
    type: dict
    required: true
    suboptions: &fields
      url:
        description:
          - The URL that Prisma uses, V(postgresql://user:password@host:port/database).
          - Prisma's own parameters (C(schema), C(connection_limit), C(pgbouncer) and others) are understood.
        type: str
      host:
        description: Host name, address, or directory of the server's Unix socket.
        type: str
      port:
        description: Port of the server.
        type: int
      user:
        description: Database role to log in as.
        type: str
      password:
        description: Password of the role.
        type: str
      database:
        description: Name of the database, in its exact case.
        type: str
      schema:
        description: The schema that Prisma works in.
        type: str
      sslmode:
        description: TLS mode, as in libpq.
        type: str
        choices: [disable, allow, prefer, require, verify-ca, verify-full]
      sslrootcert:
        description: File with the CA certificates that may sign the server's.
        type: path
      connect_timeout:
        description: Seconds to wait for the server.
        type: int
  administration:
    description:
      - The connection that creates and renames databases and ends their sessions.
      - What is not given is taken from O(connection), with the database V(postgres).
    type: dict
    suboptions: *fields
  client_bin_dir:
    description:
      - Directory of C(pg_dump), C(pg_restore) and C(pg_dumpall).
      - Without it they are searched in the usual places; they must be of the server's major version.
    type: path
  age_recipients:
    description:
      - Public keys of C(age), or public ssh keys. Every backup is encrypted for all of them while it is written.
      - Manifest, history and migrations of an encrypted backup stay readable; archive and roles do not.
    type: list
    elements: str
  age_identity:
    description:
      - File on the host with a private key of one of the recipients, of mode 0600. It decrypts encrypted backups; C(age) opens the file itself, and
        its content is not shown.
      - Without it an encrypted backup cannot be verified further, restored or reverted to here, which is refused before
        anything is changed.
    type: path
requirements:
  - psycopg2
"""
