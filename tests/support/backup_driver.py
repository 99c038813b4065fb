# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Make a backup in a process of its own, which a test can kill; then list what the store has, which may be in a file
system that only this process sees:

    python -m support.backup_driver URL STORE CLIENT_PROGRAMS
"""

from __future__ import annotations

import json
import pathlib
import sys

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.backups.make import make_backup
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.site import Site
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import manifest as manifests
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store


def main() -> int:
    url, root, tools = sys.argv[1:]
    settings, store = Settings.from_url(url), Store(root)
    site = Site(settings, settings.with_database("postgres"), store, tools)
    error = None
    try:
        make_backup(site, "daily")
    except BackstopError as caught:
        error = str(caught)
    backups = store.backups()
    for place in backups:
        manifests.check_files(place, manifests.load(place))
    levels = [manifests.level_of(place) for place in backups]
    partial = [str(path) for path in pathlib.Path(root).glob("*/.partial-*")]
    used = sum(path.stat().st_size for path in pathlib.Path(root).rglob("*") if path.is_file())
    print(json.dumps({"error": error, "levels": levels, "partial": partial, "used": used}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
