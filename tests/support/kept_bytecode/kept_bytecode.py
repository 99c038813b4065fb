# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keep the code that Python compiles when it imports from archives.

With each task Ansible sends a module and its library as source in an archive, and Python compiles the same text again:
a third of the time of a short module. Imported at the start of an interpreter, this compiles each text once; the same
text gives the same code. The folder is BACKSTOP_TEST_BYTECODE, or one in /var/tmp for each user.
"""

from __future__ import annotations

import _imp
import hashlib
import importlib.util
import marshal
import os
import zipimport

FOLDER = os.environ.get("BACKSTOP_TEST_BYTECODE") or "/var/tmp/backstop-test-bytecode-%d" % os.geteuid()
_compile = zipimport._compile_source


def _kept(path, source):
    digest = hashlib.sha256(importlib.util.MAGIC_NUMBER + source).hexdigest()
    place = os.path.join(FOLDER, digest)
    try:
        with open(place, "rb") as stream:
            code = marshal.loads(stream.read())
    except FileNotFoundError:
        code = _compile(path, source)
        _keep(code, place)
    else:
        # Tracebacks name the archive of this run.
        _imp._fix_co_filename(code, path)
    return code


def _keep(code, place):
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    partial = "%s.%d" % (place, os.getpid())
    with open(partial, "wb") as stream:
        stream.write(marshal.dumps(code))
    os.replace(partial, place)


# Code that another user may have written is not run.
if not os.path.isdir(FOLDER) or os.stat(FOLDER).st_uid == os.geteuid():
    zipimport._compile_source = _kept
