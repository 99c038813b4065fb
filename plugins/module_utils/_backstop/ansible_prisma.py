# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prisma as a module's arguments describe it.

This module utility is private to the collection; it can change in any release.
"""

from __future__ import annotations

from .ansible_boundary import Request
from .postgres.relay import relayed
from .prisma.cli import Prisma
from .prisma.project import Project


def prisma_of(request: Request) -> Prisma:
    """The Prisma CLI of the release."""
    params = request.params
    return Prisma(
        Project(params["project"], params["schema_path"], params["config_path"], params["node_bin_dir"]),
        environment={str(name): str(value) for name, value in params["prisma_environment"].items()},
        relay=relayed,
    )
