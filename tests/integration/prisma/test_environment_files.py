# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Environment files are read as the real programs read them: dotenv, dotenv-expand, Prisma 6 and `node --env-file`."""

from __future__ import annotations

import json
import random
import subprocess

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.environment_file import (
    expand,
    parse_dotenv,
    read,
)
from support.prisma_project import PrismaProject, tools_of_prisma_7

pytestmark = pytest.mark.prisma

PIECES = [
    "A",
    "B_1",
    "export ",
    "export\t",
    " ",
    "\t",
    "=",
    ":",
    ": ",
    "'",
    '"',
    "`",
    "\\",
    "\\n",
    "\\r",
    "\n",
    "\r\n",
    "\r",
    "#",
    " #",
    "$",
    "${A}",
    "${B_1:-x}",
    "a",
    "é",
    "\u2028",
    "\ufeff",
    "\x85",
    "\x0b",
    ";",
    "-",
    ".",
]
REFERENCES = ["${%s}", "$%s", "${%s:-d-e}", "${%s-d}", "${%s:+o}", "${%s+o}"]
CASES = 4000


def asked(program, cases):
    """For each case, the value of a JavaScript expression of `x`, with dotenv as `d` and dotenv-expand as `e`."""
    tools = tools_of_prisma_7()
    script = (
        "const d = require('dotenv'), e = require('dotenv-expand'), cases = JSON.parse(require('fs').readFileSync(0));"
        "process.stdout.write(JSON.stringify(cases.map(x => %s)))" % program
    )
    said = subprocess.run(
        [tools.node.bin_dir / "node", "-e", script],
        cwd=tools.installed,
        input=json.dumps(cases),
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    return json.loads(said.stdout)


def some(chance, pieces, most):
    return "".join(chance.choice(pieces) for _number in range(chance.randrange(most)))


def lines(chance):
    written = []
    for _number in range(chance.randrange(1, 6)):
        quote = chance.choice(["", "'", '"', "`"])
        start = chance.choice(["", "export ", " "]) + chance.choice("ABC") + chance.choice(["=", " = ", ": ", "= "])
        written.append(start + quote + some(chance, PIECES, 8) + quote + chance.choice(["", " # c", " ", "#c"]))
    return chance.choice(["", "\ufeff"]) + chance.choice(["\n", "\r\n", "\r"]).join(written)


def test_any_text_is_read_as_dotenv_reads_it(seed):
    chance = random.Random(seed)
    texts = [some(chance, PIECES, 40) if number % 2 else lines(chance) for number in range(CASES)]
    for text, expected in zip(texts, asked("d.parse(x)", texts)):
        assert parse_dotenv(text) == expected, repr(text)


def test_references_are_replaced_as_dotenv_expand_does(seed):
    chance = random.Random(seed)

    def settings():
        made = {}
        for number, name in enumerate("ABCDE"):
            pieces = [" x", "/", "@", "-", " 1", " {", " }", "${Z:-q}", "${Z}", "${Z:-${Y:-r}}", "${Z-}"]
            # dotenv-expand replaces an escaped reference in a value that others refer to; this is not used in practice.
            patterns = REFERENCES + (["\\${%s}", "\\$%s"] if name == "E" else [])
            pieces += [pattern % other for other in "ABCDE"[:number] for pattern in patterns]
            made[name] = some(chance, pieces, 5)
        return made

    cases = [settings() for _number in range(CASES)]
    for case, expected in zip(cases, asked("e.expand({parsed:{...x},processEnv:{}}).parsed", cases)):
        assert expand(case) == expected, case


FILE = """\
\ufeff# the application's
export PW="a b#c" # comment
HOST=db
DATABASE_URL="postgresql://u:${PW}@${HOST}/x?y=${LATER}&z=q$nope"\r
LATER=lt
BACK=`a"b'c`
KEY='-----BEGIN
line
end'
TEXT="one\\ntwo"
EMPTY=
"""


def test_prisma_and_node_read_this_file_so(tmp_path):
    project = PrismaProject.create(tmp_path / "release", {})
    (project.path / ".env").write_bytes(FILE.encode())
    engine, dump = tmp_path / "engine", tmp_path / "dump.json"
    node = project.tools.node.bin_dir / "node"
    shown = "process.stdout.write(JSON.stringify(process.env))"
    engine.write_text("#!/bin/sh\nexec '%s' -e '%s' >'%s'\n" % (node, shown, dump), "utf-8")
    engine.chmod(0o755)
    variables = {**project.tools.environment, "PRISMA_SCHEMA_ENGINE_BINARY": str(engine)}
    command = ["node", project.path / "node_modules/prisma/build/index.js", "migrate", "status"]
    project.tools.node.run(command, cwd=project.path, environment=variables, accept=range(256))
    settings = read(str(project.path / ".env"))
    prismas = json.loads(dump.read_text("utf-8"))
    assert {name: prismas[name] for name in settings} == settings
    (tmp_path / "node.env").write_text(FILE.lstrip("\ufeff"), "utf-8")
    said = project.tools.node.run(["node", "--env-file=%s" % (tmp_path / "node.env"), "-e", shown], cwd=tmp_path)
    plain = parse_dotenv(FILE)
    nodes = json.loads(said.stdout)
    assert {name: nodes[name] for name in plain} == plain
