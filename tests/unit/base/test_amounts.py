# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sizes and durations as text."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.amounts import human_size, human_time


@pytest.mark.parametrize(
    "size, text",
    [(0, "0 B"), (999, "999 B"), (999.6, "1 kB"), (52_400_000, "52.4 MB"), (1.2e9, "1.2 GB"), (3e15, "3e+03 TB")],
)
def test_sizes(size, text) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize("seconds, text", [(0.9, "0 s"), (119, "119 s"), (120, "2 min"), (7300, "2 h"), (3e5, "3 d")])
def test_durations(seconds, text) -> None:
    assert human_time(seconds) == text
