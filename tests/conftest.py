# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Setup for every test: one way to import the library, and programs that find the collection of this checkout.

The library is imported by the name that Ansible uses, so that a class is the same object in a test and in a module::

    from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base import errors

``from demo.postgres_server import Cluster`` and ``from support.x import y`` work too (pythonpath in pyproject.toml).
"""

from __future__ import annotations

import os
import pathlib

import hypothesis

pytest_plugins = ["pytester", "support.reliability"]

ROOT = pathlib.Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT / "playbooks" / "collections"


def _prepend(variable: str, *folders: pathlib.Path) -> None:
    old = os.environ.get(variable)
    os.environ[variable] = os.pathsep.join([*map(str, folders), *([old] if old else [])])


# For programs that a test starts: ansible-playbook, and Python processes that the test kills.
os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)
_prepend("PYTHONPATH", COLLECTIONS, ROOT / "examples", ROOT / "tests")

# The user's own settings must not decide where the tests connect or what they deploy.
for name in [name for name in os.environ if name.startswith("PG")] + ["DATABASE_URL", "BACKSTOP_STORE"]:
    os.environ.pop(name, None)

# How fast the machine is at the moment is no property of the code.
hypothesis.settings.register_profile(
    "any speed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any speed")
