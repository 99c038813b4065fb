# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the option of modules that pause PgBouncers in front of the database."""

from __future__ import annotations


class ModuleDocFragment:
    """The poolers."""

    DOCUMENTATION = r"""
options:
  poolers:
    description:
      - The PgBouncers that clients of the database go through.
      - >-
        Their pools are paused while the loss is counted and the database is swapped, and resumed afterwards, also after a failure: pooled clients
        wait and see no errors. A killed run left the pools in the journal; the next one resumes them first.
      - >-
        PgBouncer itself disconnects clients that wait longer than its C(query_wait_timeout), by default 120 seconds.
    type: list
    elements: dict
    default: []
    suboptions:
      console:
        description:
          - >-
            Connection to PgBouncer's admin console, as one of its C(admin_users). The default port is 6432, the default database V(pgbouncer).
          - Secrets given here never show in results, logs or the argument lists of programs.
        type: dict
        required: true
        suboptions:
          url:
            description: All at once, V(postgresql://user:password@host:port/pgbouncer).
            type: str
          host:
            description: Host name, address, or directory of the Unix socket.
            type: str
          port:
            description: Port of PgBouncer.
            type: int
          user:
            description: One of the C(admin_users).
            type: str
          password:
            description: Its password.
            type: str
          database:
            description: The console's name.
            type: str
          schema:
            description: Not used.
            type: str
          sslmode:
            description: TLS mode, as in libpq.
            type: str
            choices: [disable, allow, prefer, require, verify-ca, verify-full]
          sslrootcert:
            description: File with the CA certificates that may sign PgBouncer's.
            type: path
          connect_timeout:
            description: Seconds to wait for PgBouncer.
            type: int
      pools:
        description:
          - Names of the pools that point to the database, as in the section C([databases]) of PgBouncer's configuration.
          - Without it, all that point to a database of this name.
        type: list
        elements: str
        default: []
      wait:
        description:
          - >-
            Seconds in which clients must release their server connection, at the end of a transaction or, with session pooling, when they disconnect.
        type: float
        default: 10
      held:
        description:
          - >-
            What to do if some do not. V(refuse) resumes the pools and fails, naming these clients; nothing was changed.
          - >-
            V(end) continues. Their sessions are ended, only they see an error. A restore in place ends only those that hold locks.
        type: str
        choices: [refuse, end]
        default: refuse
"""
