# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""After the drill: the newest backup is verified to the highest level, and nothing else has changed."""

from __future__ import annotations

import json

import pytest
from deployed_site import AFTER, Site, play

testinfra_hosts = ["local://"]


@pytest.fixture(scope="module")
def site() -> Site:
    return Site("backstop-restore-drill")


def test_the_backup_after_the_deploy_is_restored_and_equal(site: Site) -> None:
    (verified,) = map(json.loads, site.contents("post-migration/*/verification.json"))
    restored = verified["levels"]["restored"]
    assert restored["passed"] is True and restored["recovery_seconds"] > 0


def test_nothing_is_left_and_the_application_was_not_touched(site: Site) -> None:
    assert site.databases() == ["electricity_tokens", "postgres"]
    assert site.runs(AFTER)


def test_a_damaged_backup_is_told(site: Site) -> None:
    """One byte of the archive is changed; the drill of this backup fails and names it."""
    newest = site.manifests()[-1]["id"]
    script = (
        "import sys\nwith open(sys.argv[1], 'r+b') as archive:\n    archive.seek(-200, 2)\n    byte = archive.read(1)\n"
        "    archive.seek(-1, 1)\n    archive.write(bytes([byte[0] ^ 255]))\n"
    )
    site.host.check_output("python3 -c %s /var/backups/backstop/post-migration/%s/archive.dump", script, newest)
    run = play("restore_drill")
    assert run.status != 0, run.output
    run.must_say(newest)
    assert site.databases() == ["electricity_tokens", "postgres"]
