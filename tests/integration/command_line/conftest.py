# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command on a real server, with a separate database for each test."""

from __future__ import annotations

import pytest
from support.backstop_command import BackstopCommand
from support.databases import cluster, databases, plain, seed

__all__ = ["cluster", "databases", "plain", "seed"]


@pytest.fixture
def backstop(plain, tmp_path) -> BackstopCommand:
    made = BackstopCommand(plain, tmp_path / "etc")
    made.folder.mkdir()
    made.configure()
    return made
