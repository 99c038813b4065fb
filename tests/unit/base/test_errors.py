# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Errors say what was found, what was expected and what to do."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import sqlstates
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import (
    BackstopError,
    CouldNotVerify,
    Locked,
    Refused,
)


def test_one_sentence_for_each_part():
    error = BackstopError("It failed", found="this", expected="that?", hint="do it", details={"a": 1})
    assert str(error) == "It failed. Found: this. Expected: that? What to do: do it."
    assert str(BackstopError("Alone")) == "Alone." and BackstopError("Alone").details == {}


def test_what_the_server_refused_is_known_by_its_code():
    error = BackstopError("It failed", details={"sqlstate": "55P03"})
    assert (error.sqlstate, error.sqlstate_class) == (sqlstates.LOCK_NOT_AVAILABLE, "55")
    for none in (BackstopError("Alone"), BackstopError("It failed", details={"sqlstate": None})):
        assert (none.sqlstate, none.sqlstate_class) == (None, "")


@pytest.mark.parametrize("kind, status", [(BackstopError, 1), (Refused, 1), (CouldNotVerify, 3), (Locked, 5)])
def test_exit_status(kind, status):
    assert kind("x").exit_status == status and isinstance(kind("x"), BackstopError)
