# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The example application on real PostgreSQL, migrated by real Prisma: its own tests, at both commits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from demo import node_tools, repository, sample_data
from demo.node_tools import Node
from demo.postgres_server import Cluster
from support.prisma_project import Tools, tools

pytestmark = pytest.mark.prisma
DIFF = ["migrate", "diff", "--from-migrations", "prisma/migrations", "--to-schema-datamodel", "prisma/schema.prisma"]


@pytest.fixture(scope="module")
def prisma() -> Tools:
    return tools()


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory, prisma: Tools) -> dict[str, Path]:
    """Both commits, installed and generated."""
    folder = tmp_path_factory.mktemp("releases")
    made = {tag: folder / tag for tag in (repository.BEFORE, repository.AFTER)}
    for tag, directory in made.items():
        repository.write_files(directory, tag)
        node_tools.npm_ci(directory, prisma.node)
        prisma.node.run(["npm", "run", "generate"], cwd=directory, environment=prisma.environment)
    return made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster.create(tmp_path_factory.mktemp("demo") / "cluster", options={"fsync": "off"})
    made.start()
    made.create_role("electricity_tokens", "LOGIN CREATEDB")
    yield made
    made.destroy()


def new_database(cluster: Cluster, name: str) -> str:
    cluster.create_database(name, "electricity_tokens")
    return cluster.url(name, "electricity_tokens") + "?schema=public"


def prisma_says(tool: Tools, release: Path, url: str, *arguments: str) -> str:
    argv = ["npx", "--no-install", "prisma", *arguments]
    return tool.node.run(argv, cwd=release, environment={**tool.environment, "DATABASE_URL": url}).stdout


def run_tests(node: Node, release: Path, url: str) -> str:
    return node.run(["npm", "test"], cwd=release, environment={"DATABASE_URL": url}, timeout=120).stdout


def test_old_and_new_code_pass_their_tests_old_code_also_on_the_new_schema(
    cluster: Cluster, releases: dict[str, Path], prisma: Tools
) -> None:
    old, new = releases[repository.BEFORE], releases[repository.AFTER]
    url = new_database(cluster, "tests")
    prisma_says(prisma, old, url, "migrate", "deploy")
    assert "# fail 0" in run_tests(prisma.node, old, url)
    prisma_says(prisma, new, url, "migrate", "deploy")
    for release in (old, new):
        said = run_tests(prisma.node, release, url)
        assert "# fail 0" in said
        assert "# skipped 0" in said
    # Tests leave nothing behind.
    counts = 'SELECT (SELECT count(*) FROM "User"), (SELECT count(*) FROM "TokenPurchase")'
    assert cluster.sql(counts, "tests") == "0|0"


@pytest.mark.parametrize("tag", [repository.BEFORE, repository.AFTER])
def test_the_migrations_make_what_the_schema_says(
    cluster: Cluster, releases: dict[str, Path], prisma: Tools, tag: str
) -> None:
    url = new_database(cluster, "diff_" + tag.replace("-", "_"))
    assert "No difference detected" in prisma_says(prisma, releases[tag], url, *DIFF, "--exit-code")


def test_the_sample_data_fits_the_schema(
    cluster: Cluster, releases: dict[str, Path], prisma: Tools, tmp_path: Path
) -> None:
    url = new_database(cluster, "sample")
    prisma_says(prisma, releases[repository.BEFORE], url, "migrate", "deploy")
    script = tmp_path / "sample.sql"
    with open(script, "w", encoding="utf-8") as stream:
        counts = sample_data.write_script(500, stream)
    cluster.sql(script.read_text(encoding="utf-8"), "sample", "electricity_tokens")
    for table, count in counts.items():
        assert cluster.sql(f'SELECT count(*) FROM "{table}"', "sample") == str(count)
    assert cluster.sql("SELECT count(*) FROM \"User\" WHERE name LIKE '%ú%' OR name LIKE '%é%'", "sample") != "0"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "DATABASE_URL is set neither"),
        ({"DATABASE_URL": "postgresql://x", "PORT": "70000"}, "PORT is no port number"),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_told_at_the_start(
    releases: dict[str, Path], prisma: Tools, settings: dict[str, str], said: str
) -> None:
    release = releases[repository.BEFORE]
    done = prisma.node.run(["node", "src/server.js"], cwd=release, environment=settings, accept=[1], timeout=30)
    assert said in done.stderr
    assert '"level":"error"' in done.stderr


def test_a_build_is_stamped_with_the_commit_that_its_folder_is_named_after(
    releases: dict[str, Path], prisma: Tools, tmp_path: Path
) -> None:
    for name in ("a" * 40, ".partial-" + "b" * 40, "release"):
        folder = tmp_path / name
        repository.write_files(folder, repository.BEFORE)
        prisma.node.run(["npm", "run", "build"], cwd=folder)
        stamp = (folder / "dist" / "release.json").read_text(encoding="utf-8")
        assert (name.removeprefix(".partial-") if len(name) >= 40 else "unknown") in stamp
