# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible's modules start sooner if their compiled code and payloads are kept; see kept_bytecode and kept_payloads."""

from __future__ import annotations

import pathlib
from typing import Dict

from .prisma_project import cache_directory


def environment() -> Dict[str, str]:
    """The environment variables for a program that runs Ansible."""
    return {
        "PYTHONPATH": str(pathlib.Path(__file__).with_name("kept_bytecode")),
        "BACKSTOP_TEST_BYTECODE": str(cache_directory() / "bytecode"),
        "ANSIBLE_CALLBACK_PLUGINS": str(pathlib.Path(__file__).with_name("kept_payloads")),
        # Else only playbooks load them.
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
        "BACKSTOP_TEST_PAYLOADS": str(cache_directory() / "payloads"),
    }
