# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that survive a crash and that only their owner can read; locks that end with their process."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import subprocess
import sys
import threading

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import durable_files
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import (
    BackstopError,
    Locked,
    Refused,
)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def open_umask():
    old = os.umask(0)
    yield
    os.umask(old)


def test_files_and_directories_are_private(tmp_path, open_umask):
    folder, path = tmp_path / "a" / "b", tmp_path / "a" / "b" / "file"
    durable_files.make_private_directory(str(folder))
    durable_files.write_json(str(path), {"x": "电"})
    assert [mode(tmp_path / "a"), mode(folder), mode(path)] == [0o700, 0o700, 0o600]
    assert durable_files.read_json(str(path), "thing") == {"x": "电"}
    assert os.listdir(folder) == ["file"]


def test_a_directory_that_is_there_keeps_its_mode(tmp_path):
    tmp_path.chmod(0o755)
    durable_files.make_private_directory(str(tmp_path))
    assert mode(tmp_path) == 0o755


def test_writing_replaces_whole_files(tmp_path):
    path = tmp_path / "file"
    durable_files.write_file(str(path), b"long old content")
    with open(path, "rb") as reader:
        durable_files.write_file(str(path), b"new")
        assert reader.read() == b"long old content"
    assert path.read_bytes() == b"new"


WRITER = """
import sys
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import write_file
number = 0
while True:
    number += 1
    write_file(sys.argv[1], (b"%d " % (number % 10)) * 20000)
"""


@pytest.mark.fault("backup", "a writer of a file killed", by="a file under another name, renamed when whole")
def test_a_killed_writer_leaves_a_whole_file(tmp_path):
    path = tmp_path / "file"
    for _run in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)]) as process:
            while not path.exists():
                pass
            first = path.read_bytes()
            while path.read_bytes() == first:
                pass
            process.kill()
        words = path.read_bytes().split()
        assert len(words) == 20000 and len(set(words)) == 1


def test_what_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    for act in (
        lambda: durable_files.write_file(str(tmp_path / "file" / "below"), b""),
        lambda: durable_files.make_private_directory(str(tmp_path / "file" / "below")),
        lambda: FileLock(str(tmp_path / "nowhere" / "lock")).acquire(),
        lambda: durable_files.read_tree(str(tmp_path / "nowhere")),
    ):
        with pytest.raises(BackstopError) as caught:
            act()
        assert str(tmp_path) in caught.value.found
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_reading_what_is_not_there_or_not_json(tmp_path):
    with pytest.raises(Refused, match="The journal is missing"):
        durable_files.read_json(str(tmp_path / "none"), "journal")
    (tmp_path / "bad").write_bytes(b"\xff{")
    with pytest.raises(BackstopError, match="The journal cannot be read"):
        durable_files.read_json(str(tmp_path / "bad"), "journal")


def test_publishing_never_replaces(tmp_path):
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / "file").write_text("x")
    durable_files.publish_directory(str(tmp_path / "partial"), str(tmp_path / "final"))
    assert (tmp_path / "final" / "file").exists() and not (tmp_path / "partial").exists()
    for other in ("empty", "link"):
        (tmp_path / "partial").mkdir(exist_ok=True)
        if other == "empty":
            (tmp_path / other).mkdir()
        else:
            (tmp_path / other).symlink_to("nowhere")
        with pytest.raises(Refused, match="Nothing is overwritten"):
            durable_files.publish_directory(str(tmp_path / "partial"), str(tmp_path / other))


def test_a_tree_is_read_by_relative_path(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.sql").write_bytes(b"1")
    (tmp_path / "c").write_bytes(b"2")
    assert durable_files.read_tree(str(tmp_path)) == {"a/b.sql": b"1", "c": b"2"}


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 1000000)
    known = subprocess.run(["sha256sum", tmp_path / "file"], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert durable_files.sha256_of(str(tmp_path / "file")) == known.split()[0]


HOLDER = """
import sys
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.durable_files import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    argv = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_a_lock_that_another_process_holds(tmp_path, holder):
    path = str(tmp_path / "lock")
    assert not FileLock.is_free(path)
    with pytest.raises(Locked, match="Another process holds") as caught:
        FileLock(path).acquire()
    assert path in caught.value.found
    with pytest.raises(Locked):
        FileLock(path).acquire(0.2)
    holder.kill()
    holder.wait()
    assert FileLock.is_free(path)
    with FileLock(path).held() as lock:
        assert lock.fileno() == lock.descriptor and not FileLock.is_free(path)
    assert FileLock.is_free(path)
    with pytest.raises(ValueError):
        lock.fileno()


def test_a_lock_waits_for_its_holder(tmp_path, holder):
    threading.Timer(0.3, holder.kill).start()
    with FileLock(str(tmp_path / "lock")).held(20):
        assert holder.wait() != 0


def test_a_lock_that_a_child_got_is_held_until_the_child_ends(tmp_path):
    path = str(tmp_path / "lock")
    lock = FileLock(path)
    descriptor = lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
    lock.release()
    assert not FileLock.is_free(path)
    child.communicate(b"\n")
    assert FileLock.is_free(path)


def test_no_lock_file_is_a_free_lock(tmp_path):
    assert FileLock.is_free(str(tmp_path / "none")) and not (tmp_path / "none").exists()


def test_errors_of_the_file_system_have_hints(tmp_path):
    error = durable_files.file_error("It failed", str(tmp_path), OSError(28, "No space left on device"))
    assert "free some space" in error.hint and "No space left on device" in error.found
    assert json.dumps(error.details) == "{}" and pathlib.Path(tmp_path).exists()
