# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The library as one program: a zip file that Python runs. It is reproducible, so that it changes on a host only when
the library does."""

from __future__ import annotations

import io
import os
import re
import zipfile
from typing import Iterator, Tuple

from ..base.errors import Refused

#: Files that only Ansible imports.
_LEFT_OUT = ("ansible_boundary.py", "ansible_prisma.py", "ansible_service.py", "ansible_words.py")
#: Python, and what the page of a report is made from.
_ENDINGS = (".py", ".j2", ".css")
_PACKAGE = "_backstop"
_MAIN = b"""\
import sys

if sys.version_info < (3, 8):
    sys.exit("backstop needs Python 3.8 or newer, this is " + sys.version.split()[0])
from _backstop.command_line.main import main

sys.exit(main())
"""


def build_program(python: str) -> bytes:
    """The program.

    :param python: the host's Python, for the first line; it runs isolated from its caller's environment
    """
    if not re.fullmatch(r"/[^\s]{1,100}", python):
        raise Refused("Invalid path of a Python interpreter", found=repr(python), expected="such as /usr/bin/python3")
    content = io.BytesIO()
    content.write(b"#!" + python.encode() + b" -I\n")
    with zipfile.ZipFile(content, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, source in _sources():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, source, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _sources() -> Iterator[Tuple[str, bytes]]:
    """Every file of the library by its path in the archive, in an order that does not depend on the file system."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    yield "__main__.py", _MAIN
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(folder, name)
            inside = os.path.relpath(path, root)
            if name.endswith(_ENDINGS) and inside not in _LEFT_OUT:
                with open(path, "rb") as stream:
                    yield "/".join([_PACKAGE, *inside.split(os.sep)]), stream.read()
