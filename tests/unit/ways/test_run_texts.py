# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a run says about its hosts: all that failed, in inventory order, and the one thing to do."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import AnsibleWords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import in_words_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ways.run_texts import NAMES, Run, text

HOSTS = ["app%d" % number for number in range(1, 31)]
FAILED = {"failed": {"app1": {"task": "Run the current release", "message": "It is unhealthy."}, "app2": {}}}


def said(name: str, **facts: Any) -> Any:
    with in_words_of(AnsibleWords()):
        return text(name, Run.of(facts))


@pytest.mark.parametrize("name", NAMES)
def test_every_text_can_be_made_of_what_is_known_at_the_beginning(name: str) -> None:
    settled = {"before_error": "", "after_error": "", "next": ""}
    lines = said(name, settled=settled, hosts=["app1"], commit="new", runner="db1", operation="o", second={"task": "x"})
    assert "None" not in str(lines) and "  " not in str(lines)


def test_the_hosts_that_are_back_in_inventory_order() -> None:
    run = Run(hosts=HOSTS, former="f", trouble={"app3": "cannot be reached", "app30": "is sick", "app4": ""})
    assert run.hosts_back == [host for host in HOSTS if host not in ("app3", "app30")]
    assert run.manual == "Needs manual action: app3 (cannot be reached), app30 (is sick)."
    assert said("deploy_serves_again", hosts=HOSTS, former="") == "", "no host is back where nothing ran before"


def test_a_failure_names_its_host_where_there_are_several() -> None:
    assert Run.of({**FAILED, "hosts": ["app1"]}).failure == "It is unhealthy."
    assert Run.of({**FAILED, "hosts": ["app1", "app2"]}).failure == "app1: It is unhealthy."
    silent = {"app1": {"ping": "pong"}, "app2": {"unreachable": True}, "app3": {}}
    assert Run(hosts=HOSTS, answers=silent).failure == "app2 could not be reached."
    assert "see the lines above" in Run(hosts=HOSTS).failure


@pytest.mark.parametrize(
    "standing, stopped, expected",
    [
        ({"application": "untouched"}, False, "Nothing was changed and the application was never stopped."),
        ({"application": "serving"}, True, "Release new runs and is healthy, but the deploy is not finished."),
        (
            {},
            True,
            "cannot be asked how far it came, so nothing was rolled back; the application was stopped and remains",
        ),
        ({}, False, "the application was not stopped. When the runner answers again"),
    ],
)
def test_the_end_of_a_deploy_without_a_rollback(standing: Any, stopped: bool, expected: str) -> None:
    facts = {**FAILED, "hosts": ["app1"], "commit": "new", "runner": "db1", "standing": standing, "stopped": stopped}
    line = said("deploy_left", **facts)
    assert expected in line and "at 'Run the current release': It is unhealthy." in line


def test_a_deploy_that_was_rolled_back() -> None:
    facts = {**FAILED, "hosts": ["app1", "app2"], "former": "old", "journal": "/j", "trouble": {"app2": "is down"}}
    assert said("deploy_rolled_back", **facts) == (
        "The deploy failed at 'Run the current release' and was rolled back. app1: It is unhealthy."
        " Release old runs again and is healthy on app1. Needs manual action: app2 (is down)."
        " Database: was not changed. Fix this and run the deploy again. Journal: /j"
    )
    line = said("deploy_rolled_back", **{**facts, "former": "", "elsewhere": {"app1": ["/srv/old"], "app2": []}})
    assert (
        "No release was there before, so none runs now. What ran before has to be started by hand: app1 in /srv/old."
        in line
    )


def test_a_deploy_whose_rollback_failed_shows_the_one_command() -> None:
    standing = {"application": "stopped", "migration_began": True, "backup": "b1"}
    facts = {**FAILED, "hosts": ["app1"], "standing": standing, "runner": "db1", "journal": "/j"}
    second = {"task": "Roll the database back", "message": "The server is gone."}
    line = said("deploy_stuck", second=second, **facts)
    assert "Going back failed too, at 'Roll the database back': The server is gone." in line
    assert (
        "ansible-playbook backstop.postgres.rollback_complete -e rollback_backup=b1 (add -e rollback_accept_lost_rows=N"
        in line
    )
    unreachable = said("deploy_stuck", second={"task": "x", "message": "It is unhealthy."}, **facts)
    assert "the runner db1 could not be reached." in unreachable
    assert "run the same playbook again." in said("deploy_stuck", **{**facts, "standing": {}})


def test_whom_to_call() -> None:
    contacts = [{"name": "On call", "phone": "555"}, {"name": "Owner"}]
    assert said("contacts", contacts=contacts, escalation=["call again"]) == [
        "Contacts:", "On call, 555", "Owner", "Escalation:", "call again",
    ]  # fmt: skip
    assert said("contacts") == []
