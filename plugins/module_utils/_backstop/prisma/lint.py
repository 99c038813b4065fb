# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Findings of squawk, a linter of PostgreSQL migrations: locks, rewrites, changes that break running clients."""

from __future__ import annotations

import json
import shutil
from typing import Any, Dict, List, Mapping, Optional, Sequence

from ..base.errors import BackstopError, Refused
from ..base.processes import run

#: Rules that do not apply here: a deploy sets the lock timeout, and cleans up when a migration fails part way through.
NOT_HERE = ("require-lock-timeout", "require-statement-timeout", "prefer-robust-stmts")
_SECONDS = 60


def lint(
    scripts: Mapping[str, str],
    *,
    program: str = "squawk",
    exclude: Sequence[str] = NOT_HERE,
    postgres_version: Optional[str] = None,
) -> List[Dict[str, Any]]:
    """Findings in the order of migrations and lines.

    :param scripts: name of the migration to its SQL
    :param postgres_version: of the server, such as "15.4"; without it squawk assumes one
    :raises Refused: squawk is not installed
    """
    path = shutil.which(program)
    if path is None:
        raise Refused(
            "squawk is not installed, so the migrations were not checked",
            found="no program %s" % program,
            hint="install it (pip install squawk-cli) and give its path, or switch the lint off",
        )
    argv = [path, "--reporter", "json", "--assume-in-transaction"]
    argv += ["--exclude=" + ",".join(exclude)] if exclude else []
    argv += ["--pg-version=" + postgres_version] if postgres_version else []
    return [finding for name in sorted(scripts) for finding in _lint_one(argv, name, scripts[name])]


def _lint_one(argv: Sequence[str], name: str, sql: str) -> List[Dict[str, Any]]:
    done = run([*argv, "--stdin-filepath", name], data=sql.encode(), timeout=_SECONDS)
    try:
        # Status 1 stands for findings and for failures alike.
        findings = json.loads(done.stdout)
        return [
            {
                "migration": name,
                "line": int(finding["line"]) + 1,
                "rule": str(finding["rule_name"]),
                "level": str(finding["level"]).lower(),
                "message": str(finding["message"]),
                "help": finding.get("help") or "",
            }
            for finding in findings
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise BackstopError(
            "squawk returned no findings for migration %s" % name,
            found="status %d: %s" % (done.status, (done.stderr or done.stdout).strip()[-300:] or "nothing"),
            hint="run it by hand; squawk 2 is expected",
        ) from error
