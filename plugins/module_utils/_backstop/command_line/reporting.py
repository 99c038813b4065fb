# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``backstop report``: the proof report of an operation, or of the whole store."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..base.durable_files import write_file
from ..reports.answers import store_story, story
from ..reports.html import operation_page, store_page
from ..reports.junit import junit
from ..reports.operation_report import choose, report_of
from ..reports.store_report import store_report
from ..store.retention import policy_of
from .configuration import Configuration
from .exit_statuses import OK, UsageError


def report(call: Any) -> int:
    """Reads the store alone; the server may be down."""
    configuration, options = call.configuration(), call.options
    if options.whole_store:
        return _of_store(call, configuration)
    found = report_of(choose(configuration.store, options.operation, configuration.database))
    lines = story(found)
    if options.html:
        write_file(options.html, operation_page(found).encode())
    if options.junit:
        write_file(options.junit, junit(found).encode())
    call.output.result(found.to_json(), lines + _written(options))
    return OK


def _of_store(call: Any, configuration: Configuration) -> int:
    options = call.options
    if options.operation or options.junit:
        raise UsageError(
            "--whole-store reports no single operation", found="--operation or --junit", expected="one or the other"
        )
    found = store_report(configuration.store, policy_of(configuration.retention))
    if options.html:
        write_file(options.html, store_page(found).encode())
    call.output.result(found.to_json(), store_story(found) + _written(options))
    return OK


def _written(options: argparse.Namespace) -> "list[str]":
    paths = [path for path in (options.html, options.junit) if path]
    return ["", "Written: %s" % ", ".join(paths)] if paths else []


def arguments(parser: argparse.ArgumentParser) -> None:
    """Paths are those of the caller: the command itself works in another directory."""
    parser.add_argument("--operation", metavar="ID", help="the operation (default: the newest of this database)")
    parser.add_argument("--whole-store", action="store_true", help="all backups, drills and operations instead")
    parser.add_argument("--html", metavar="FILE", type=os.path.abspath, help="write the page; needs Jinja2")
    parser.add_argument("--junit", metavar="FILE", type=os.path.abspath, help="write JUnit XML, for CI systems")
