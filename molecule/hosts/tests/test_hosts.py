# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After all failures, a deploy and its revert: both hosts run the former release, and the store tells what happened."""
from __future__ import annotations

import json
from typing import Any, List

import pytest
from deployed_site import BEFORE, HOME, STORE, Site

APPLICATION = ("backstop-app1", "backstop-app2")


@pytest.fixture
def site(host: Any) -> Site:
    return Site(host)


def on(host: Any, *names: str) -> bool:
    return str(host.check_output("hostname")) in names


def outcomes(host: Any) -> List[Any]:
    found = []
    for path in sorted(host.check_output("find %s/operations -name journal.jsonl", STORE).splitlines()):
        entries = [json.loads(line) for line in host.file(path).content_string.splitlines()]
        found += [entry for entry in entries if entry["event"] == "closed"]
    return sorted(found, key=lambda entry: str(entry["at"]))


def test_the_former_release_runs_in_its_own_directory(site: Site) -> None:
    if not on(site.host, *APPLICATION):
        return
    assert site.health()["version"] == "1.4.0"
    release = HOME + "/application/releases/" + site.commit(BEFORE)
    if on(site.host, "backstop-app1"):
        assert [process["pm2_env"]["pm_cwd"] for process in site.processes()] == [release]
    else:
        pid = site.host.check_output("systemctl show --property=MainPID --value electricity-tokens")
        assert site.host.check_output("readlink /proc/%s/cwd", pid) == release


def test_the_database_is_as_before_and_nothing_is_left(site: Site) -> None:
    if not on(site.host, "backstop-data"):
        return
    assert site.sql("SELECT to_regclass('public.\"ReceiptData\"')") == ""
    assert site.sql('SELECT count(*) FROM "TokenPurchase"') == "400"
    assert [name for name in site.databases() if name.startswith("backstop_scratch_")] == []


def test_the_journals_tell_who_needed_a_person(site: Site) -> None:
    if not on(site.host, "backstop-data"):
        return
    closed = outcomes(site.host)
    assert [entry["outcome"] for entry in closed] == ["rolled_back"] * 3 + ["done"] * 2
    people = [sorted(entry.get("needs_a_person", {})) for entry in closed]
    assert people == [["backstop-app1"], ["backstop-app2"], [], [], []]
