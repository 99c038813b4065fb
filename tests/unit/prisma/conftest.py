# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random tests show how to repeat them."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def seed():
    """A seed, printed when a test fails; set BACKSTOP_TEST_SEED to repeat a run."""
    value = int(os.environ.get("BACKSTOP_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print("repeat with BACKSTOP_TEST_SEED=%d" % value)
    return value
