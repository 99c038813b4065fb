# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keep what Ansible sends for each module from one run of a playbook to the next.

In each run Ansible reads a module's whole library again to find its imports, and packs it: about half as long as the
module then takes to start. The folder depends on the sources, so that changed code is packed again.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
import sys
import time

from ansible import constants
from ansible.plugins.callback import CallbackBase
from ansible.release import __version__

DOCUMENTATION = """
name: kept_payloads
type: notification
short_description: Keep the payloads of modules between runs
description: For the tests only.
"""
FOLDER = os.environ.get("BACKSTOP_TEST_PAYLOADS", "")
SECONDS_KEPT = 24 * 3600
PLUGINS = pathlib.Path(__file__).resolve().parents[3] / "plugins"


def version(plugins=PLUGINS):
    """Differs when anything that is packed does."""
    digest = hashlib.sha256(("%s %s" % (__version__, sys.version)).encode())
    for path in sorted(plugins.rglob("*.py")):
        content = path.read_bytes()
        digest.update(b"\0%s\0%d\0" % (os.fsencode(path), len(content)))
        digest.update(content)
    return digest.hexdigest()[:16]


def remove_old(kept):
    """Remove payloads of sources that have changed since; others may be in use."""
    for other in kept.parent.iterdir():
        if other != kept and other.stat().st_mtime < time.time() - SECONDS_KEPT:
            shutil.rmtree(other, ignore_errors=True)


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "kept_payloads"

    def v2_playbook_on_start(self, playbook):
        if FOLDER:
            kept = pathlib.Path(FOLDER, version())
            if not kept.is_dir():
                kept.mkdir(mode=0o700, parents=True, exist_ok=True)
                remove_old(kept)
            # Payloads are pickled: those that another user may have made are not used.
            if kept.stat().st_uid == os.geteuid():
                pathlib.Path(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache").symlink_to(kept)
