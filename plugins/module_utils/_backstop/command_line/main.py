# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command ``backstop`` on hosts: arguments in; a result, an error and an exit status out."""

from __future__ import annotations

import argparse
import os
import sys
from typing import List, Optional

from ..base.errors import BackstopError
from ..base.processes import signals_as_errors
from ..postgres.connection import database_errors
from .configuration import DIRECTORY
from .exit_statuses import FAILED, MEANINGS, NAGIOS, NAGIOS_WORDS
from .output import Output, say
from .subcommands import SUBCOMMANDS, Call


def make_parser() -> argparse.ArgumentParser:
    statuses = "\n".join("  %d  %s" % pair for pair in MEANINGS.items())
    parser = argparse.ArgumentParser(
        prog="backstop",
        description="Backups of PostgreSQL databases that prove what they hold.",
        epilog="exit status:\n" + statuses,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for subcommand in SUBCOMMANDS:
        sub = commands.add_parser(
            subcommand.name, help=subcommand.what, description=subcommand.what, allow_abbrev=False
        )
        for add in subcommand.arguments:
            add(sub)
        sub.add_argument("--json", action="store_true", help="the result as JSON")
        sub.add_argument("--quiet", action="store_true", help="say nothing when all is well")
        sub.add_argument("--syslog", action="store_true", help="write to syslog, for cron; the exit status stays")
        sub.add_argument("--config-directory", metavar="PATH", default=DIRECTORY, help="default: " + DIRECTORY)
        sub.set_defaults(act=subcommand.act, nagios=False)
    return parser


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command; its exit status."""
    # What it makes is nobody else's, whatever umask it was started with.
    os.umask(0o077)
    options = make_parser().parse_args(arguments)
    options.config_directory = os.path.abspath(options.config_directory)
    if getattr(options, "identity", None):
        options.identity = os.path.abspath(options.identity)
    # pg_dumpall fails in a directory that its user cannot enter, such as the home of whoever became that user.
    os.chdir("/")
    output = Output(as_json=options.json, to_syslog=options.syslog, quiet=options.quiet)
    try:
        with signals_as_errors("run the same command again"), database_errors():
            status = int(options.act(Call(options, output)))
    except BackstopError as error:
        if options.nagios:
            say("%s: %s" % (NAGIOS_WORDS[NAGIOS[error.exit_status]], " ".join(str(error).split())))
        output.failure(error, in_words_of_hosts(str(error)))
        status = error.exit_status
    except KeyboardInterrupt:
        output.failure(BackstopError("Interrupted"), "Interrupted.")
        status = FAILED
    return NAGIOS[status] if options.nagios else status


def in_words_of_hosts(text: str) -> str:
    """The library's hints speak to people who run playbooks; here the same things have other names."""
    for playbook, host in (
        ("backstop_connection (or DATABASE_URL)", "the configuration below " + DIRECTORY),
        ("backstop_connection, from a vault", "a password file"),
        ("backstop_connection", "the configuration below " + DIRECTORY),
        ("as backstop_age_identity", "as --identity, or as age_identity in its configuration"),
        ("set backstop_client_bin_dir", "set client_bin_dir in the configuration"),
        ("run this again with a greater max_delete_share", "set a greater max_delete_share in its configuration"),
        (" (backstop_user), or choose another backstop_store", ""),
        ("the module pg_backup_info lists them", "backstop list"),
        ("pg_backup_info lists them with their level", "backstop list tells their level"),
        ("pg_backup_info tells the scope of each", "backstop list tells the scope of each"),
        ("set backstop_user, or drill", "run it as another user, or drill"),
        ("rollback_corrupted_table.yml puts", "the playbook for a corrupted table puts"),
        ("rollback_complete.yml goes", "the one for a complete rollback goes"),
        ("With -e rollback_accept_unreadable=true both give up what cannot be read", "Neither can be done from here"),
        ("with rollback_corrupted_table.yml, or choose", "by the playbook for a corrupted table, or choose"),
        ("for the Python that Ansible uses here", "for " + sys.executable),
        (", or point ansible_python_interpreter to one that has it", ""),
    ):
        text = text.replace(playbook, host)
    return text
