# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command behind demo.sh: its arguments, its output, its refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from demo import inventory
from demo.command import parse
from demo.places import CHECKOUT


@pytest.mark.parametrize(
    ("words", "command", "rows"),
    [
        ([], None, None),
        (["--rows", "7"], None, 7),
        (["up"], "up", None),
        (["up", "--rows", "7"], "up", 7),
        (["--rows", "7", "up"], "up", 7),
        (["stop"], "stop", None),
    ],
)
def test_the_number_of_rows_may_stand_anywhere(words: list[str], command: str | None, rows: int | None) -> None:
    options = parse(words)
    assert (options.command, options.rows) == (command, rows)


def test_all_that_follows_a_playbook_is_for_ansible() -> None:
    options = parse(["run", "deploy.yml", "--check", "-e", "a=b", "--help"])
    assert options.playbook == "deploy.yml"
    assert options.arguments == ["--check", "-e", "a=b", "--help"]


@pytest.mark.parametrize("rows", ["0", "-1", "1.5", "many", "99999999999"])
def test_a_number_of_rows_that_is_none_is_refused(rows: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--rows", rows])
    assert "is not a number from 1 to 10000000" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["text", "a: b # 'c' \"d\" ü \\ {{ x }}", 7, True, None, ["a", "b"], {}])
def test_what_is_written_as_yaml_is_read_as_it_was(value: object) -> None:
    settings = {"first": value, "second": {"inner": value}}
    assert yaml.safe_load(inventory.as_yaml(settings)) == settings


def demo(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, BACKSTOP_DEMO_DIRECTORY=str(tmp_path / "demo"), PYTHON=sys.executable)
    argv = ["bash", str(CHECKOUT / "demo.sh"), *words]
    return subprocess.run(argv, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)


@pytest.mark.parametrize("words", [("run", "deploy_receiptdata.yml"), ("env",)])
def test_before_the_demo_is_prepared_it_says_how_to_prepare_it(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = demo(tmp_path, *words)
    assert done.returncode == 1
    assert "run ./demo.sh up" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "demo").exists()


def test_status_stop_and_clean_of_nothing_do_nothing(tmp_path: Path) -> None:
    assert "No demo" in demo(tmp_path, "status").stdout
    for word in ("stop", "clean"):
        done = demo(tmp_path, word)
        assert done.returncode == 0, done.stderr
    assert not (tmp_path / "demo").exists()


def test_a_demo_that_was_moved_is_told(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "state.json").write_text('{"checkout": "/elsewhere"}')
    done = demo(tmp_path, "up")
    assert done.returncode == 1
    assert "made in another place" in done.stderr
    assert "/elsewhere" in done.stderr
    assert "Traceback" not in done.stderr
