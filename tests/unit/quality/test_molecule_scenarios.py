# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every playbook has a Molecule scenario, and every scenario checks the effects of its playbook."""

from __future__ import annotations

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PLAYBOOKS = sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml"))
SCENARIOS = sorted(path.parent for path in (ROOT / "molecule").glob("*/molecule.yml"))
#: The scenarios that are not named after their playbook.
ELSEWHERE = {"deploy_receiptdata": "default", "operation_report": "deploy", "undo_rollback": "rollback_complete"}


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_has_a_scenario(playbook: str) -> None:
    folder = ROOT / "molecule" / ELSEWHERE.get(playbook, playbook)
    texts = [path.read_text("utf-8") for path in folder.glob("*.yml")]
    assert any("import_playbook: ../../playbooks/%s.yml\n" % playbook in text for text in texts)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.name)
def test_a_scenario_verifies(scenario: pathlib.Path) -> None:
    assert list(scenario.glob("tests/**/test_*.py"))
    text = (scenario / "molecule.yml").read_text("utf-8")
    assert re.search(r"\bverify\b", text.partition("test_sequence")[2])
