# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The properties of a database apart from its contents."""

from __future__ import annotations

import dataclasses
from typing import List, Optional


@dataclasses.dataclass(frozen=True)
class DatabaseSetting:
    """``name=value``, for a role or, if that is None, for all."""

    role: Optional[str]
    setting: str


@dataclasses.dataclass(frozen=True)
class DatabaseProperties:
    """The columns of pg_database, as docs/manifest.schema.json explains them."""

    owner: str
    encoding: str
    collate: str
    ctype: str
    locale_provider: str
    locale: Optional[str]
    icu_rules: Optional[str]
    collation_version: Optional[str]
    tablespace: str
    connection_limit: int
    allow_connections: bool
    comment: Optional[str]
    default_privileges: bool
    privileges: List[str]
    settings: List[DatabaseSetting]
