# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs: status checked, secrets hidden, nothing left running."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError, Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.processes import (
    HIDDEN,
    Running,
    child_environment,
    describe_failure,
    find_program,
    redact,
    run,
    signals_as_errors,
    signals_deferred,
)

PYTHON = [sys.executable, "-c"]


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this did not happen"
        time.sleep(0.01)


def gone(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()[0] == "Z"
    return True


def test_output_status_and_input():
    done = run([*PYTHON, "import sys; print(sys.stdin.read()); sys.stderr.write('e'); sys.exit(3)"], data="电".encode())
    assert (done.stdout, done.stderr, done.status) == ("电\n", "e", 3) and done.output == "电\n".encode()


def test_a_status_that_was_to_be_checked():
    with pytest.raises(BackstopError, match="It failed") as caught:
        run([*PYTHON, "import sys; print('why', file=sys.stderr); sys.exit(4)"], check="It failed")
    assert "ended with status 4: why" in caught.value.found
    with pytest.raises(BackstopError) as caught:
        run([*PYTHON, "import os; os.kill(os.getpid(), 9)"], check="It failed")
    assert "was killed by signal 9" in caught.value.found


def test_a_program_that_is_not_there(tmp_path):
    for path in ("/nonexistent/program", str(tmp_path)):
        with pytest.raises(Refused, match="could not be started") as caught:
            run([path])
        assert path in caught.value.found


def test_much_output_on_both_streams():
    done = run([*PYTHON, "import sys\nfor _ in range(3000): print('o' * 100); print('e' * 100, file=sys.stderr)"])
    assert len(done.stdout) == len(done.stderr) == 303000


def test_secrets_show_nowhere_but_in_the_output_itself():
    done = run(
        [*PYTHON, "import os; print(os.environ['X']); os.write(2, os.environ['X'].encode())"],
        environment={"X": "s3cret"},
        secrets=["s3cret", ""],
    )
    assert done.stdout == HIDDEN + "\n" and done.stderr == HIDDEN and done.output == b"s3cret\n"
    with pytest.raises(BackstopError) as caught:
        run([*PYTHON, "import sys; sys.exit('it was s3cret')"], secrets=["s3cret"], check="It failed")
    assert "s3cret" not in str(caught.value) and HIDDEN in str(caught.value)


@pytest.mark.parametrize(
    "argument",
    ["postgresql://app:s3cret@host/db", "--password=s3cret", "password='s3cret' host=x", "PGPASSWORD=s3cret"],
)
def test_a_secret_in_an_argument_list_is_a_mistake_of_ours(argument):
    with pytest.raises(AssertionError):
        run(["true", argument], secrets=["s3cret"])


def test_a_password_that_is_a_common_word():
    assert run(["echo", "user='postgres' dbname='postgres'"], secrets=["postgres"]).status == 0
    url = "postgresql://postgres:postgres@h/postgres"
    with pytest.raises(AssertionError):
        run(["echo", url], secrets=[url])


def test_the_longest_secret_is_hidden_first():
    assert redact("abc abcdef", ["abc", "abcdef"]) == "%s %s" % (HIDDEN, HIDDEN)


def test_a_program_that_takes_too_long_is_ended_with_its_children(tmp_path):
    with pytest.raises(BackstopError, match="took too long") as caught:
        run(["sh", "-c", 'sleep 60 & echo $! > "$0"; wait', str(tmp_path / "pid")], timeout=1)
    assert "longer than 1 seconds" in caught.value.found
    child = int((tmp_path / "pid").read_text())
    until(lambda: gone(child))


def test_a_program_that_ignores_sigterm_is_killed():
    with Running(["sh", "-c", "trap '' TERM; echo x; while :; do sleep 1; done"]) as program:
        assert program.stdout.readline() == b"x\n"
        program.stop(grace_seconds=0.2)
        assert program.wait() == -signal.SIGKILL


def test_leaving_the_block_ends_the_program():
    with Running(["sleep", "60"]) as program:
        pid = program.process.pid
    assert gone(pid)


PARENT = """
import sys, time
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.processes import Running
program = Running(["sleep", "60"])
print(program.process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can promise it (prctl)")
def test_children_die_with_a_killed_parent():
    with subprocess.Popen([*PYTHON, PARENT], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    until(lambda: gone(child))


def test_environment_of_children(monkeypatch):
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("PGOPTIONS", "-c x=y")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    environment = child_environment({"PGPASSWORD": "x"})
    assert {key for key in environment if key.startswith("PG")} == {"PGPASSWORD"} and environment["LC_ALL"] == "C.UTF-8"


def test_files_of_children_are_private(tmp_path):
    run(["touch", str(tmp_path / "file")])
    assert os.stat(tmp_path / "file").st_mode & 0o777 == 0o600


def test_programs_are_found_in_the_given_folders_first(tmp_path):
    (tmp_path / "true").write_text("")
    assert find_program("true", [str(tmp_path)]) != str(tmp_path / "true")
    (tmp_path / "true").chmod(0o755)
    assert find_program("true", [str(tmp_path)]) == str(tmp_path / "true")
    assert find_program("no-such-program-here") is None


def test_a_failure_in_one_line():
    assert describe_failure("/usr/bin/x", 1, "a\n\n b \n") == "x ended with status 1: a | b"
    assert describe_failure("x", -15, "") == "x was killed by signal 15, without output"
    assert len(describe_failure("x", 1, "e" * 100000)) < 2100


def test_signals_become_errors_and_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(BackstopError, match="Interrupted") as caught, signals_as_errors():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert "signal 15" in caught.value.found and signal.getsignal(signal.SIGTERM) == before


def test_signals_wait_for_what_must_not_be_cut_off():
    done = []
    with pytest.raises(BackstopError, match="Interrupted") as caught, signals_as_errors():
        with contextlib.ExitStack() as outer:
            outer.enter_context(signals_deferred())
            with signals_deferred():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("inner")
            done.append("outer")
        done.append("never")
    assert done == ["inner", "outer"] and "signal 2" in caught.value.found


def test_an_error_of_what_was_not_cut_off_comes_first():
    with signals_as_errors(), pytest.raises(ValueError), signals_deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError
    with signals_as_errors(), signals_deferred():
        pass
