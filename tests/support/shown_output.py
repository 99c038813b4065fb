# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands that README and docs show, and the output below them, which is what the demo printed.

A block with output has a mark before it, a comment of its format: ``shown: NAME``, then optionally ``from "WORDS"`` and
``to "WORDS"``, which name the first and the last line of an excerpt. Its first line is the command.
"""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
import textwrap
from typing import Dict, Iterator, List, Mapping, Optional, Tuple

from .collection_files import ROOT

#: Replaces the lines of the output that an excerpt leaves out.
CUT = "..."
_MARK = r'shown: (?P<name>[\w-]+)(?: from "(?P<first>[^"]+)")?(?: to "(?P<last>[^"]+)")?'
_RST = re.compile(r"(?m)^\.\. %s\n\n\.\. code-block:: console\n\n(?P<block>(?: {3}.*\n|\n+(?= {3}))+)" % _MARK)
_MARKDOWN = re.compile(r"(?ms)^<!-- %s -->\n\n```console\n(?P<block>.*?)^```$" % _MARK)
_ANY = re.compile(r"(?m)^(?:\.\. |<!-- )shown: ")
#: What differs from run to run, and what stands for it in a comparison.
_VARYING = [
    # Where the account of the server cannot reach the demo's directory, and where that has a long path.
    (re.compile(r"/var/tmp/backstop-pm2-[0-9a-f]+|\.demo/pm2-home"), "PM2_HOME"),
    (re.compile(r"/var/tmp/backstop-[0-9a-f]+|\.demo/postgres"), "SERVER"),
    (re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}|\d{8}t\d{6}z_[0-9a-f]{6}"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z?)?(?: UTC)?"), "TIME"),
    (re.compile(r"\b\d+:\d\d:\d\d(?:\.\d+)?\b"), "TIME"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{7,64}\b"), "HEX"),
    (re.compile(r"127\.0\.0\.1:\d+"), "ADDRESS"),
    (re.compile(r"\b\d+(?:\.\d+)?(?: ?(?:ms|s|min|h|days|seconds?|minutes?))(?!\w)"), "SECONDS"),
    (re.compile(r"\b\d+(?:\.\d+)? ?(?:bytes|[kMGT]i?B)\b"), "SIZE"),
    (re.compile(r"PostgreSQL \d+(?:\.\d+)?"), "PostgreSQL"),
    (re.compile(r"([*─-])\1{3,}"), r"\1"),
    # Not every machine can try the old release: that needs network namespaces.
    (re.compile(r"(?i)(old release on the new schema): [^.;]+"), r"\1: RESULT"),
    (re.compile(r"works on the new schema|was not proved on the new schema(?:: .*(?:\n {4,}.*)*)?"), "RESULT"),
    # They change with every task that a role gets.
    (re.compile(r"\b(ok|skipped)=\d+"), r"\1=N"),
]


@dataclasses.dataclass(frozen=True)
class Shown:
    """A block of a page that shows a command of the demo and its output."""

    path: pathlib.Path
    name: str
    first: Optional[str]
    last: Optional[str]
    #: without the indentation of the page
    text: str
    #: of the block within the page
    span: Tuple[int, int]

    def expected(self, command: str, output: str) -> str:
        """The block as it should be."""
        lines = [line.rstrip() for line in output.strip("\n").splitlines()]
        begin = _index(lines, self.first, 0) if self.first else 0
        end = _index(lines, self.last, begin) + 1 if self.last else len(lines)
        kept = [CUT] * (begin > 0) + lines[begin:end] + [CUT] * (end < len(lines))
        return "\n".join(["$ " + command, *kept]) + "\n"


def _index(lines: List[str], words: str, begin: int) -> int:
    for number, line in enumerate(lines[begin:], begin):
        if words in line:
            return number
    raise AssertionError("no line of the output has %r:\n%s" % (words, "\n".join(lines)))


def pages() -> List[pathlib.Path]:
    """Every page for users and developers."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/docsite/rst/*.rst")]
    return sorted([*found, *ROOT.glob("roles/*/README.md")])


def shown_on(path: pathlib.Path) -> List[Shown]:
    text = path.read_text("utf-8")
    found = []
    for match in (_RST if path.suffix == ".rst" else _MARKDOWN).finditer(text):
        block = textwrap.dedent(match["block"])
        found.append(Shown(path, match["name"], match["first"], match["last"], block, match.span("block")))
    assert len(found) == len(_ANY.findall(text)), "%s: a mark without its block" % path
    return found


def differences(commands: Mapping[str, str], outputs: Mapping[str, str]) -> Iterator[str]:
    """What differs between the pages and a run: times, ids, sizes, addresses and line breaks do not count."""
    for path in pages():
        for shown in shown_on(path):
            expected = shown.expected(commands[shown.name], outputs[shown.name])
            pair = [lasting(shown.text), lasting(expected)]
            if pair[0].split() != pair[1].split():
                lines = [text.splitlines() for text in pair]
                yield "\n".join(difflib.unified_diff(*lines, str(path), "printed", lineterm=""))


def lasting(text: str) -> str:
    """An output without what differs from run to run."""
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    return text


def in_directory(directory: pathlib.Path, name: str, output: str) -> str:
    """An output in which a directory has another name. A line may be broken at a space of its path."""
    return re.sub(r"\s+".join(map(re.escape, str(directory).split(" "))), name, output)


def write(commands: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Put the output of a run into the pages."""
    for path in pages():
        text = path.read_text("utf-8")
        for shown in reversed(shown_on(path)):
            block = shown.expected(commands[shown.name], outputs[shown.name])
            if path.suffix == ".rst":
                block = textwrap.indent(block, "   ")
            text = text[: shown.span[0]] + block + text[shown.span[1] :]
        path.write_text(text, "utf-8")


def blocks_on(path: pathlib.Path, language: str) -> List[str]:
    """The blocks of code of a page in a language, given as a regular expression, without their indentation."""
    text = path.read_text("utf-8")
    if path.suffix == ".rst":
        found = re.findall(r"(?m)^ *\.\. code-block:: (?:%s)\n\n((?: {3}.*\n|\n)+)" % language, text)
    else:
        found = re.findall(r"(?ms)^```(?:%s)\n(.*?)^```$" % language, text)
    return [textwrap.dedent(block) for block in found]


def commands_on(path: pathlib.Path) -> Iterator[str]:
    """Each command of a page's blocks of such; continued lines are joined, comments are left out."""
    for block in blocks_on(path, "console|shell"):
        lines = block.replace("\\\n", " ").splitlines()
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        for line in prompted or lines:
            command = re.sub(r"\s+#.*$|^#.*$", "", line).strip()
            if command:
                yield command


def used_commands() -> Dict[str, List[pathlib.Path]]:
    found: Dict[str, List[pathlib.Path]] = {}
    for path in pages():
        for command in commands_on(path):
            found.setdefault(command, []).append(path)
    return found
