# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible's modules start sooner if their compiled code is kept; see kept_bytecode."""

from __future__ import annotations

import pathlib
from typing import Dict

from .prisma_project import cache_directory


def environment() -> Dict[str, str]:
    """The environment variables for a program that runs Ansible."""
    code = pathlib.Path(__file__).with_name("kept_bytecode")
    return {
        "PYTHONPATH": str(code),
        "BACKSTOP_TEST_BYTECODE": str(cache_directory() / "bytecode"),
        # What is sent through a pipe on one machine need not be small.
        "ANSIBLE_MODULE_COMPRESSION": "ZIP_STORED",
    }
