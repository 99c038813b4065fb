# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finding statements in a migration that affect more than its own database.

A migration is rehearsed in a scratch database on the live server. Statements on roles, databases or the server would
have a real effect there, so such a migration is reported and not rehearsed. In doubt a statement is reported.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Iterator, List, Optional, Sequence, Set, Tuple

WORD = "word"
QUOTED = "quoted"
STRING = "string"
BODY = "body"
SIGN = "sign"


@dataclasses.dataclass(frozen=True)
class Token:
    kind: str
    #: Strings, bodies and quoted names, without their quotes.
    text: str
    #: Its position in the SQL.
    position: int

    @property
    def word(self) -> str:
        """A word in capitals; empty for all other tokens, including quoted names."""
        return self.text.upper() if self.kind == WORD else ""


@dataclasses.dataclass(frozen=True)
class ClusterStatement:
    """A statement that affects more than the database it runs in."""

    line: int
    text: str
    why: str


_SPACE = re.compile(r"\s+")
_LINE_COMMENT = re.compile(r"--[^\n]*")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_WORD = re.compile(r"[^\W\d][\w$]*")
_NUMBER = re.compile(r"\d[\w.]*")
_DOLLAR = re.compile(r"\$(?:[^\W\d]\w*)?\$")
_PLAIN_STRING = re.compile(r"'((?:[^']|'')*)(?:'|\Z)")
_ESCAPE_STRING = re.compile(r"'((?:[^'\\]|''|\\.|\\\Z)*)(?:'|\Z)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"]|"")*)(?:"|\Z)')


def tokens(sql: str) -> Iterator[Token]:
    """Split SQL into tokens; never fails: an unfinished token ends with the text."""
    position = 0
    while position < len(sql):
        found = _skip(sql, position)
        if found is not None:
            position = found
            continue
        token, position = _token(sql, position)
        yield token


def _skip(sql: str, position: int) -> Optional[int]:
    """The position after a space or comment that starts here."""
    match = _SPACE.match(sql, position) or _LINE_COMMENT.match(sql, position)
    if match:
        return match.end()
    if not sql.startswith("/*", position):
        return None
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, position):  # comments nest
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    return len(sql)


def _token(sql: str, position: int) -> Tuple[Token, int]:
    match = _WORD.match(sql, position)
    if match:
        if match.group() in ("E", "e") and sql.startswith("'", match.end()):
            return _string(_ESCAPE_STRING, sql, match.end())
        return Token(WORD, match.group(), position), match.end()
    if sql[position] == "'":
        return _string(_PLAIN_STRING, sql, position)
    match = _QUOTED.match(sql, position)
    if match:
        return Token(QUOTED, match.group(1).replace('""', '"'), position), match.end()
    match = _DOLLAR.match(sql, position)
    if match:
        end = sql.find(match.group(), match.end())
        end = len(sql) if end < 0 else end
        return Token(BODY, sql[match.end() : end], position), min(len(sql), end + len(match.group()))
    match = _NUMBER.match(sql, position)
    if match:
        return Token(SIGN, match.group(), position), match.end()
    return Token(SIGN, sql[position], position), position + 1


def _string(pattern: "re.Pattern[str]", sql: str, position: int) -> Tuple[Token, int]:
    match = pattern.match(sql, position)
    if match is None:
        raise AssertionError("the end of the text closes every quote")
    return Token(STRING, match.group(1).replace("''", "'"), position), match.end()


def statements(sql: str) -> List[List[Token]]:
    """The tokens of each statement, without the semicolons."""
    found: List[List[Token]] = [[]]
    for token in tokens(sql):
        if token.kind == SIGN and token.text == ";":
            found.append([])
        else:
            found[-1].append(token)
    return [statement for statement in found if statement]


# Effects beyond the database

_OBJECTS = {"ROLE", "USER", "GROUP", "DATABASE", "TABLESPACE"}
_FUNCTIONS = {
    "PG_TERMINATE_BACKEND": "ends sessions of other databases too",
    "PG_CANCEL_BACKEND": "cancels statements of other databases too",
    "PG_RELOAD_CONF": "makes the server read its settings",
    "PG_ROTATE_LOGFILE": "acts on the server's log",
    "PG_SWITCH_WAL": "acts on the server's log of changes",
    "PG_CREATE_PHYSICAL_REPLICATION_SLOT": "makes a replication slot",
    "PG_CREATE_LOGICAL_REPLICATION_SLOT": "makes a replication slot",
    "PG_DROP_REPLICATION_SLOT": "drops a replication slot",
    "PG_FILE_WRITE": "writes a file on the server",
    "LO_EXPORT": "writes a file on the server",
    "DBLINK": "runs SQL in another database",
    "DBLINK_EXEC": "runs SQL in another database",
    "DBLINK_CONNECT": "connects to another database",
}


def cluster_statements(sql: str) -> List[ClusterStatement]:
    """Every statement of a migration on roles, databases, the server or another server, in order."""
    found: List[ClusterStatement] = []
    for statement in statements(sql):
        why = _reason(statement) or _reason_in_bodies(statement)
        if why:
            line = sql.count("\n", 0, statement[0].position) + 1
            found.append(ClusterStatement(line, _shown(statement), why))
    return found


def _shown(statement: Sequence[Token]) -> str:
    """A statement for messages: on one line, its strings hidden (one may be a role's password)."""
    shown = {STRING: "'...'", BODY: "$$...$$", QUOTED: '"%s"'}
    text = " ".join(shown.get(token.kind, "%s").replace("%s", token.text) for token in statement)
    return text if len(text) <= 100 else text[:97] + "..."


def _words(statement: Sequence[Token], count: int) -> List[str]:
    return [token.word for token in statement[:count]] + [""] * (count - len(statement))


def _reason(statement: Sequence[Token]) -> Optional[str]:
    """Why one statement affects more than its database."""
    first, second, third = _words(statement, 3)
    words = {token.word for token in statement}
    if first in ("CREATE", "ALTER", "DROP"):
        if second in _OBJECTS and not (second == "USER" and third == "MAPPING"):
            return "acts on a %s, which belongs to the whole server" % second.lower()
        if second == "SYSTEM":
            return "changes settings of the whole server"
        if second == "SUBSCRIPTION":
            return "connects to another server"
    if first in ("GRANT", "REVOKE"):
        return _reason_grant(statement, words)
    if first in ("REASSIGN", "DROP") and second == "OWNED":
        return "acts on all that a role owns, on databases too"
    if first in ("COMMENT", "SECURITY") and _object_after_on(statement) in _OBJECTS:
        return "acts on an object of the whole server"
    if first == "COPY" and "PROGRAM" in words:
        return "runs a program on the server"
    return _reason_function(statement)


def _object_after_on(statement: Sequence[Token]) -> str:
    for token, following in zip(statement, statement[1:]):
        if token.word == "ON":
            return following.word
    return ""


def _reason_grant(statement: Sequence[Token], words: Set[str]) -> Optional[str]:
    if "ON" not in words:
        return "changes who is a member of a role"
    target = _object_after_on(statement)
    if target in ("DATABASE", "TABLESPACE", "PARAMETER"):
        return "changes rights on a %s, which belongs to the whole server" % target.lower()
    return None


def _reason_function(statement: Sequence[Token]) -> Optional[str]:
    for token, following in zip(statement, statement[1:]):
        # Quoted names are folded too: "pg_reload_conf"() is the same function.
        name = token.text.upper() if token.kind in (WORD, QUOTED) else ""
        if name in _FUNCTIONS and following.text == "(":
            return "%s: %s" % (_FUNCTIONS[name], name.lower())
    return None


#: Words in PL/pgSQL after which a statement starts.
_OPENERS = {"BEGIN", "THEN", "ELSE", "LOOP", "DECLARE", "EXECUTE", "ATOMIC"}


def _reason_in_bodies(statement: Sequence[Token]) -> Optional[str]:
    """Inspect the code of DO blocks and functions, and the strings that this code may execute."""
    words = _words(statement, 4)
    if words[0] != "DO" and not (words[0] == "CREATE" and {"FUNCTION", "PROCEDURE"} & set(words)):
        return None
    bodies = (token.text for token in statement if token.kind in (BODY, STRING))
    return next(filter(None, map(_reason_in_code, bodies)), None)


def _reason_in_code(code: str, depth: int = 0) -> Optional[str]:
    for statement in statements(code):
        starts = [0] + [place + 1 for place, token in enumerate(statement) if token.word in _OPENERS]
        for start in starts:
            why = _reason(statement[start:])
            if why:
                return why
        for token in statement:
            if token.kind in (STRING, BODY) and depth < 3:
                why = _reason_in_code(token.text, depth + 1)
                if why:
                    return why
    return None
