# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A scratch database in which a gate tries something."""

from __future__ import annotations

import contextlib
from typing import Iterator, Tuple

from ..base.sql_names import scratch_name
from ..postgres.connection import Session
from ..postgres.database_properties import create_database, drop_scratch_database, read_properties
from ..site import Site
from ..store.layout import new_id


def name_for(site: Site, purpose: str) -> str:
    return scratch_name(site.operation.id if site.operation else new_id(), purpose)


@contextlib.contextmanager
def scratch_database(site: Site, session: Session, purpose: str) -> Iterator[Tuple[Session, str]]:
    """An empty database with the live one's properties, dropped afterwards; an administrative session, and its name."""
    name = name_for(site, purpose)
    properties = read_properties(session, site.database)
    with site.administer() as admin:
        drop_scratch_database(admin, name)
        try:
            create_database(admin, name, properties)
            yield admin, name
        finally:
            drop_scratch_database(admin, name)
