# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prisma itself resolves its configuration, whatever its language and style."""

from __future__ import annotations

import os

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.project import Project
from support.prisma_project import tools, tools_of_prisma_7

pytestmark = pytest.mark.prisma

CONFIGURATIONS = {
    "prisma.config.ts": """\
        import "dotenv/config"; // schema: "no"
        import path from "node:path";
        import { defineConfig as define, env } from "prisma/config";
        /* migrations: { path: "no" } */
        const folder: string = path.resolve(__dirname, "db");
        console.log("loaded");
        export default define({
          schema: path.join(folder, "schema"),
          migrations: { path: path.resolve("db", `st${"eps"}`), seed: "tsx seed.ts" },
          datasource: { url: env<{}>("DIRECT" + "_URL"), shadowDatabaseUrl: process.env.SHADOW_URL },
        });""",
    "prisma.config.mjs": """\
        const { POOLED_URL, DIRECT_URL = POOLED_URL } = process.env
        export default { schema: "db/schema", migrations: { path: "db/steps" },
          datasource: { url: DIRECT_URL, shadowDatabaseUrl: process.env["SHADOW_URL"] } }""",
    "prisma.config.cjs": """\
        const url = (name) => process.env[name]
        module.exports = { schema: "db/schema", migrations: { path: "./db/steps" },
          datasource: { url: url("UNSET") ?? url("DIRECT_URL"), shadowDatabaseUrl: url("SHADOW_URL") } }""",
    ".config/prisma.ts": """\
        import { defineConfig } from "prisma/config";
        export default defineConfig({ schema: "../db/schema", migrations: { path: "../db/steps" },
          datasource: { url: process.env.DIRECT_URL!, shadowDatabaseUrl: process.env.SHADOW_URL } });""",
    "deploy/own.config.mts": """\
        export default { schema: "../db/schema" as string, migrations: { path: "../db/steps" },
          datasource: { url: process.env.DIRECT_URL, shadowDatabaseUrl: process.env.SHADOW_URL } }""",
}


def make(path, installed, name, written):
    (path / "db" / "schema").mkdir(parents=True)
    (path / "db" / "schema" / "base.prisma").write_text('datasource db {\n  provider = "postgresql"\n}\n', "utf-8")
    (path / ".env").write_text("DIRECT_URL=postgresql://u:hunter22@h/x\nPW=hunter33\n", "utf-8")
    (path / "node_modules").symlink_to(installed / "node_modules")
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text(written, "utf-8")
    return Project(str(path), config_path=name if "/own" in name else None, node_bin_dir=str(tools().node.bin_dir))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_kind_of_file(tmp_path, name):
    project = make(tmp_path, tools_of_prisma_7().installed, name, CONFIGURATIONS[name])
    assert project.configuration().datasource
    assert project.schema() == os.path.realpath(tmp_path / "db" / "schema")
    assert project.migrations() == os.path.realpath(tmp_path / "db" / "steps")
    assert project.url_variables() == ["DATABASE_URL", "DIRECT_URL", "SHADOW_URL"]
    assert project.configured_variables() == ["DIRECT_URL", "DATABASE_URL"]


def test_prisma_6_passes_over_a_datasource_without_an_engine(tmp_path):
    """As Prisma does: then the schema's URL is used."""
    written = CONFIGURATIONS[".config/prisma.ts"].replace("../", "")
    project = make(tmp_path, tools().installed, "prisma.config.ts", written)
    assert not project.configuration().datasource and project.migrations() == str(tmp_path / "db" / "steps")
    assert project.url_variables() == ["DATABASE_URL"]


@pytest.mark.parametrize(
    "written, said",
    [
        ("throw new Error(`no way in with ${['hunter', 33].join('')}`)", "no way in with \\*{8}"),
        ("import 'nowhere'", "nowhere"),
        ("export default { schema: ", "prisma.config.js: .+"),
        ("process.exit(7)", "ended early"),
    ],
)
def test_one_that_cannot_be_loaded(tmp_path, written, said):
    project = make(tmp_path, tools_of_prisma_7().installed, "prisma.config.js", written)
    with pytest.raises(Refused, match="cannot be loaded.*" + said) as caught:
        project.schema()
    assert "hunter" not in str(caught.value) and len(str(caught.value)) < 800
