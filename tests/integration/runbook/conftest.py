# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The database of the runbook, and a shell for its commands."""

from __future__ import annotations

import pytest
from support.databases import cluster, databases, plain, realistic, seed, shared_databases
from support.runbook_shell import NAME, Shell

__all__ = ["cluster", "databases", "live", "plain", "realistic", "seed", "shared_databases", "shell"]


@pytest.fixture
def live(databases):
    return databases.make(NAME)


@pytest.fixture
def shell(live, tmp_path):
    folder = tmp_path / "application"
    folder.mkdir()
    return Shell(live, folder)
