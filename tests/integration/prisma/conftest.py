# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real server, and a separate database for every test."""

from __future__ import annotations

import random
from typing import Iterator

import pytest
from demo.postgres_server import Cluster
from support.databases import seed
from support.prisma_database import PASSWORD, ROLE, Database

__all__ = ["seed"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    server = Cluster.create(tmp_path_factory.mktemp("postgres"), options={"fsync": "off"})
    try:
        server.start()
        server.create_role(ROLE, "LOGIN CREATEDB", password=PASSWORD)
        yield server
    finally:
        server.destroy()


@pytest.fixture
def database(cluster) -> Iterator[Database]:
    name = "shop_%d" % random.SystemRandom().randrange(1 << 40)
    cluster.create_database(name, owner=ROLE)
    yield Database(cluster, name)
    cluster.sql('DROP DATABASE "%s" WITH (FORCE)' % name)
