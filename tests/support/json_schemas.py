# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""JSON Schemas of the documentation, as tests use them."""

from __future__ import annotations

import copy
from typing import Any, Dict


def closed(schema: Dict[str, Any]) -> Dict[str, Any]:
    """The schema, changed to allow no fields that it does not describe."""
    schema = copy.deepcopy(schema)
    waiting: list[Any] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if "properties" in part:
                part["additionalProperties"] = False
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
    return schema
