# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every form in which a secret can appear in a program's output."""

from __future__ import annotations

import json
import re
from typing import List, Set
from urllib.parse import quote, unquote

#: Shorter values are words such as "on" and "1"; hiding them would make every message unreadable.
SHORTEST = 4
#: Up to the first @; and up to the last, because a password may contain an @ that was not encoded.
_URL_PASSWORDS = [re.compile(r"^[^:/]+://[^:@/]*:(%s)@" % text, re.DOTALL) for text in ("[^@]*", ".*")]
_PARAMETER = re.compile(r"[?&](?:password|sslpassword)=([^&#]*)")


def passwords_of_url(text: str) -> List[str]:
    """The passwords of a connection URL, as written in it."""
    found = [match.group(1) for match in (pattern.search(text) for pattern in _URL_PASSWORDS) if match]
    named = _PARAMETER.findall(text) if "://" in text else []
    return [password for password in dict.fromkeys(found + named) if password]


def encoded_forms(text: str) -> Set[str]:
    """A text as it is, percent-encoded and decoded, and as JSON."""
    plain = unquote(text)
    return {text, plain, quote(plain, safe=""), quote(plain), json.dumps(text)[1:-1], json.dumps(plain)[1:-1]}


def forms_of(value: str) -> List[str]:
    """The texts to hide for a secret value: the value, each of its lines, and a URL's passwords; in every form."""
    found: Set[str] = set()
    for text in [value, *value.splitlines(), *passwords_of_url(value)]:
        found |= encoded_forms(text.strip()) | {text}
    return sorted(text for text in found if len(text) >= SHORTEST)
