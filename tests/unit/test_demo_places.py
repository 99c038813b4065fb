# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's paths, and its small files."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from demo import ports, private_files
from demo.places import Places
from demo.programs import DemoError
from demo.state import State


def test_pm2_lives_in_the_demo_unless_its_sockets_would_be_too_long(tmp_path: Path) -> None:
    assert Places(Path("/srv/demo")).pm2_home == Path("/srv/demo/pm2-home")
    for length in range(60, 120):
        directory = Path("/" + "d" * (length - 1))
        home = Places(directory).pm2_home
        assert len(os.fsencode(home / "interactor.sock")) <= 107
        assert home.is_relative_to(directory) == (length + len("/pm2-home/interactor.sock") <= 107)


@pytest.mark.parametrize("name", ["with space", "a#b", "a?b"])
def test_pm2_never_lives_in_a_path_that_it_misreads(name: str) -> None:
    assert Places(Path("/srv") / name).pm2_home.parent == Path("/var/tmp")


def test_two_demos_have_two_names() -> None:
    deep = [Places(Path("/" + "d" * 120 + name)) for name in ("/one", "/two")]
    assert deep[0].pm2_home != deep[1].pm2_home


@pytest.mark.parametrize("sign", list("'\"\\\n\t:;,%{$`"))
def test_a_path_that_could_be_misread_is_refused(sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSTOP_DEMO_DIRECTORY", f"/srv/it{sign}s/demo")
    with pytest.raises(DemoError, match="cannot work in a path with"):
        Places.here()


def test_a_private_file_is_private_from_its_first_moment(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secrets"
    old = os.umask(0)
    try:
        assert private_files.write(path, "one")
        assert path.stat().st_mode & 0o777 == 0o600
        assert not private_files.write(path, "one")
        path.chmod(0o644)
        assert private_files.write(path, "one")
        assert path.stat().st_mode & 0o777 == 0o600
        assert private_files.write(path, "two")
    finally:
        os.umask(old)
    assert path.read_text() == "two"
    assert [entry.name for entry in path.parent.iterdir()] == ["secrets"]


def test_the_state_survives_and_a_broken_one_is_told(tmp_path: Path) -> None:
    places = Places(tmp_path)
    State(places).set("rows", 7)
    assert State(places).number("rows") == 7
    assert State(places).number("port") is None
    places.state_file.write_text("{")
    with pytest.raises(DemoError, match="state cannot be read"):
        State(places)


def test_a_port_in_use_is_not_chosen() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports.choose()))
        server.listen()
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.choose() != port
    assert ports.is_free(port)


def test_a_port_is_chosen_below_those_that_the_system_gives_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: port in (20000, 29999))
    assert ports.choose() in (20000, 29999)
    assert ports.choose([20000]) == 29999
    with pytest.raises(DemoError, match="No free port"):
        ports.choose([20000, 29999])
