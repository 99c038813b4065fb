# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the application reads from its environment file, to know which texts must never be shown."""
from __future__ import annotations

import re
from typing import Dict, List, Mapping
from urllib.parse import quote, unquote, urlsplit

_LINE = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(.*?)\s*$")
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|AUTH|COOKIE|SESSION|DSN", re.IGNORECASE)
#: Shorter values are words such as "on" and "1"; hiding them would make every message unreadable.
_SHORTEST_SECRET = 4


def read(path: str) -> Dict[str, str]:
    """The settings in a file of lines ``NAME=value``; an unreadable file has none for us."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return {}
    settings = {}
    for line in lines:
        match = _LINE.match(line)
        if match:
            settings[match.group(1)] = _unquote(match.group(2))
    return settings


def _unquote(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'`":
        return text[1:-1]
    return text.split(" #", 1)[0].rstrip()


def secrets_of(settings: Mapping[str, str]) -> List[str]:
    """The texts among these settings that must not be shown: passwords in URLs, and what bears a secret's name."""
    secrets = set()
    for name, value in settings.items():
        secrets.update(_secrets_of_url(value))
        if _SECRET_NAME.search(name):
            secrets.add(value)
    return sorted(secret for secret in secrets if len(secret) >= _SHORTEST_SECRET)


def _secrets_of_url(value: str) -> List[str]:
    if "://" not in value:
        return []
    try:
        password = urlsplit(value).password
    except ValueError:
        return [value]
    if not password:
        return []
    plain = unquote(password)
    return [value, password, plain, quote(plain, safe="")]
