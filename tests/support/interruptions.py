# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Work that is interrupted at a failpoint: by Ctrl-C, as a module receives it, or killed."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.processes import signals_as_errors


@contextlib.contextmanager
def interrupted_at(failpoint: str) -> Iterator[None]:
    """The body is interrupted at this failpoint, and ends with the error that a module returns then."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKSTOP_FAILPOINT", failpoint)
        patch.setenv("BACKSTOP_FAILPOINT_SIGNAL", str(int(signal.SIGINT)))
        with pytest.raises(BackstopError, match="Interrupted. Found: signal 2"), signals_as_errors():
            yield


def killed_at(failpoint: str, work: Callable[[], Any]) -> None:
    """Do this in a process of its own, which is killed at this failpoint."""
    child = os.fork()
    if not child:
        os.environ["BACKSTOP_FAILPOINT"] = failpoint
        try:
            work()
        finally:
            os._exit(3)
    _pid, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
