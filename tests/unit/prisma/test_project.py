# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a project keeps its schema and migrations, and which variables name its database."""
from __future__ import annotations

import json

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project

SCHEMA = 'datasource db {\n  provider = "postgresql"\n  url = env("DATABASE_URL")\n}\n'


def make(path, files):
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return Project(str(path))


def test_usual_places(tmp_path):
    project = make(tmp_path, {"prisma/schema.prisma": SCHEMA})
    assert project.schema() == str(tmp_path / "prisma" / "schema.prisma")
    assert project.migrations() == str(tmp_path / "prisma" / "migrations")
    assert project.url_variables() == ["DATABASE_URL"]
    project = make(tmp_path, {"schema.prisma": SCHEMA})
    assert project.migrations() == str(tmp_path / "migrations")


def test_place_named_by_package_json(tmp_path):
    package = json.dumps({"prisma": {"schema": "db/my.prisma"}})
    project = make(tmp_path, {"package.json": package, "db/my.prisma": SCHEMA})
    assert project.migrations() == str(tmp_path / "db" / "migrations")


@pytest.mark.parametrize("package", ["{}", "no json", "[]", '{"prisma": {"seed": "x"}}'])
def test_package_json_without_a_place(tmp_path, package):
    project = make(tmp_path, {"package.json": package, "prisma/schema.prisma": SCHEMA})
    assert project.schema() == str(tmp_path / "prisma" / "schema.prisma")


def test_place_given(tmp_path):
    make(tmp_path, {"prisma/schema.prisma": SCHEMA, "other/schema.prisma": SCHEMA})
    assert Project(str(tmp_path), "other/schema.prisma").migrations() == str(tmp_path / "other" / "migrations")


def test_schema_of_several_files(tmp_path):
    make(tmp_path, {"db/models/user.prisma": "model User { id Int @id }\n", "db/main/base.prisma": SCHEMA})
    project = Project(str(tmp_path), "db")
    assert project.migrations() == str(tmp_path / "db" / "main" / "migrations")
    assert project.url_variables() == ["DATABASE_URL"]


def test_other_variables(tmp_path):
    schema = SCHEMA.replace(
        'url = env("DATABASE_URL")',
        'url = env("POOLED_URL") // pgbouncer, see https://example.invalid/x\n'
        '  directUrl = env("DIRECT_URL")\n  shadowDatabaseUrl = env("SHADOW_URL")\n  // url = env("OLD_URL")',
    )
    assert make(tmp_path, {"schema.prisma": schema}).url_variables() == ["DATABASE_URL", "POOLED_URL", "DIRECT_URL"]


@pytest.mark.parametrize("field", ["url", "directUrl"])
def test_a_fixed_database_is_refused(tmp_path, field):
    schema = SCHEMA.replace("url =", "%s = \"postgresql://u:secret@h/d\" //" % field)
    with pytest.raises(Refused, match="names a fixed database") as caught:
        make(tmp_path, {"schema.prisma": schema}).url_variables()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["prisma.config.ts", "prisma.config.mjs", ".config/prisma.ts"])
def test_datasource_in_the_configuration(tmp_path, name):
    plain = 'export default defineConfig({ schema: "prisma/schema.prisma" }) // datasource: none'
    project = make(tmp_path, {"prisma/schema.prisma": SCHEMA, name: plain})
    assert project.configured_datasource() is None
    make(tmp_path, {name: 'export default defineConfig({ datasource: { url: env("X") } })'})
    assert project.configured_datasource() == str(tmp_path / name)


def test_no_project(tmp_path):
    with pytest.raises(Refused, match="no Prisma project"):
        Project(str(tmp_path / "missing"))


def test_no_schema(tmp_path):
    with pytest.raises(Refused, match="no Prisma schema.*schema_path"):
        Project(str(tmp_path)).schema()
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="is empty"):
        Project(str(tmp_path), "empty").migrations()
