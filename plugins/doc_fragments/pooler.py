# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of the option of modules that know of PgBouncers in front of the database."""

from __future__ import annotations


class ModuleDocFragment:
    """The poolers."""

    DOCUMENTATION = r"""
options:
  poolers:
    description:
      - The PgBouncers that clients of the database go through.
      - >-
        Their pools are paused while the database is counted and exchanged, and resumed afterwards, whatever failed:
        pooled clients see a wait in place of errors. A run that was killed in between left the pools in the journal;
        the next one resumes them first.
      - >-
        PgBouncer itself sends clients away that wait longer than its C(query_wait_timeout), 120 seconds unless set
        otherwise.
    type: list
    elements: dict
    default: []
    suboptions:
      console:
        description:
          - >-
            How PgBouncer's admin console is reached, as one of its C(admin_users). The port is 6432 and the database
            V(pgbouncer) unless given.
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
            description: Without meaning here.
            type: str
          sslmode:
            description: How far TLS is asked for, as in libpq.
            type: str
            choices: [disable, allow, prefer, require, verify-ca, verify-full]
          sslrootcert:
            description: File with the certificates of the authorities that may sign PgBouncer's.
            type: path
          connect_timeout:
            description: Seconds to wait for PgBouncer.
            type: int
      pools:
        description:
          - Names of the pools that lead to the database, as in the section C([databases]) of PgBouncer's configuration.
          - Without them all that lead to a database of this name.
        type: list
        elements: str
        default: []
      wait:
        description:
          - >-
            Seconds in which clients must give back the session that they have, at the end of a transaction or, with
            session pooling, when they go.
        type: float
        default: 10
      held:
        description:
          - >-
            What is done when some do not. V(refuse) resumes the pools and fails, naming these clients; nothing was
            changed.
          - >-
            V(end) goes on. Their sessions are ended, they alone see an error. A restore in place
            ends only those that hold locks.
        type: str
        choices: [refuse, end]
        default: refuse
"""
