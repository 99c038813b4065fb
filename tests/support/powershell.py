# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parses PowerShell by its grammar, because it cannot be run here: errors, literals, hash tables, commands."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Union

import tree_sitter
import tree_sitter_powershell

_LANGUAGE = tree_sitter.Language(tree_sitter_powershell.language())
#: A value of a hash table: another one, or the text of an expression.
Value = Union[str, Dict[str, "Value"]]


class Script:
    """One script."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.root = tree_sitter.Parser(_LANGUAGE).parse(text.encode()).root_node

    def errors(self) -> List[str]:
        """Places that do not match the grammar."""
        return [
            "line %d: %s" % (node.start_point[0] + 1, _text(node)[:80])
            for node in _walk(self.root)
            if node.is_error or node.is_missing
        ]

    def value_of(self, variable: str) -> Any:
        """The first node that is assigned to a variable."""
        for node in _walk(self.root):
            if node.type == "assignment_expression" and _text(node.children[0]) == variable:
                return node.children[-1]
        raise AssertionError("nothing is assigned to " + variable)

    def strings(self, variable: str) -> List[str]:
        """The single-quoted strings in what is assigned to a variable."""
        return [
            _text(node)[1:-1].replace("''", "'")
            for node in _walk(self.value_of(variable))
            if node.type == "verbatim_string_characters"
        ]

    def table(self, variable: str) -> Dict[str, Value]:
        """The hash table that is assigned to a variable."""
        return _table(next(node for node in _walk(self.value_of(variable)) if node.type == "hash_literal_expression"))

    def functions(self) -> List[str]:
        return [
            _text(child)
            for node in _walk(self.root)
            if node.type == "function_statement"
            for child in node.children
            if child.type == "function_name"
        ]

    def commands(self) -> List[str]:
        """Names of all commands that are called."""
        return [_text(node) for node in _walk(self.root) if node.type == "command_name"]

    def variables(self) -> List[str]:
        return [_text(node) for node in _walk(self.root) if node.type == "variable"]


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _text(node: Any) -> str:
    return str(node.text.decode())


def _table(node: Any) -> Dict[str, Value]:
    found: Dict[str, Value] = {}
    for entry in _entries(node):
        key = _text(entry.children[0]).strip("'")
        value = [child for child in entry.children if child.type != ";"][-1]
        text = _text(value)
        if text.startswith(("@{", "[ordered]@{")):
            found[key] = _table(next(inner for inner in _walk(value) if inner.type == "hash_literal_expression"))
        else:
            found[key] = text
    return found


def _entries(node: Any) -> Iterator[Any]:
    """Entries of this hash table, without those of nested ones."""
    for child in node.children:
        if child.type == "hash_entry":
            yield child
        elif child.type != "hash_literal_expression":
            yield from _entries(child)
