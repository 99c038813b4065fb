# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the backup: its contents, that PostgreSQL's own tools can read it, and that no other user can."""

from __future__ import annotations

import pytest
from deployed_site import BEFORE, FIRST, STORE, Site

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def site() -> Site:
    return Site("backstop-pre-migration-backup")


@pytest.fixture(scope="module")
def folder(site: Site) -> str:
    (manifest,) = site.manifests()
    return "%s/pre-migration/%s" % (STORE, manifest["id"])


def test_there_is_one_and_it_says_what_it_is(site: Site) -> None:
    (manifest,) = site.manifests()
    assert (manifest["kind"], manifest["database"]["name"]) == ("pre-migration", "electricity_tokens")
    assert manifest["release"] == {"commit": site.commit(BEFORE)}
    counts = {table["name"]: table["digest"]["rows"] for table in manifest["tables"]}
    assert counts["TokenPurchase"] == int(site.sql('SELECT count(*) FROM "TokenPurchase"')) == 400
    (verified,) = site.contents("pre-migration/*/verification.json")
    assert '"readable"' in verified and '"restored"' not in verified


def test_the_tools_of_postgresql_read_it(site: Site, folder: str) -> None:
    listed = site.host.check_output("pg_restore --list %s/archive.dump", folder)
    assert "TABLE DATA public TokenPurchase" in listed
    archived = site.host.check_output("pg_restore --data-only --table=User --file=- %s/archive.dump", folder)
    live = site.sql('SELECT "email" FROM "User" ORDER BY 1').splitlines()
    assert live and all(email in archived for email in live)
    assert 'COPY public."TokenPurchase"' in site.host.file(folder + "/plain.sql").content_string


def test_the_migrations_and_their_history_are_beside_it(site: Site, folder: str) -> None:
    assert site.host.file("%s/migrations/%s/migration.sql" % (folder, FIRST)).exists
    assert FIRST in site.host.file(folder + "/history.json").content_string


def test_it_is_its_owners_alone_and_without_the_password(site: Site) -> None:
    assert site.host.check_output("find %s -perm /077 -not -type l", STORE) == ""
    assert site.host.run("grep -rlF %s %s", "p@ss:w/rd", STORE).rc == 1


def test_the_application_was_not_touched(site: Site) -> None:
    assert site.runs(BEFORE)
    assert site.databases() == ["electricity_tokens", "postgres"]
