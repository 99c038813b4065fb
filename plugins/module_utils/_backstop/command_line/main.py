# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command ``backstop`` on hosts: arguments in; a result, an error and an exit status out."""

from __future__ import annotations

import argparse
import os
from typing import List, Optional

from ..base.errors import BackstopError
from ..base.processes import signals_as_errors
from ..base.remedies import in_words_of
from ..postgres.connection import database_errors
from .configuration import DIRECTORY
from .exit_statuses import MEANINGS, NAGIOS, NAGIOS_WORDS
from .output import Output, clear_progress, progress_for, say
from .subcommands import SUBCOMMANDS, Call
from .words import CommandWords


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
        sub.add_argument("--quiet", action="store_true", help="print nothing on success")
        sub.add_argument("--progress", action="store_true", help="show the progress where there is no terminal too")
        sub.add_argument("--syslog", action="store_true", help="write to syslog, for cron; the exit status is the same")
        sub.add_argument("--config-directory", metavar="PATH", default=DIRECTORY, help="default: " + DIRECTORY)
        sub.set_defaults(act=subcommand.act, nagios=False)
    return parser


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command; returns its exit status."""
    # Files of the command are private, whatever its umask.
    os.umask(0o077)
    options = make_parser().parse_args(arguments)
    options.config_directory = os.path.abspath(options.config_directory)
    if getattr(options, "identity", None):
        options.identity = os.path.abspath(options.identity)
    # pg_dumpall fails in a directory that its user cannot enter, such as the home of a user who ran sudo.
    os.chdir("/")
    output = Output(as_json=options.json, to_syslog=options.syslog, quiet=options.quiet)
    with in_words_of(CommandWords(options.config_directory, getattr(options, "name", None) or "DATABASE")):
        status = _run(options, output)
    return NAGIOS[status] if options.nagios else status


def _run(options: argparse.Namespace, output: Output) -> int:
    try:
        with signals_as_errors(), database_errors():
            progress = progress_for(asked=options.progress, quiet=options.quiet or options.syslog)
            try:
                return int(options.act(Call(options, output, progress)))
            finally:
                clear_progress()
    except BackstopError as error:
        if options.nagios:
            say("%s: %s" % (NAGIOS_WORDS[NAGIOS[error.exit_status]], " ".join(str(error).split())))
        output.failure(error)
        return error.exit_status
