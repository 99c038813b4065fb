# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Frozen classes from their JSON: of a journal, a manifest, or a report that another host made."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, Mapping, Type, TypeVar

T = TypeVar("T")


def from_json(kind: Type[T], value: Mapping[str, Any]) -> T:
    """An instance of a dataclass from what dataclasses.asdict() made of it; unknown fields are ignored."""
    made: T = _typed(kind, value)
    return made


def _typed(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        names = [field.name for field in dataclasses.fields(kind) if field.name in value]
        return kind(**{name: _typed(hints[name], value[name]) for name in names})  # type: ignore[operator]
    if typing.get_origin(kind) is list:
        return [_typed(typing.get_args(kind)[0], one) for one in value]
    if typing.get_origin(kind) is typing.Union and value is not None:
        return _typed(typing.get_args(kind)[0], value)
    return value
