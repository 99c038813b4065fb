# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ways to other servers that a migration opens, which closing a copy does not prevent, and the relations it writes."""

from __future__ import annotations

from typing import Collection, Iterator, List, Sequence, Set

from .sql_text import BODY, QUOTED, STRING, WORD, Token, statements

_WRITING = {"INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "TRUNCATE"}
#: Trusted languages; a function in any other language can do anything.
_TRUSTED = {"SQL", "PLPGSQL", "PLPERL", "PLTCL", "PLV8", "PLJAVA", "PLRUST", "PLLUA"}


def openings(sql: str, reaching: Collection[str]) -> List[str]:
    """Statements that open a way to another server or to programs: "line 3: creates a foreign server".

    :param reaching: names of the extensions that do so
    """
    found = []
    for statement in statements(sql):
        for inner in _with_bodies(statement):
            why = _opens(inner, reaching)
            if why:
                found.append("line %d: %s" % (sql.count("\n", 0, statement[0].position) + 1, why))
                break
    return found


def written_names(sql: str) -> Set[str]:
    """Every name in statements that write rows, and in code with such statements; folded as by the server."""
    names: Set[str] = set()
    for statement in statements(sql):
        for inner in _with_bodies(statement):
            if any(token.word in _WRITING for token in inner):
                names.update(_name(token) for token in inner if token.kind in (WORD, QUOTED))
    return names


def notifies(sql: str) -> bool:
    """Whether it sends notifications."""
    return any(
        inner[0].word == "NOTIFY" or "pg_notify" in map(_name, inner)
        for statement in statements(sql)
        for inner in _with_bodies(statement)
    )


def _name(token: Token) -> str:
    return token.text.lower() if token.kind == WORD else token.text


def _with_bodies(statement: Sequence[Token], depth: int = 0) -> Iterator[Sequence[Token]]:
    """The statement and, if it contains code, the statements in the code and in its strings, which it may execute."""
    yield statement
    words = {token.word for token in statement[:5]}
    if depth == 0 and "DO" not in words and not ("CREATE" in words and {"FUNCTION", "PROCEDURE"} & words):
        return
    for token in statement:
        if token.kind in (STRING, BODY) and depth < 3:
            for inner in statements(token.text):
                yield from _with_bodies(inner, depth + 1)


def _opens(statement: Sequence[Token], reaching: Collection[str]) -> str:
    words = [token.word for token in statement]
    for place, word in enumerate(words):
        following = words[place + 1 : place + 6]
        if word in ("CREATE", "ALTER") and (
            following[:1] == ["SERVER"]
            or following[:2] == ["USER", "MAPPING"]
            or following[:3] == ["FOREIGN", "DATA", "WRAPPER"]
        ):
            return "creates or changes a way to a foreign server"
        if word == "IMPORT" and following[:2] == ["FOREIGN", "SCHEMA"]:
            return "asks a foreign server"
        if word == "CREATE" and following[:1] == ["EXTENSION"]:
            named = {_name(token) for token in statement[place + 2 : place + 6]} & set(reaching)
            if named:
                return "installs extension %s, which reaches other databases or servers" % ", ".join(sorted(named))
        if word == "LANGUAGE" and statement[place + 1 :]:
            language = statement[place + 1].text.upper()
            if language not in _TRUSTED and {"FUNCTION", "PROCEDURE", "DO"} & set(words):
                return "has code in %s, which can do anything" % language.lower()
    return ""
