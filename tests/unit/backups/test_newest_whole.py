# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The backup that a drill restores if none is named: of the live database, not of a retired one, which may be newer."""

from __future__ import annotations

import dataclasses
import types

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.drill import newest_whole
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from support.recorded_store import recorded_store


def test_the_newest_of_the_whole_live_database(tmp_path, monkeypatch) -> None:
    store = recorded_store(tmp_path / "store")
    known = sorted(manifests.readable(store.backups()), key=lambda one: one.manifest.created)
    own = [one for one in known if one.manifest.database.name == "electricity_tokens"]
    site = types.SimpleNamespace(store=store, database="electricity_tokens")
    assert newest_whole(site).backup_id == own[-1].place.backup_id

    part = dataclasses.replace(own[-1], manifest=dataclasses.replace(own[-1].manifest, scope="tables"))
    retired = dataclasses.replace(
        own[-1],
        manifest=dataclasses.replace(
            own[-1].manifest, database=dataclasses.replace(own[-1].manifest.database, name="backstop_retired_x")
        ),
    )
    monkeypatch.setattr(manifests, "readable", lambda _places: [own[0], part, retired])
    assert newest_whole(site) == own[0].place


def test_there_is_none(tmp_path) -> None:
    site = types.SimpleNamespace(store=recorded_store(tmp_path / "store"), database="other")
    with pytest.raises(Refused, match="no backup of the whole database other"):
        newest_whole(site)
