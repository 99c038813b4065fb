# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""squawk's findings are reported by migration and line; output that cannot be parsed is an error."""

from __future__ import annotations

import pathlib
import sys

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.lint import lint
from support.module_runner import run_module

SQUAWK = str(pathlib.Path(sys.executable).parent / "squawk")
SECOND = 'CREATE INDEX "i" ON "User"("x");\nDROP TABLE "Old";\n'
SCRIPTS = {"2_second": SECOND, "1_first": 'ALTER TABLE "User" ADD COLUMN "x" TEXT;\n'}


def found(**keywords):
    return [(one["migration"], one["line"], one["rule"]) for one in lint(SCRIPTS, program=SQUAWK, **keywords)]


def test_findings_by_migration_and_line() -> None:
    assert found() == [("2_second", 1, "require-concurrent-index-creation"), ("2_second", 2, "ban-drop-table")]


def test_rules_can_be_left_out_and_brought_in() -> None:
    assert found(exclude=["ban-drop-table", "require-concurrent-index-creation"]) != []
    assert ("1_first", 1, "require-lock-timeout") in found(exclude=[])
    assert found(postgres_version="15.4") == found()


def test_no_sql_is_a_finding() -> None:
    (finding,) = lint({"x": "SELECT 1 FROM;"}, program=SQUAWK)
    assert (finding["rule"], finding["level"]) == ("syntax-error", "error")


def test_without_squawk_nothing_is_called_fine() -> None:
    with pytest.raises(Refused, match="squawk is not installed") as refused:
        lint(SCRIPTS, program="no-such-squawk")
    assert "squawk-cli" in (refused.value.hint or "")


def test_a_program_that_says_something_else_is_an_error(tmp_path) -> None:
    program = tmp_path / "squawk"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho 'unknown flag' >&2\nexit 1\n", encoding="utf-8")
    program.chmod(0o755)
    with pytest.raises(BackstopError, match="returned no findings for migration 1_first") as error:
        lint(SCRIPTS, program=str(program))
    assert "unknown flag" in error.value.found


def test_the_module_tells_what_stops(tmp_path) -> None:
    given = {"migrations": SCRIPTS, "program": SQUAWK, "names": ["2_second"], "stop": ["ban-drop-table"]}

    def asked(**changed):
        return run_module(tmp_path, "prisma_migrate_lint", {**given, **changed})

    result = asked().result
    assert not result["passed"] and len(result["story"]) == 2
    assert result["stopping"] == ["2_second line 2 (ban-drop-table)"]
    assert result["story"][1] == "2_second line 2 (ban-drop-table): Dropping a table may break existing clients."
    assert asked(stop=[]).result["passed"]
    refused = asked(names=["3_third"])
    assert refused.failed and "There is no such migration" in refused.result["msg"]
