# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/manifest.schema.json describes the fields of real backups."""

from __future__ import annotations

import copy
import dataclasses
import json
import pathlib

import jsonschema
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import CouldNotVerify
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from support.age_keys import make_key
from support.databases import REALISTIC
from support.json_schemas import closed

SCHEMA = json.loads((pathlib.Path(__file__).resolve().parents[3] / "docs" / "manifest.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def real_manifests(shared_databases):
    plain, realistic = shared_databases.make("shop"), shared_databases.make("odd 电", REALISTIC, user=None)
    empty = shared_databases.make("empty", "template0")
    plain.site = plain.begun("deploy")
    places = [
        plain.backup(commit="0" * 40, migrations={"m/migration.sql": b""}),
        realistic.backup("daily"),
        empty.backup("weekly"),
        realistic.backup("daily", tables=["TokenPurchase", "measured"]),
    ]
    return [manifests.load(place).to_json() for place in places]


def test_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_real_manifests_have_nothing_else(real_manifests):
    for manifest in real_manifests:
        jsonschema.Draft202012Validator(closed(SCHEMA)).validate(manifest)
        assert written(manifests.Manifest.from_json(manifest)) == manifest


def written(manifest):
    """The manifest as it would be written, not as it was read."""
    return dataclasses.replace(manifest, source=None).to_json()


@pytest.mark.offsite
def test_the_manifest_of_an_encrypted_backup(shared_databases, tmp_path):
    live = shared_databases.make("secret")
    live.site = dataclasses.replace(live.site, recipients=(make_key(tmp_path).recipient,))
    jsonschema.Draft202012Validator(closed(SCHEMA)).validate(written(manifests.load(live.backup())))


def test_fields_may_be_added(real_manifests):
    newer = {**real_manifests[0], "new": 1, "server": {**real_manifests[0]["server"], "more": 2}}
    jsonschema.Draft202012Validator(SCHEMA).validate(newer)
    assert manifests.Manifest.from_json(newer).to_json() == newer


def test_what_a_maker_could_not_tell_is_compared_with_nothing(real_manifests):
    """Fields that an earlier version, or the script for Windows, does not write."""
    absent = ("definitions", "dumped", "sequences", "large_objects", "extensions", "scope", "release", "not_covered")
    older = {key: value for key, value in real_manifests[0].items() if key not in absent}
    older["database"] = {key: value for key, value in older["database"].items() if key != "properties"}
    manifest = manifests.Manifest.from_json(older)
    assert (manifest.scope, manifest.commit, manifest.dumped, manifest.to_json()) == ("database", None, None, older)
    for part in ("definitions", "sequences", "large_objects", "properties"):
        with pytest.raises(CouldNotVerify, match="cannot be compared") as caught:
            getattr(manifest, part)
        assert part in caught.value.found


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.update(format=2),
        lambda manifest: manifest.pop("tables"),
        lambda manifest: manifest["tables"][0].pop("digest"),
        lambda manifest: manifest["tables"][0]["digest"].update(rows=-1),
        lambda manifest: manifest["files"]["archive.dump"].update(sha256="x"),
        lambda manifest: manifest.update(kind="monthly"),
        lambda manifest: manifest.update(scope="half"),
        lambda manifest: manifest.update(created="yesterday"),
        lambda manifest: manifest["database"]["properties"].pop("owner"),
    ],
)
def test_schema_refuses(real_manifests, change):
    manifest = copy.deepcopy(real_manifests[0])
    change(manifest)
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(manifest)
