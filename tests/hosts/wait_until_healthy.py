# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs on a test host: ends when the application reports that it is healthy, or by systemd's own timeout."""

from __future__ import annotations

import time
import urllib.request


def healthy() -> bool:
    try:
        with urllib.request.urlopen("http://127.0.0.1:3000/api/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    while not healthy():
        time.sleep(0.2)
