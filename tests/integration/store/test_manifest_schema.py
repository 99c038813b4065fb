# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""docs/manifest.schema.json describes what backups really have."""
from __future__ import annotations

import copy
import dataclasses
import json
import pathlib

import jsonschema
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from support.age_keys import make_key
from support.databases import REALISTIC

SCHEMA = json.loads((pathlib.Path(__file__).resolve().parents[3] / "docs" / "manifest.schema.json").read_text("utf-8"))


def closed(schema):
    """The schema without room for fields that it does not describe."""
    schema = copy.deepcopy(schema)
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "properties" in part:
                part["additionalProperties"] = False
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return schema


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
    return [manifests.load(place) for place in places]


def test_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_real_manifests_have_nothing_else(real_manifests):
    for manifest in real_manifests:
        jsonschema.Draft202012Validator(closed(SCHEMA)).validate(manifest)


@pytest.mark.offsite
def test_the_manifest_of_an_encrypted_backup(shared_databases, tmp_path):
    live = shared_databases.make("secret")
    live.site = dataclasses.replace(live.site, recipients=(make_key(tmp_path).recipient,))
    jsonschema.Draft202012Validator(closed(SCHEMA)).validate(manifests.load(live.backup()))


def test_fields_may_be_added(real_manifests):
    jsonschema.Draft202012Validator(SCHEMA).validate({**real_manifests[0], "new": 1})


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
