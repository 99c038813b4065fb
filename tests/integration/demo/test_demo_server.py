# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The private PostgreSQL server of demo and tests."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from demo import ports
from demo.postgres_server import Cluster
from demo.programs import DemoError, run
from demo.steps import wait_until

QUICK = {"fsync": "off"}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory whose cluster is removed whatever happens."""
    place = tmp_path / "cluster"
    yield place
    if (place / "cluster.json").exists():
        Cluster.open(place).destroy()


@pytest.fixture
def cluster(directory: Path) -> Cluster:
    made = Cluster.create(directory, options=QUICK)
    made.start()
    return made


def test_a_role_and_its_database_work_with_the_remembered_password(cluster: Cluster, directory: Path) -> None:
    cluster.create_role("app's", "LOGIN CREATEDB")
    cluster.create_database('the "shop"', owner="app's")
    again = Cluster.open(directory)
    assert again.sql("SELECT current_user, current_database()", 'the "shop"', "app's") == 'app\'s|the "shop"'
    assert again.url("x", "app's").startswith("postgresql://app%27s:")
    assert again.sql("SELECT rolsuper, rolcreatedb FROM pg_roles WHERE rolname = 'app''s'") == "f|t"
    # Both calls can be repeated.
    password = cluster.password_of("app's")
    assert cluster.create_role("app's", "LOGIN") == password
    cluster.create_database('the "shop"')


def test_a_wrong_password_is_refused(cluster: Cluster) -> None:
    argv = [cluster.bin_dir / "psql", "-X", "-c", "SELECT 1"]
    environment = {**cluster.environment(), "PGPASSWORD": "wrong"}
    with pytest.raises(DemoError, match="password authentication failed"):
        run(argv, what="no", environment=environment, cwd="/")


def test_it_listens_on_the_loopback_interface_only(cluster: Cluster) -> None:
    assert cluster.sql("SHOW listen_addresses") == "127.0.0.1"
    assert cluster.sql("SHOW unix_socket_directories") == ""
    assert cluster.sql("SHOW fsync") == "off"
    assert not ports.is_free(cluster.port)


def test_settings_and_passwords_are_for_their_owner_only(cluster: Cluster, directory: Path) -> None:
    assert (directory / "cluster.json").stat().st_mode & 0o777 == 0o600
    assert cluster.data.stat().st_mode & 0o777 == 0o700
    names = {path.name for path in [*directory.iterdir(), *cluster.home.iterdir()]}
    assert names == {"cluster.json", "data", "log"}


def test_a_cluster_is_not_made_over_another(cluster: Cluster, directory: Path) -> None:
    with pytest.raises(DemoError, match="There is a cluster already"):
        Cluster.create(directory)
    assert cluster.sql("SELECT 1") == "1"


def test_what_an_interrupted_creation_left_is_made_anew(directory: Path) -> None:
    first = Cluster.create(directory, options=QUICK)
    (directory / "cluster.json").unlink()
    (first.data / "PG_VERSION").unlink()
    second = Cluster.create(directory, options=QUICK)
    second.start()
    assert second.sql("SELECT 1") == "1"


def test_a_port_that_was_taken_meanwhile_is_exchanged(directory: Path) -> None:
    made = Cluster.create(directory, options=QUICK)
    wanted = made.port
    with socket.socket() as other:
        other.bind(("127.0.0.1", wanted))
        other.listen()
        made.start()
    assert made.port != wanted
    assert Cluster.open(directory).port == made.port
    assert made.sql("SHOW port") == str(made.port)


def test_a_port_that_was_asked_for_is_never_exchanged(directory: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports.choose()))
        other.listen()
        made = Cluster.create(directory, port=other.getsockname()[1], options=QUICK)
        with pytest.raises(DemoError, match="Address already in use"):
            made.start()
    made.start()
    assert made.port == int(made.sql("SHOW port"))


def test_starting_and_stopping_twice_changes_nothing(cluster: Cluster) -> None:
    since = cluster.sql("SELECT pg_postmaster_start_time()")
    cluster.start()
    assert cluster.sql("SELECT pg_postmaster_start_time()") == since
    cluster.stop()
    cluster.stop()
    assert not cluster.running()
    assert ports.is_free(cluster.port)


def test_it_starts_again_after_its_processes_were_killed(cluster: Cluster) -> None:
    cluster.create_database("kept")
    os.kill(int((cluster.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    wait_until(lambda: not cluster.running(), 20, lambda: DemoError("the server lives"))
    cluster.start()
    assert cluster.sql("SELECT count(*) FROM pg_database WHERE datname = 'kept'") == "1"


def test_a_killed_server_that_nobody_reaped_is_not_taken_for_a_running_one(directory: Path) -> None:
    subreaper = 36  # PR_SET_CHILD_SUBREAPER: the server becomes our child and stays in the process table until reaped
    libc = ctypes.CDLL(None)
    assert libc.prctl(subreaper, 1) == 0
    try:
        made = Cluster.create(directory, options=QUICK)
        made.start()
        pid = int((made.data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.kill(pid, 0)
        assert not made.running()
        reaper = threading.Timer(1, lambda: os.waitpid(pid, 0))
        reaper.start()
        made.start()
        reaper.join()
        assert made.sql("SELECT 1") == "1"
        made.destroy()
    finally:
        libc.prctl(subreaper, 0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def test_a_setting_that_the_server_refuses_is_told(directory: Path) -> None:
    made = Cluster.create(directory, options={"work_mem": "much"})
    with pytest.raises(DemoError, match="work_mem"):
        made.start()


def test_nothing_is_left_of_a_destroyed_cluster(cluster: Cluster, directory: Path) -> None:
    home, port = cluster.home, cluster.port
    cluster.destroy()
    assert not directory.exists()
    assert not home.exists()
    assert ports.is_free(port)


def test_a_cluster_that_moved_with_its_directory_is_found(tmp_path: Path) -> None:
    made = Cluster.create(tmp_path / "old", options=QUICK)
    made.start()
    moves_along = made.home == tmp_path / "old"
    (tmp_path / "old").rename(tmp_path / "new")
    moved = Cluster.open(tmp_path / "new")
    try:
        assert moved.running()
        assert (moved.home == tmp_path / "new") == moves_along
    finally:
        moved.destroy()
    assert not (tmp_path / "new").exists()
