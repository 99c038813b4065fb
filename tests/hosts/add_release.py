# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on a test host, as the user of the deploy: creates a commit on top of ET-100, with a tag.

PYTHONPATH=... python3 add_release.py TAG < {"path": "content, or null to remove the file"}
"""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile

from demo import repository

REPOSITORY = pathlib.Path("/srv/electricity-tokens/repository.git")
DATE = "2025-11-09T09:00:00+00:00"


def main() -> None:
    (tag,) = sys.argv[1:]
    files = repository.files_of(("base", "et-100"))
    parent = repository.git(REPOSITORY, "rev-parse", "--verify", repository.AFTER + "^{commit}")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, content) in enumerate(json.load(sys.stdin).items()):
            files.pop(name, None)
            if content is not None:
                files[name] = pathlib.Path(folder, str(number))
                files[name].write_text(content, encoding="utf-8")
        commit = repository.commit(REPOSITORY, files, tag, DATE, parents=[parent])
    repository.git(REPOSITORY, "update-ref", "refs/tags/" + tag, commit)


if __name__ == "__main__":
    main()
