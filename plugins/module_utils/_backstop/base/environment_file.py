# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Environment files, read as the programs that use them do, and the secrets in them.

Node's package dotenv, which Prisma and pm2's applications use (``node --env-file`` reads sensible files the same way),
and systemd's EnvironmentFile= differ: in systemd a value may consist of several quoted parts, a backslash continues a
line, a # after a value belongs to it, and nothing is expanded.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, List, Mapping, Optional, Set, Tuple

from .secret_texts import forms_of

RULES = ("dotenv", "systemd")

# JavaScript's \s, ^, $ and \w, which differ from Python's.
_S = "[\\t\\n\\x0b\\x0c\\r \\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]"
_START = "(?:\\A|(?<=[\\n\\r\\u2028\\u2029]))"
_END = "(?=[\\n\\r\\u2028\\u2029]|\\Z)"
#: The regular expression of dotenv 16 and 17.
_DOTENV_LINE = re.compile(
    _START + _S + r"*(?:export" + _S + r"+)?([A-Za-z0-9_.-]+)(?:" + _S + r"*=" + _S + r"*?|:" + _S + r"+?)"
    r"("
    + _S
    + r"*'(?:\\'|[^'])*'|"
    + _S
    + r'*"(?:\\"|[^"])*"|'
    + _S
    + r"*`(?:\\`|[^`])*`|[^#\r\n]+)?"
    + _S
    + r"*(?:#[^\n\r\u2028\u2029]*)?"
    + _END
)
_DOTENV_QUOTES = re.compile(_START + "(['\"`])(.*)\\1" + _END, re.DOTALL)
_TRIMMED = re.compile("\\A%s+|%s+\\Z" % (_S, _S))

_REFERENCE = re.compile(r"(?<!\\)\$\{([^{}]+)\}|(?<!\\)\$([A-Za-z_][A-Za-z0-9_]*)")
_OPERATOR = re.compile(r":\+|\+|:-|-")

_SYSTEMD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SYSTEMD_ENTRY = re.compile(r"[ \t\n\r]*(?:[#;][^\n\r]*|([^\n\r][^=\n\r]*)(=)?)")
_SYSTEMD_QUOTED = re.compile(r"""[ \t]*(?:'([^']*)(?:'|\Z)|"((?:\\.|[^"\\])*)(?:"|\\?\Z))""", re.DOTALL)
#: Blanks at its end are not part of it, unless after a backslash.
_SYSTEMD_BARE = re.compile(r"[ \t]*((?:\\.|[^\\\n\r])*?)(?:[ \t]*(?=[\n\r]|\Z)|\\\Z)", re.DOTALL)

_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|AUTH|COOKIE|SESSION|DSN", re.IGNORECASE)
#: Words that many files and many messages contain.
_COMMON_WORD = re.compile(
    "true|false|none|null|undefined|auto|trace|debug|verbose|info|notice|warn|warning|error|fatal|silent|production|"
    r"development|staging|test|localhost|(?:\d{1,3}\.){3}\d{1,3}|::1?",
    re.IGNORECASE,
)


def read(path: str, rules: str = "dotenv") -> Dict[str, str]:
    """The settings in an environment file; none for an unreadable file.

    :param rules: ``dotenv``, with references expanded, or ``systemd``
    """
    text = _text(path)
    return parse_systemd(text) if rules == "systemd" else expand(parse_dotenv(text))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as stream:
            return stream.read()
    except OSError:
        return ""


def parse_dotenv(text: str) -> Dict[str, str]:
    """The result of Node's ``dotenv.parse`` for a text."""
    settings = {}
    for match in _DOTENV_LINE.finditer(re.sub("\r\n?", "\n", text)):
        value = _TRIMMED.sub("", match.group(2) or "")
        double = value.startswith('"')
        value = _DOTENV_QUOTES.sub(lambda quoted: quoted.group(2), value)
        if double:
            value = value.replace("\\n", "\n").replace("\\r", "\r")
        settings[match.group(1)] = value
    return settings


def expand(settings: Mapping[str, str]) -> Dict[str, str]:
    """Replace references as dotenv-expand 12 does: ``${NAME}``, ``${NAME:-default}``, ``${NAME:+other}``, ``$NAME``.

    Two rules are those of Prisma's own expansion, which dotenv-expand lacks: a name may be defined further down, and an
    undefined ``$NAME`` without braces stays, because in a password it is not a reference.
    """
    done: Dict[str, str] = {}
    at_work: Set[str] = set()

    def value_of(name: str) -> Optional[str]:
        if name not in done and name in settings and name not in at_work:
            at_work.add(name)
            done[name] = _expanded(settings[name], value_of).replace("\\$", "$")
            at_work.discard(name)
        return done.get(name)

    return {name: value_of(name) or "" for name in settings}


def _expanded(text: str, value_of: Callable[[str], Optional[str]]) -> str:
    seen: Set[str] = set()
    start = 0
    while text not in seen or start:
        match = _REFERENCE.search(text, start)
        if match is None:
            break
        expression, bare = match.groups()
        if bare and value_of(bare) is None:
            start = match.end()
            continue
        seen.add(text)
        name, new, other = _value_of_expression(expression or bare, value_of)
        text = _replaced_as_javascript_does(text, match.group(), other if not new or new in seen else new)
        if text == value_of(name):
            break
        start = 0
    return text


def _replaced_as_javascript_does(text: str, template: str, new: str) -> str:
    """dotenv-expand uses String.replace, which replaces the first occurrence, and where $$ means a $."""
    before, _template, after = text.partition(template)
    parts = {"$": "$", "&": template, "`": before, "'": after}
    return before + re.sub(r"\$([$&`'])", lambda found: parts[found.group(1)], new) + after


def _value_of_expression(expression: str, value_of: Callable[[str], Optional[str]]) -> Tuple[str, str, str]:
    """The name in an expression, its value, and its default for an empty value."""
    operator = _OPERATOR.search(expression)
    if operator is None:
        return expression, value_of(expression) or "", ""
    name, other = expression[: operator.start()], expression[operator.end() :]
    if operator.group() in (":+", "+"):
        return name, "", other if value_of(name) else ""
    return name, value_of(name) or "", other


def parse_systemd(text: str) -> Dict[str, str]:
    """What systemd 254 and newer reads from an EnvironmentFile= (systemd.exec(5))."""
    settings: Dict[str, str] = {}
    position = 0
    # For systemd it ends at a NUL, like a string in C.
    text = text.split("\0", 1)[0]
    while (entry := _SYSTEMD_ENTRY.match(text, position)) is not None:
        position = entry.end()
        if entry.group(2):
            value, position = _systemd_value(text, position)
            name = entry.group(1).strip(" \t")
            if _SYSTEMD_NAME.fullmatch(name):
                settings[name] = value
    return settings


def _systemd_value(text: str, position: int) -> Tuple[str, int]:
    """A value and where it ends: quoted parts first, then an unquoted one."""
    value = ""
    while (part := _SYSTEMD_QUOTED.match(text, position)) is not None:
        position = part.end()
        single, double = part.groups()
        value += single if double is None else re.sub(r'\\(["\\`$])|\\\n', lambda found: found.group(1) or "", double)
    bare = _SYSTEMD_BARE.match(text, position)
    if bare is None:
        return value, position
    value += re.sub(r"\\(.)", lambda found: found.group(1).strip("\n\r"), bare.group(1), flags=re.DOTALL)
    return value, bare.end()


def secrets_in(path: str) -> List[str]:
    """Every form of every value of an environment file, as any program reads it.

    Very short values, and common words (``production``, a port), are left out.
    """
    text = _text(path)
    plain = parse_dotenv(text)
    readings = [plain, expand(plain), parse_systemd(text)]
    values = {value for reading in readings for name, value in reading.items() if not _is_common(name, value)}
    # A value that no program could read, such as an unclosed quoted one, is secret too.
    for line in text.splitlines():
        name, equals, rest = line.strip().partition("=")
        shown = rest.strip().strip("'\"`") if equals else name
        if not name.startswith("#") and not _is_common(name, shown):
            values.add(shown)
    return sorted({form for value in values for form in forms_of(value)})


def secrets_of_values(values: Mapping[str, str]) -> List[str]:
    """The same for settings that are known already."""
    return sorted({form for name, value in values.items() if not _is_common(name, value) for form in forms_of(value)})


def _is_common(name: str, value: str) -> bool:
    return bool(_COMMON_WORD.fullmatch(value)) or (value.isdigit() and name.upper().endswith("PORT"))


def secrets_by_name(settings: Mapping[str, str]) -> List[str]:
    """For settings most of which may be shown, such as a request's headers: values whose name is that of a secret."""
    return secrets_of_values({name: value for name, value in settings.items() if _SECRET_NAME.search(name)})
