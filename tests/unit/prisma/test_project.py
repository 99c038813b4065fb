# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a project keeps its schema and migrations, and which variables name its database."""

from __future__ import annotations

import json

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.cli import (
    Prisma,
    schema_script_arguments,
)
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
    schema = SCHEMA.replace("url =", '%s = "postgresql://u:secret@h/d" //' % field)
    with pytest.raises(Refused, match="names a fixed database") as caught:
        make(tmp_path, {"schema.prisma": schema}).url_variables()
    assert "secret" not in str(caught.value)


def test_a_file_for_prisma_seven_comes_first(tmp_path):
    project = make(tmp_path, {"prisma.config.ts": "", "prisma7.config.ts": "", "prisma.config.txt": ""})
    assert project.config() == str(tmp_path / "prisma7.config.ts")


def test_a_configuration_needs_the_prisma_of_the_release(tmp_path):
    project = make(tmp_path, {"schema.prisma": SCHEMA, "prisma.config.ts": "export default {}"})
    with pytest.raises(Refused, match="Prisma is not installed"):
        project.migrations()
    make(tmp_path, {"node_modules/prisma/package.json": "{}"})
    with pytest.raises(Refused, match="Node.js is missing"):
        Project(str(tmp_path), node_bin_dir=str(tmp_path)).migrations()


def test_no_such_configuration(tmp_path):
    with pytest.raises(Refused, match="configuration is missing.*config_path"):
        Project(str(tmp_path), config_path="prisma.config.ts")


def test_no_project(tmp_path):
    with pytest.raises(Refused, match="no Prisma project"):
        Project(str(tmp_path / "missing"))


def test_no_schema(tmp_path):
    with pytest.raises(Refused, match="no Prisma schema.*schema_path"):
        Project(str(tmp_path)).schema()
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="is empty"):
        Project(str(tmp_path), "empty").migrations()


@pytest.fixture
def release(tmp_path):
    """Makes a release with some version of Prisma; none of it can be run."""

    def create(version):
        project = make(
            tmp_path,
            {
                "prisma/schema.prisma": SCHEMA,
                "node_modules/prisma/build/index.js": "",
                "node_modules/prisma/package.json": json.dumps({"version": version}),
                "node_modules/@prisma/engines/schema-engine-x": "",
                "bin/node": "",
            },
        )
        for program in ("bin/node", "node_modules/@prisma/engines/schema-engine-x"):
            (tmp_path / program).chmod(0o755)
        return Project(project.path, node_bin_dir=str(tmp_path / "bin"))

    return create


@pytest.mark.parametrize("version", ["5.22.0", "8.0.0", "dev"])
def test_a_version_that_was_not_tried_is_refused(release, version):
    with pytest.raises(Refused, match="not supported") as caught:
        Prisma(release(version))
    assert caught.value.found == "Prisma " + version and caught.value.expected == "Prisma 6 or 7"
    assert version == "dev" or Prisma(release(version), offline=True).version() == version


def test_the_schema_as_sql_is_spelled_by_version():
    six = ["migrate", "diff", "--from-empty", "--to-schema-datamodel", "x.prisma", "--script"]
    assert schema_script_arguments("6.19.3", "x.prisma") == six
    assert schema_script_arguments("7.10.0", "x.prisma") == [*six[:3], "--to-schema", *six[4:]]
