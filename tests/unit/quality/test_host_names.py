# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run's messages about hosts: which are missing, in inventory order."""

from __future__ import annotations

import pathlib
from typing import Any, Dict

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = pathlib.Path(__file__).resolve().parents[3] / "roles"
HOSTS = ["app%d" % number for number in range(1, 31)]


def rendered(role: str, name: str, **facts: object) -> Any:
    loader = DataLoader()
    variables: Dict[str, Any] = loader.load_from_file(str(ROLES / role / "vars" / "main.yml"), trusted_as_template=True)
    return Templar(loader=loader, variables={**variables, **facts}).template(trust_as_template("{{ %s }}" % name))


@pytest.mark.parametrize("role", ["deploy", "rollback"])
def test_the_hosts_that_are_missing(role: str) -> None:
    facts = {"groups": {"application": HOSTS}, "ansible_play_batch": ["app2"]}
    assert rendered(role, role + "_missing", **facts) == [host for host in HOSTS if host != "app2"]
