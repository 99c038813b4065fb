# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Single changes of a restored database, for every kind of object that pg_dump knows: the comparison reports each,
and nothing else."""

from __future__ import annotations

import collections

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.restore import build_database, compare
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.sql_names import scratch_name
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import new_id
from support.sabotages import COMMON, ROWS, name_of, sabotages


@pytest.fixture(scope="module")
def differences(shared_databases):
    """The differences reported after every case was changed; that it is equal before is proved."""
    live = shared_databases.make("sabotaged", user=None)
    cases = sabotages(live.cluster.major)
    run(live, [COMMON, *(case.made for case in cases)], live.name)
    place = live.backup()
    name = scratch_name(new_id(), "new")
    build_database(live.site, place, name)
    run(live, [case.changed for case in cases], name)
    with live.site.connect(name) as session, pytest.raises(BackstopError) as caught:
        compare(live.site, session, manifests.load(place))
    return caught.value.details["differences"]


def run(live, statements, database):
    with live.session(database=database) as cursor:
        cursor.execute("SET search_path = public; SET client_min_messages = error; SET allow_system_table_mods = on")
        for statement in statements:
            cursor.execute(statement)


@pytest.mark.fault("databases", "one definition of a restored copy changed", by="the comparison of catalogs names it")
def test_every_change_is_noticed(differences, cluster, tried):
    cases = sabotages(cluster.major)
    assert len(cases) >= 150
    unnoticed = [case.title for case in cases if not any(case.told in difference for difference in differences)]
    assert not unnoticed, "\n".join(["not noticed:", *unnoticed, "reported:", *differences])
    tried(len(cases))


def test_nothing_else_is_reported(differences, cluster):
    cases = sabotages(cluster.major)
    spurious = [one for one in differences if not any(case.told in one for case in cases)]
    assert not spurious, "\n".join(spurious)


def test_no_case_can_be_taken_for_another():
    told = [case.told for case in sabotages(99)]
    assert [one for one, times in collections.Counter(told).items() if times > 1] == []
    names = [name_of(title) for title in ROWS]
    assert not [(one, two) for one in names for two in names if one != two and one in two]
