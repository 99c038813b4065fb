# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ctrl-C at a failpoint, as a module receives it."""

from __future__ import annotations

import contextlib
import signal
from typing import Iterator

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
