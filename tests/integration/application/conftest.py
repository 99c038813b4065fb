# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A git repository with a small application, real pm2, and a directory for releases."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import socket
import tempfile
import time
from typing import Iterator

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.pm2 import Pm2
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.system_processes import alive
from demo.node_tools import Node, find_node
from support.application_site import Repository, Site, cache_folder, exclusive, make_repository

PM2 = "pm2@6.0.13"


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> Repository:
    return make_repository(tmp_path / "repository")


@pytest.fixture(scope="session")
def node() -> Node:
    with exclusive("node"):
        return find_node(cache_folder() / "node")


@pytest.fixture(scope="session")
def pm2_executable(node: Node) -> pathlib.Path:
    folder = cache_folder() / PM2
    with exclusive(PM2):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "package.json").write_text("{}")
            node.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", PM2], cwd=folder)
            (folder / "complete").touch()
    return folder / "node_modules" / ".bin" / "pm2"


@pytest.fixture
def pm2_home() -> Iterator[pathlib.Path]:
    """A short path for pm2's sockets; its daemon is ended by its pid."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pm2-"))
    yield folder
    pid_file = folder / "pm2.pid"
    if pid_file.exists():
        pid = int(pid_file.read_text() or 0)
        if alive(pid):
            os.kill(pid, signal.SIGTERM)  # pm2 ends its applications before itself
        deadline = time.monotonic() + 20
        while alive(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def pm2(pm2_executable: pathlib.Path, pm2_home: pathlib.Path, node: Node) -> Iterator[Pm2]:
    made = Pm2(str(pm2_executable), str(pm2_home), str(node.bin_dir))
    yield made
    for name in ("tiny", "another"):
        made.delete(name)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def site(tmp_path: pathlib.Path, repository: Repository, node: Node, port: int) -> Site:
    made = Site(tmp_path / "srv", repository, node, port)
    made.write_environment()
    return made
