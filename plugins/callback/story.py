# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Shows the steps of this collection's roles in one line each, and every other task as the default callback does."""

from __future__ import annotations

DOCUMENTATION = r"""
name: story
type: stdout
short_description: Short output for the playbooks of this collection
version_added: "0.1.0"
description:
  - Shows each step of the roles of this collection in one line with its duration, and below it what its module has to say. Facts that the roles compute,
    checks that passed, includes and skipped tasks of these roles are hidden.
  - A failure of these roles is shown in full once, after the recap, where the last thing that was said stands too.
  - Tasks of other roles and playbooks, also those that run as hooks of the role P(backstop.postgres.deploy#role), are shown as
    P(ansible.builtin.default#callback) shows them. With C(-v) it shows every task so.
  - Set it by the environment variable C(ANSIBLE_STDOUT_CALLBACK=backstop.postgres.story). As a setting of C(ansible.cfg) it breaks every run
    that does not find this collection.
author:
  - The backstop.postgres contributors (@backstop)
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - set as stdout in configuration
seealso:
  - plugin: ansible.builtin.default
    plugin_type: callback
"""

import collections
import dataclasses
import os
import re
import shutil
import sys
import textwrap
import time
from typing import Any, Counter, Dict, Iterator, List, Optional, Sequence, Set

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as DefaultCallback

COLLECTION = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
PREFIX = "backstop.postgres."
#: What the roles do for themselves: shown only where it fails or changes something in a way that a user asked for.
INTERNAL = {
    "add_host", "assert", "fail", "group_by", "import_role", "import_tasks", "include_role", "include_tasks", "include_vars", "meta",
    "ping", "set_fact", "stat", "validate_argument_spec", PREFIX + "check_variables",
}  # fmt: skip
#: Actions that take no time, after which the last text still stands last.
BRIEF = INTERNAL | {"debug"}
#: The width where there is no terminal to ask, and the narrowest that lines are fitted to.
WIDTH = 100
NARROWEST = 30
INDENT = "    "
#: A command to copy, which must not be broken.
_COMMAND = re.compile(r"(?:^|(?<=[\s(]))(?:\./demo\.sh|ansible-playbook|backstop) (?=\S)")
#: How Ansible refuses a variable of the user that a module of ours was given.
_WRONG_ARGUMENTS = ("Unsupported parameters for ", "missing required arguments", "argument '", "value of ")
_SENTENCES = re.compile(r"(?<=[a-z0-9)\]'\"][.!?])\s+(?=[A-Z])")


@dataclasses.dataclass
class _Step:
    """A task of ours that began."""

    name: str
    began: float
    ended: float = 0.0
    #: host as shown, and its state, of those that ended and were not shown yet
    hosts: Dict[str, str] = dataclasses.field(default_factory=dict)
    #: those that were shown
    shown: Set[str] = dataclasses.field(default_factory=set)
    started: int = 0


@dataclasses.dataclass(frozen=True)
class _Failure:
    """A failure of ours."""

    host: str
    step: str
    message: str
    #: a rescue follows
    rescued: bool
    #: all of the message was shown when it happened
    shown: bool


class CallbackModule(DefaultCallback):
    """The default callback for other people's tasks, a short story for ours."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "backstop.postgres.story"

    def __init__(self) -> None:
        super().__init__()
        self._steps: Dict[str, _Step] = {}
        self._unrepeated: Counter[str] = collections.Counter()  # shown, and not yet repeated by a debug
        self._held: List[str] = []  # the last text, until it is known whether another follows
        self._failures: List[_Failure] = []
        self._apart = False  # a task of another role or playbook came last

    # Whose task it is

    def _is_ours(self, task: Any) -> bool:
        """Decided by the file that the task was read from: a user's hook runs inside our roles too."""
        if self._display.verbosity:
            return False
        role = getattr(task, "_role", None)
        path = os.path.realpath((task.get_path() or "").rpartition(":")[0])
        if _action(task) == "validate_argument_spec":  # Ansible makes this task for a role; no file has it
            return role is not None and _within(os.path.realpath(role._role_path), "roles")
        if _within(path, "roles"):
            return True
        return role is None and os.path.dirname(path) == os.path.join(COLLECTION, "playbooks")

    # Steps

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        if self._begin(task):
            super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        if self._begin(task):
            super().v2_playbook_on_handler_task_start(task)

    def v2_playbook_on_cleanup_task_start(self, task: Any) -> None:
        if self._begin(task):
            super().v2_playbook_on_cleanup_task_start(task)

    def _begin(self, task: Any) -> bool:
        """End the steps before this task; return whether the default callback announces it."""
        self._show_steps()
        ours = self._is_ours(task)
        if not ours or _action(task) not in BRIEF:
            self._release()
        if ours:
            self._steps[task._uuid] = _Step(task.name or task.get_name(), time.monotonic())
        return not ours

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        if task._uuid in self._steps:
            self._steps[task._uuid].started += 1
        super().v2_runner_on_start(host, task)

    def _note(self, result: Any, state: str) -> None:
        """A host has ended this step; the line follows when the step has ended."""
        step = self._steps.setdefault(result.task._uuid, _Step(result.task.name, time.monotonic()))
        if self.host_label(result) not in step.shown:  # above its diff, for instance
            step.ended = time.monotonic()
            step.hosts[self.host_label(result)] = state

    def _show_steps(self) -> None:
        for step in self._steps.values():
            if not step.hosts:
                continue
            self._release()
            self._keep_apart()
            by_state: Dict[str, List[str]] = {}
            for host, state in step.hosts.items():
                by_state.setdefault(state, []).append(host)
            for state, hosts in by_state.items():
                where = " [%s]" % ", ".join(hosts) if step.started > 1 or " -> " in hosts[0] else ""
                self._line(step, state, where)
            step.shown.update(step.hosts)
            step.hosts.clear()

    def _line(self, step: _Step, state: str, where: str) -> None:
        text = "%7.1f s  %-7s  %s%s" % (step.ended - step.began, state, step.name, where)
        colour = {"changed": C.COLOR_CHANGED, "ok": C.COLOR_OK}.get(state, C.COLOR_ERROR)
        for line in _fitted(text, _width(), ""):
            self._display.display(line, color=colour)

    def _keep_apart(self) -> None:
        if self._apart:
            self._display.display("")
        self._apart = False

    # Texts

    def _say(self, lines: Sequence[str]) -> None:
        """Hold a text until another follows: the last one stands after the recap. Hosts that say the same do it once."""
        self._show_steps()
        said = [line for line in lines if line.strip()]
        if said != self._held:
            self._release()
        self._held = said

    def _release(self, indent: str = INDENT) -> None:
        held, self._held = self._held, []
        if held:
            self._keep_apart()
        for text in held:
            for line in _fitted(text, _width(), indent):
                self._display.display(line)

    def _debug(self, result: Any) -> None:
        message = result.result.get("msg", "")
        lines = [str(line) for line in message] if isinstance(message, (list, tuple)) else str(message).splitlines()
        repeated = collections.Counter(lines) & self._unrepeated
        self._unrepeated -= repeated
        if any(line not in repeated for line in lines):
            self._say([line for line in lines if line not in repeated])

    # Results

    def v2_runner_on_ok(self, result: Any) -> None:
        if not self._is_ours(result.task):
            self._foreign(result.task)
            super().v2_runner_on_ok(result)
            return
        action = _action(result.task)
        if action == "debug" and "msg" in result.result:
            self._debug(result)
            return
        if not _is_internal(result.task) and not result.is_skipped():
            self._note(result, "changed" if result.result.get("changed") else "ok")
        self._show_warnings(result)
        story = result.result.get("story")
        if isinstance(story, (list, tuple)) and story:
            self._unrepeated.update(map(str, story))
            self._say([str(line) for line in story])

    def _show_warnings(self, result: Any) -> None:
        if result.result.get("warnings") or result.result.get("deprecations"):
            self._show_steps()
            sys.stdout.flush()  # warnings go to standard error, and both may be the same pipe
            self._handle_warnings(result.result)

    def _foreign(self, task: Any) -> None:
        self._show_steps()
        self._release()
        self._apart = True

    def _print_task_banner(self, task: Any) -> None:
        """Our step's line stands for the banner, for instance above a diff."""
        if self._is_ours(task):
            self._last_task_banner = task._uuid
            self._show_steps()
        else:
            self._foreign(task)
            super()._print_task_banner(task)

    def v2_runner_on_skipped(self, result: Any) -> None:
        if self._is_ours(result.task):
            self._show_warnings(result)
        else:
            super().v2_runner_on_skipped(result)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if not self._is_ours(included_file._task):
            super().v2_playbook_on_include(included_file)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if self._is_ours(result.task):
            self._show_warnings(result)
        else:
            super().v2_runner_item_on_ok(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if self._is_ours(result.task):
            self._show_warnings(result)
        else:
            super().v2_runner_item_on_skipped(result)

    def v2_on_file_diff(self, result: Any) -> None:
        if self._is_ours(result.task) and _has_diff(result.result):
            self._note(result, "changed")
            self._show_steps()
        super().v2_on_file_diff(result)

    # Failures

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not self._is_ours(result.task):
            self._foreign(result.task)
            super().v2_runner_on_failed(result, ignore_errors)
        elif self._is_expected(result):
            self._show_warnings(result)
            self._fail(result, str(result.result["msg"]), ignore_errors)
        else:  # a crash, or another collection's module: all that is known
            self._note(result, "FAILED")
            self._show_steps()
            self._last_task_banner = result.task._uuid
            super().v2_runner_on_failed(result, ignore_errors)
            self._apart = True
            if not ignore_errors:
                message = str(result.result.get("msg", ""))
                self._failures.append(_Failure(self.host_label(result), "", message, _has_rescue(result.task), True))

    def _is_expected(self, result: Any) -> bool:
        """Whether the message says it all: an error of this collection, or a check of its roles."""
        found, action = result.result, _action(result.task)
        if action.startswith(PREFIX) and str(found.get("msg")).startswith(_WRONG_ARGUMENTS):
            return True
        return "msg" in found and (action in ("assert", "fail") or "hint" in found or "roles" in found)

    def _fail(self, result: Any, message: str, ignored: bool, word: str = "FAILED") -> None:
        rescued = _has_rescue(result.task)
        final = _action(result.task) == "fail" and not rescued
        shown = False
        if not final:
            self._note(result, word + (", ignored" if ignored else ""))
            self._show_steps()
            self._apart = False
            if rescued or ignored:
                shown = self._show_start(message)
        if not ignored:
            name = result.task.name or result.task.get_name()
            self._failures.append(_Failure(self.host_label(result), name, message, rescued, shown))

    def _show_start(self, message: str) -> bool:
        """One line of the message, because what follows may take long; return whether that is all of it."""
        first = " ".join(message.split())
        room = max(_width() - len(INDENT), NARROWEST)
        text = first if len(first) <= room else first[: room - 4].rpartition(" ")[0] + " ..."
        self._display.display(INDENT + text, color=C.COLOR_ERROR, stderr=self.get_option("display_failed_stderr"))
        return text == first

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if not self._is_ours(result.task):
            self._foreign(result.task)
            super().v2_runner_on_unreachable(result)
            return
        self._show_warnings(result)
        message = str(result.result.get("msg", "it does not answer"))
        self._fail(result, message, bool(result.task.ignore_unreachable), "UNREACHABLE")

    def v2_runner_item_on_failed(self, result: Any) -> None:
        if self._is_ours(result.task):
            self._note(result, "FAILED")
            self._show_steps()
            self._last_task_banner = result.task._uuid
        super().v2_runner_item_on_failed(result)

    # The end

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._show_steps()
        self._release()
        super().v2_playbook_on_play_start(play)
        self._apart = False

    def v2_playbook_on_no_hosts_remaining(self) -> None:
        if not self._failures:
            super().v2_playbook_on_no_hosts_remaining()

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._show_steps()
        if self._failures:
            self._release()
        super().v2_playbook_on_stats(stats)
        self._show_failures(stats)
        self._release("")

    def _show_failures(self, stats: Any) -> None:
        """What ended the run, whole; of what was rescued before only what that does not repeat."""
        final = [failure for failure in self._failures if not failure.rescued]
        known = " ".join(" ".join(failure.message.split()) for failure in final)
        for failure in self._failures:
            message = " ".join(failure.message.split())
            if failure.shown or (failure.rescued and _core(message) in known):
                continue
            where = "[%s] " % failure.host if len(stats.processed) > 1 else ""
            before = "'%s' failed before and was rescued: " % failure.step if failure.rescued else ""
            self._text(where + before + message)

    def _text(self, message: str) -> None:
        for number, sentence in enumerate(_SENTENCES.split(message)):
            for line in _fitted(sentence, _width(), "" if number == 0 else "  "):
                self._display.display(line, color=C.COLOR_ERROR, stderr=self.get_option("display_failed_stderr"))


def _action(task: Any) -> str:
    """The action without the names of Ansible's own collection."""
    action = str(task.action)
    for own in ("ansible.builtin.", "ansible.legacy."):
        if action.startswith(own):
            return action[len(own) :]
    return action


def _is_internal(task: Any) -> bool:
    """Also what only writes the journal: the steps are shown by those that do them."""
    action = _action(task)
    return action in INTERNAL or (action == PREFIX + "operation" and task.args.get("state") not in ("settle", "wait"))


def _within(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(COLLECTION, folder) + os.sep)


def _has_rescue(task: Any) -> bool:
    """Whether a failure of this task goes to a rescue. Within a rescue itself that of an outer block counts."""
    child, block = task, task._parent
    while block is not None:
        rescue = getattr(block, "rescue", None)
        if rescue and not any(one._uuid == child._uuid for one in [*rescue, *(block.always or [])]):
            return True
        child, block = block, getattr(block, "_parent", None)
    return False


def _has_diff(result: Dict[str, Any]) -> bool:
    return any(one.get("diff") and one.get("changed") for one in [result, *(result.get("results") or [])])


def _core(message: str) -> str:
    """What a text that quotes this message has of it: roles put their own words around it."""
    return message.rstrip(". ")


def _width() -> int:
    return max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROWEST)


def _fitted(text: str, width: int, indent: str) -> Iterator[str]:
    """Lines of a text, continued below its last column. A command stays whole, for copying, on a line of its own."""
    whole = indent + text.rstrip()
    if len(whole) <= width:
        yield whole
        return
    command: Optional[re.Match[str]] = _COMMAND.search(text)
    head = text[: command.start()].rstrip() if command else text.rstrip()
    columns = [match.end() for match in re.finditer(r"(?<=\S) {2,}", head)]
    in_column = bool(columns) and columns[-1] + len(indent) <= width // 2
    under = " " * (len(indent) + (columns[-1] if in_column else len(head) - len(head.lstrip()) + 2))
    if head:
        yield from textwrap.wrap(
            head, width, initial_indent=indent, subsequent_indent=under, break_long_words=False, break_on_hyphens=False
        )
    if command:
        yield under + text[command.start() :].rstrip()
