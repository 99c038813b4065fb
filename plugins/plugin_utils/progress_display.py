# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows the progress of a module while it runs, and what became of one whose connection was cut."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import json
import re
import shlex
import threading
import time
from typing import Any, Iterator, Optional

from ansible.plugins.loader import become_loader, connection_loader
from ansible.utils.display import Display
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.amounts import human_time
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import described

#: Seconds before the first line and between the next ones; later a tenth of the time so far, at most a minute.
FIRST_SECONDS = 5.0
LAST_SECONDS = 60.0
#: How long the end of a task may wait for a reading that hangs, in seconds.
_END_SECONDS = 2.0
#: Of a progress, in characters. It comes from the host.
_LONGEST_FILE = 4000
_LONGEST_LINE = 200


def read_command(path: str) -> str:
    """The shell command that reads a file. Only a leading "~user" is expanded, as it is in a module's path options."""
    found = re.match(r"~[A-Za-z0-9_.-]*/", path)
    home = found.group() if found else ""
    return "cat -- " + home + shlex.quote(path[len(home) :])


def line_of(text: str) -> Optional[str]:
    """The content of a progress file as one line; None if it cannot be read as progress."""
    try:
        line = described(json.loads(text[:_LONGEST_FILE]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return "".join(char for char in line if char.isprintable())[:_LONGEST_LINE]


class OwnConnection:
    """A second connection of a task to its host, as the same user."""

    def __init__(self, action: Any) -> None:
        context = copy.copy(action._play_context)
        first = action._connection
        connection = connection_loader.get(first.ansible_name, context, task_uuid=action._task._uuid)
        connection.set_options(direct=first.get_options())
        if first.become is not None:
            # A plugin of its own, because it remembers the prompt of its last command.
            become = become_loader.get(first.become.ansible_name)
            become.set_options(direct=first.become.get_options())
            connection.set_become_plugin(become)
        connection._shell.set_options(direct=first._shell.get_options())
        self._action = type(action)(
            task=action._task,
            connection=connection,
            play_context=context,
            loader=action._loader,
            templar=action._templar,
            shared_loader_obj=action._shared_loader_obj,
        )

    def read(self, path: str) -> Optional[str]:
        """The content of a file; None if it cannot be read."""
        found = self._action._low_level_execute_command(read_command(path))
        return str(found["stdout"]) if found["rc"] == 0 else None

    def close(self) -> None:
        self._action._connection.close()


class ProgressDisplay:
    """The progress of one task."""

    def __init__(self, action: Any, host: str, path: str) -> None:
        self._action, self._path = action, path
        delegate = action._task.delegate_to
        self._where = "%s -> %s" % (host, delegate) if delegate not in (None, host) else host
        self._name = str(action._task.action).rsplit(".", 1)[-1]
        self._ended = threading.Event()
        self._began = time.monotonic()
        #: the last line that was read
        self.last: Optional[str] = None

    @contextlib.contextmanager
    def shown(self) -> Iterator["ProgressDisplay"]:
        """Show the progress while the block runs."""
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(self._follow,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            thread.join(_END_SECONDS)

    def _follow(self) -> None:
        pause = FIRST_SECONDS
        # A host that cannot be asked a second time shows nothing; what the task comes to is not decided here.
        with contextlib.suppress(Exception):
            if self._ended.wait(pause):
                return
            connection = OwnConnection(self._action)
            try:
                while True:
                    self._show(connection.read(self._path))
                    pause = min(LAST_SECONDS, max(pause, (time.monotonic() - self._began) / 10))
                    if self._ended.wait(pause):
                        return
            finally:
                connection.close()

    def _show(self, text: Optional[str]) -> None:
        line = line_of(text or "")
        # The module may have ended meanwhile.
        if line is None or self._ended.is_set():
            return
        self.last = line
        # Not on standard output, where some callbacks write JSON.
        shown = "[%s] %s, %s: %s" % (self._where, self._name, human_time(time.monotonic() - self._began), line)
        Display().display(shown, stderr=True)

    def after_cut(self, operation: Any) -> str:
        """What became of the module whose connection was cut; empty if it is not known to have begun.

        :param operation: id of the operation that it is a step of, if there is one
        """
        now = None
        try:
            connection = OwnConnection(self._action)
            try:
                now = line_of(connection.read(self._path) or "")
            finally:
                connection.close()
            state = "it has ended since" if now is None else "it is still running: %s" % now
        except Exception:
            state = "whether it still runs is not known"
        if now is None and self.last is None:
            return ""
        return "The connection was cut while %s was running; %s. %s." % (
            self._name,
            state,
            _AGAIN_WITH_OPERATION if operation else _AGAIN,
        )


#: What becomes of a module whose connection was cut: see store/lifecycle.py, wait_for_job().
_AGAIN_WITH_OPERATION = (
    "Run the same playbook again: it continues this operation, and first ends the module, or waits for it once it has"
    " begun to change the database"
)
_AGAIN = "Then run the same playbook again"
