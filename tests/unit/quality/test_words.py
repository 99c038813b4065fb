# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Texts and names use the terms of PostgreSQL, Ansible and Prisma, not words that only sound like English."""

from __future__ import annotations

import re
import subprocess

from support.collection_files import ROOT

#: What is not written, and what to write.
INSTEAD = {
    r"newcomers?": "new connections",
    r"(?:goes|go|going) on": "continue",
    r"says of|tells? (?:of|the|which|whether)|told|foretold": "report, show, return; or name the value",
    r"whoever|somebody(?:'s)?": "the session, process or user",
    r"mend(?:s|ed|ing)?": "fix",
    r"leads? (?:to|back)": "point to, revert",
    r"otherwise than": "differently from",
    r"none any ?more": "no longer",
    r"is (?:ill|not well)": "is unhealthy",
    r"stands beside": "is in, is next to",
    r"way forth": "how to deploy again",
    r"anew": "again",
    r"wish(?:es)?": "request",
}
PLACES = [
    *("plugins", "roles", "playbooks", "docs", "meta", "molecule", "examples/demo", "benchmarks"),
    *("README.md", "CONTRIBUTING.md", "demo.sh", "test.sh"),
]
#: Errors tell the user what to do, and an address can be "tell the team": these are English.
FINE = ("tell the user", "tell the team leads", "of-somebody-else")


def test_no_word_that_reads_oddly() -> None:
    argv = ["git", "-c", "safe.directory=*", "grep", "-nIiE", r"\b(%s)\b" % "|".join(INSTEAD).replace("(?:", "("), "--"]
    done = subprocess.run([*argv, *PLACES], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    found = []
    for line in done.stdout.splitlines():
        if any(words in line for words in FINE):
            continue
        better = [better for word, better in INSTEAD.items() if re.search(r"(?i)\b(?:%s)\b" % word, line)]
        found.append("%s\n    write: %s" % (line[:200], "; ".join(better)))
    assert not found, "\n".join(found)
