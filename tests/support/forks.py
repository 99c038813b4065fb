# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs a program many times, each time in a separate process that can be killed, and imports it only once.

A process imports the program's module and forks for each run; it does nothing else, so that all runs begin alike::

    with Forks("support.table_driver") as driver:
        done = driver.run(["restore", path], {"BACKSTOP_FAILPOINT": "table.locked"})
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from typing import Any, Callable, Dict, Mapping, NoReturn, Sequence

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import AnsibleWords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.processes import signals_as_errors
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import in_words_of

#: Seconds that a run may take.
PATIENCE = 120


class Forks:
    """A module whose ``main()`` returns the exit status."""

    def __init__(self, module: str) -> None:
        self._argv = [sys.executable, "-m", "support.forks", module]
        self._process: Any = None

    def __enter__(self) -> "Forks":
        self._process = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.stdin.close()
        self._process.wait(PATIENCE)
        self._process.stdout.close()

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
        """Like subprocess.run(): a negative status is the signal that killed it.

        :param environment: its environment variables in addition to ours
        """
        with tempfile.NamedTemporaryFile("w+") as output, tempfile.NamedTemporaryFile("w+") as errors:
            asked = {
                "arguments": list(arguments),
                "environment": {**os.environ, **environment},
                "output": output.name,
                "errors": errors.name,
            }
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise AssertionError("%s did not end: %s" % (arguments, errors.read()))
            status = int(self._process.stdout.readline())
            return subprocess.CompletedProcess(list(arguments), status, output.read(), errors.read())


def drive(act: Callable[[str, Dict[str, Any]], Dict[str, Any]]) -> int:
    """The ``main()`` of such a module: does what its first argument names, with the settings of a JSON file, and prints
    the result."""
    what, path = sys.argv[1:]
    with open(path, encoding="utf-8") as stream:
        given = json.load(stream)
    try:
        with signals_as_errors(), in_words_of(AnsibleWords()):
            print(json.dumps(act(what, given), default=str))
    except BackstopError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _act(module: Any, asked: Mapping[str, Any]) -> NoReturn:
    """In the fork: do what a new process would do."""
    os.environ.clear()
    os.environ.update(asked["environment"])
    for number, path in enumerate((os.devnull, asked["output"], asked["errors"])):
        descriptor = os.open(path, os.O_RDWR)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv = [module.__name__, *asked["arguments"]]
    status = 1
    try:
        status = module.main()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    module = importlib.import_module(sys.argv[1])
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _act(module, json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
