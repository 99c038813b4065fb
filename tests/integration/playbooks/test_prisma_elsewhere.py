# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prisma 7 in a folder of a monorepo, with another configuration name: the roles' options name the paths."""

from __future__ import annotations

from typing import Dict, Optional

import pytest
from demo import application, repository
from support.broken_releases import FIRST, MIGRATION
from support.demo_site import DemoSite
from support.prisma_project import tools_of_prisma_7

pytestmark = pytest.mark.prisma
FOLDER = "packages/database"
CONFIG = """
import { defineConfig } from "prisma/config";

export default defineConfig({
  schema: "schema.prisma",
  migrations: { path: "sql" },
  datasource: { url: process.env["DATABASE_URL"] },
});
"""


def moved(*parts: str) -> Dict[str, Optional[str]]:
    """A release of the application whose Prisma was moved, as the differences from ET-100."""
    changes: Dict[str, Optional[str]] = dict.fromkeys(repository.files_of(("base", "et-100")))
    changes[FOLDER + "/database.config.ts"] = CONFIG
    for name, path in repository.files_of(parts).items():
        text = path.read_text("utf-8")
        if name == "prisma/schema.prisma":
            # Prisma 7 allows no URL there.
            text = "".join(line for line in text.splitlines(keepends=True) if "env(" not in line)
        place = name.replace("prisma/migrations/", FOLDER + "/sql/").replace("prisma/schema", FOLDER + "/schema")
        changes[place] = text
    return changes


def test_deploy_and_revert(site: DemoSite) -> None:
    before = site.add_release("moved-before", moved("base"))
    after = site.add_release("moved-after", moved("base", "et-100"))
    prisma = tools_of_prisma_7()
    # One command each, because a role accepts only one.
    install = ["sh", "-c", 'cp -al "$0" . && ln -s "$1" packages/database/']
    install += [str(site.places.built / "node_modules"), str(prisma.installed / "node_modules")]
    site.prepare_by_hand("moved-before", install, application.BUILD)
    site.run_release(before)
    places = {
        "backstop_prisma_project": FOLDER,
        "backstop_prisma_migrations_path": "sql",
        "backstop_prisma_config_path": "database.config.ts",
        "backstop_prisma_environment": prisma.environment,
        "application_install_command": install,
    }
    contents = site.contents()

    deployed = site.play("deploy_receiptdata.yml", deploy_revision="moved-after", deploy_post_backup=False, **places)
    assert deployed.status == 0, deployed.output
    assert site.applied() == (FIRST, MIGRATION) and site.running() == after

    taken_out = site.play("rollback_application_errors.yml", rollback_method="drop", **places)
    assert taken_out.status == 0, taken_out.output
    assert site.applied() == (FIRST,) and site.running() == before
    assert site.contents() == contents
