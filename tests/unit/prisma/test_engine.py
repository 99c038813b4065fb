# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding the schema engine, and the guard that runs before it."""

from __future__ import annotations

import os
import subprocess

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.engine import (
    VARIABLE,
    find_engine,
    guarded,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.packages import find_package

URL, SHOWN = "postgresql://app:s%20'cret$x@h/d?a=b&c=d", "postgresql://app@h/d?a=b&c=d"


def program(path, text="#!/bin/sh\nexit 0\n", mode=0o755):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


def package(folder, name):
    """A package that is installed in a folder; its directory."""
    path = folder / "node_modules" / name
    path.mkdir(parents=True, exist_ok=True)
    (path / "package.json").write_text("{}")
    return path


def installed(tmp_path, name, mode=0o755):
    return program(package(tmp_path, "@prisma/engines") / name, mode=mode)


def engine_of(folder, environment=None):
    return find_engine(str(folder), str(folder / "node_modules" / "prisma"), environment or {})


def test_named_by_the_variable(tmp_path, monkeypatch):
    path = program(tmp_path / "my engine")
    assert engine_of(tmp_path, {VARIABLE: path}) == path
    assert engine_of(tmp_path, {VARIABLE: "my engine"}) == path
    monkeypatch.setenv(VARIABLE, path)
    assert engine_of(tmp_path) == path


def test_installed_with_the_packages(tmp_path):
    path = installed(tmp_path, "schema-engine-debian-openssl-3.0.x")
    installed(tmp_path, "schema-engine-debian-openssl-3.0.x.gz.sha256", 0o644)
    installed(tmp_path, "libquery_engine-debian-openssl-3.0.x.so.node")
    assert engine_of(tmp_path) == path


def test_packages_that_lie_elsewhere_and_are_linked(tmp_path):
    """As pnpm installs: Prisma's packages are next to the target of the link."""
    real = package(tmp_path / "node_modules" / ".pnpm" / "prisma@6.19.0", "prisma")
    path = installed(tmp_path / "node_modules" / ".pnpm" / "prisma@6.19.0", "schema-engine-debian-openssl-3.0.x")
    (tmp_path / "app" / "node_modules").mkdir(parents=True)
    (tmp_path / "app" / "node_modules" / "prisma").symlink_to(real)
    assert engine_of(tmp_path / "app") == path


def test_packages_of_a_folder_above(tmp_path):
    """As npm installs in a monorepo; the nearest folder is used first."""
    project = tmp_path / "packages" / "database"
    project.mkdir(parents=True)
    assert find_package(str(project), "prisma") is None
    above = package(tmp_path, "prisma")
    assert find_package(str(project), "prisma") == str(above)
    assert find_package(str(above), "prisma") == str(above), "no node_modules in node_modules is looked for"
    nearer = package(project, "prisma")
    assert find_package(str(project), "prisma") == str(nearer)


def test_not_installed_or_not_told_apart(tmp_path):
    with pytest.raises(Refused, match="not installed.*npx prisma version"):
        engine_of(tmp_path)
    installed(tmp_path, "schema-engine-debian-openssl-3.0.x")
    installed(tmp_path, "schema-engine-rhel-openssl-3.0.x")
    with pytest.raises(Refused, match="one engine"):
        engine_of(tmp_path)


@pytest.mark.parametrize("make", [lambda path: None, os.mkdir, lambda path: program(path, mode=0o644)])
def test_named_and_no_program(tmp_path, make):
    make(tmp_path / "engine")
    with pytest.raises(Refused, match="cannot be run"):
        engine_of(tmp_path, {VARIABLE: str(tmp_path / "engine")})


def test_the_guard_hands_the_url_to_the_engine_only(tmp_path):
    engine = program(tmp_path / "the 'engine", '#!/bin/sh\nenv; printf "<%s>" "$@"\n')
    with guarded(engine, URL, ["DATABASE_URL", "DIRECT_URL"], SHOWN) as guard:
        variables, path = guard.variables, guard.variables[VARIABLE]
        assert variables["DATABASE_URL"] == variables["DIRECT_URL"] == SHOWN
        with open(path, encoding="utf-8") as stream:
            assert "cret" not in stream.read()
        assert os.stat(path).st_mode & 0o777 == 0o700 and os.stat(os.path.dirname(path)).st_mode & 0o777 == 0o700
        answer = subprocess.run(
            [path, "--datamodels", "a b", "$HOME"],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout.decode()
        lines = answer.splitlines()
        assert "DATABASE_URL=" + URL in lines and "DIRECT_URL=" + URL in lines
        assert answer.endswith("<--datamodels><a b><$HOME>")
        assert answer.count("cret") == 2
        for words in (["cli", "--datasource", SHOWN], ["--datasource", '{"url":"%s"}' % SHOWN, "cli"]):
            asked = [path, *words, "can-connect-to-database"]
            ended = subprocess.run(asked, env={**os.environ, **variables}, stdout=subprocess.PIPE, check=True)
            assert ended.stdout == b""
    assert not os.path.exists(os.path.dirname(path))


def test_the_exit_status_is_the_engines(tmp_path):
    engine = program(tmp_path / "engine", "#!/bin/sh\nexit 101\n")
    with guarded(engine, URL, ["DATABASE_URL"], SHOWN) as guard:
        environment = {**os.environ, **guard.variables}
        assert subprocess.run([guard.variables[VARIABLE]], env=environment, check=False).returncode == 101


@pytest.mark.parametrize("name", ["A;id", "A B", "", "1A", "A$(id)"])
def test_a_variable_that_a_shell_would_not_take(name):
    with pytest.raises(Refused, match="invalid name"), guarded("/bin/true", URL, ["DATABASE_URL", name], SHOWN):
        raise AssertionError("not reached")
