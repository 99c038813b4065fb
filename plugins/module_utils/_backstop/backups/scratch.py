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
from ..site import Context
from ..store.layout import new_id


def name_for(context: Context, purpose: str) -> str:
    return scratch_name(context.operation.id if context.operation else new_id(), purpose)


@contextlib.contextmanager
def scratch_database(context: Context, session: Session, purpose: str) -> Iterator[Tuple[Session, str]]:
    """An empty database with the properties of the live one, dropped afterwards; a session beside it, and its name."""
    name = name_for(context, purpose)
    properties = read_properties(session, context.database)
    with context.administer() as admin:
        drop_scratch_database(admin, name)
        try:
            create_database(admin, name, properties)
            yield admin, name
        finally:
            drop_scratch_database(admin, name)
