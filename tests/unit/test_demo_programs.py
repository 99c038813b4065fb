# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs that the demo runs, and those that it finds on the machine."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
from demo import node_tools, postgres_server, virtual_environment
from demo.programs import DemoError, clean_environment, run


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def test_a_failure_tells_the_end_of_what_the_program_said(tmp_path: Path) -> None:
    script = program(tmp_path / "noisy", "seq 1 100; seq 101 200 >&2; exit 3")
    with pytest.raises(DemoError) as error:
        run([script], what="It did not work", do="try again")
    lines = str(error.value).splitlines()
    assert lines[0] == "It did not work"
    assert "noisy ended with status 3: 186" in lines[1]
    assert lines[-2].strip() == "200"
    assert lines[-1] == "  What to do: try again"
    assert run([script], what="", accept=(3,)).returncode == 3


def test_a_program_that_is_missing_or_too_slow_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="No such file"):
        run([tmp_path / "nothing"], what="It did not work")
    with pytest.raises(DemoError, match="took longer than 0.2 s"):
        run([program(tmp_path / "slow", "exec sleep 30")], what="It did not work", timeout=0.2)


def test_settings_that_would_lead_psql_elsewhere_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    assert "PGHOST" not in clean_environment()
    assert clean_environment()["LANG"] == "C.UTF-8"
    assert clean_environment({"PGHOST": "here"})["PGHOST"] == "here"


# Node


def make_node(folder: Path, version: str, npm: str = "echo 10.0.0") -> Path:
    program(folder / "node", f"echo v{version}")
    program(folder / "npm", npm)
    program(folder / "npx", "exit 0")
    return folder


@pytest.mark.parametrize(
    ("version", "npm", "good"),
    [("18.18.0", "exit 0", True), ("24.1.0", "exit 0", True), ("18.17.1", "exit 0", False), ("20.1.0", "false", False)],
)
def test_a_node_must_be_new_enough_and_its_npm_must_run(tmp_path: Path, version: str, npm: str, good: bool) -> None:
    assert (node_tools.node_in(make_node(tmp_path, version, npm)) is not None) == good


def test_a_node_without_npm_is_none(tmp_path: Path) -> None:
    make_node(tmp_path, "20.0.0")
    (tmp_path / "npx").unlink()
    assert node_tools.node_in(tmp_path) is None


def test_a_chosen_node_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(node_tools.CHOICE, str(tmp_path))
    with pytest.raises(DemoError, match="names no Node with npm"):
        node_tools.find_node(tmp_path)


def test_the_node_of_the_machine_is_the_first_in_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_node(tmp_path, "20.1.2")
    monkeypatch.delenv(node_tools.CHOICE, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert node_tools.find_node(tmp_path / "wheel") == node_tools.Node(tmp_path, (20, 1, 2))
    assert not node_tools.wheel_is_needed()
    monkeypatch.setenv(node_tools.CHOICE, "wheel")
    assert node_tools.wheel_is_needed()


def test_the_choice_of_the_engine_is_obeyed_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for choice, native in (("native", True), ("stand-in", False)):
        monkeypatch.setenv(node_tools.ENGINE_CHOICE, choice)
        assert node_tools.native_engine_can_be_had() is native
    monkeypatch.setenv(node_tools.ENGINE_CHOICE, "other")
    with pytest.raises(DemoError, match="not understood"):
        node_tools.native_engine_can_be_had()
    monkeypatch.delenv(node_tools.ENGINE_CHOICE)
    monkeypatch.setenv("PRISMA_ENGINES_MIRROR", "http://127.0.0.1:1")
    assert node_tools.native_engine_can_be_had() is False


def test_a_project_is_another_when_any_of_its_files_is(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "a.js").write_text("1")
    before = node_tools.fingerprint(tmp_path)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "b.js").write_text("2")
    assert node_tools.fingerprint(tmp_path) == before
    (tmp_path / "lib" / "a.js").write_text("2")
    assert node_tools.fingerprint(tmp_path) != before


# PostgreSQL


def make_server(folder: Path, major: int, without: str = "") -> Path:
    for name in postgres_server.PROGRAMS:
        if name != without:
            program(folder / name, f"echo '{name} (PostgreSQL) {major}.2 (Distribution {major}.2-0)'")
    return folder


def test_programs_of_a_server_must_be_complete_and_run(tmp_path: Path) -> None:
    assert postgres_server.major_of(make_server(tmp_path / "a", 16)) == 16
    assert postgres_server.major_of(make_server(tmp_path / "b", 16, without="pg_restore")) is None
    broken = make_server(tmp_path / "c", 16)
    program(broken / "postgres", "exit 127")
    assert postgres_server.major_of(broken) is None
    assert postgres_server.major_of(tmp_path / "nothing") is None


def test_the_newest_complete_server_of_the_machine_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [make_server(tmp_path / "17", 17, without="psql"), make_server(tmp_path / "15", 15)]
    folders += [make_server(tmp_path / "9", 9)]
    monkeypatch.setattr(postgres_server, "machine_folders", lambda: iter(folders))
    assert postgres_server.machine_bin_dir() == tmp_path / "15"
    monkeypatch.setattr(postgres_server, "machine_folders", lambda: iter(folders[2:]))
    assert postgres_server.machine_bin_dir() is None


def test_a_chosen_server_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(postgres_server.CHOICE, str(tmp_path))
    with pytest.raises(DemoError, match="names no complete PostgreSQL"):
        postgres_server.find_bin_dir(tmp_path)


def test_an_ordinary_user_keeps_the_server_where_it_was_asked_for(tmp_path: Path) -> None:
    assert postgres_server.place_for_server(tmp_path / "deep" / "er", None) == tmp_path / "deep" / "er"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another account")
def test_what_the_other_account_cannot_reach_is_put_elsewhere(tmp_path: Path) -> None:
    account = pwd.getpwnam("nobody")
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    place = postgres_server.place_for_server(hidden / "server", account)
    try:
        assert place == postgres_server.other_place(hidden / "server")
        assert postgres_server.reachable(place, account)
        assert postgres_server.place_for_server(hidden / "server", account) == place
        os.chown(place, account.pw_uid, -1)
        with pytest.raises(DemoError, match="belongs to another user"):
            postgres_server.place_for_server(hidden / "server", account)
    finally:
        place.rmdir()


# Python


def test_an_environment_whose_python_is_gone_does_not_work(tmp_path: Path) -> None:
    assert not virtual_environment.works(tmp_path)
    program(tmp_path / "bin" / "python", "echo 2 7")
    assert not virtual_environment.works(tmp_path)


def test_without_ensurepip_pip_and_apt_the_package_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DemoError, match="python3-venv"):
        virtual_environment.wheel_out_of_package(tmp_path)
