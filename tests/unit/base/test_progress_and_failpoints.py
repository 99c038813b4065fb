# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run's progress, and the failpoints at which a test can interrupt it."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import Progress, timestamp

SCRIPT = """
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.failpoints import reach
for name in ("one", "two", "two", "three"):
    reach(name)
    print(name, flush=True)
"""


def reached(**variables):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BACKSTOP_FAIL")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env={**environment, **variables}, stdout=subprocess.PIPE, check=False, text=True
    )
    return done.returncode, done.stdout.split()


def test_failpoints(tmp_path):
    assert reached() == (0, ["one", "two", "two", "three"])
    assert reached(BACKSTOP_FAILPOINT="two") == (-signal.SIGKILL, ["one"])
    assert reached(BACKSTOP_FAILPOINT="two#2") == (-signal.SIGKILL, ["one", "two"])
    assert reached(BACKSTOP_FAILPOINT="two#3")[0] == 0
    log = tmp_path / "log"
    reached(BACKSTOP_FAILPOINT_LOG=str(log), BACKSTOP_FAILPOINT="three")
    assert log.read_text().split() == ["one", "two", "two", "three"]


def test_progress(tmp_path):
    progress = Progress(str(tmp_path))
    progress.phase("dumping", database="shop")
    progress.phase("comparing", table=3)
    found = json.loads((tmp_path / "progress.json").read_text())
    assert found["phase"] == "comparing" and found["table"] == 3 and found["pid"] == os.getpid()
    assert found["started"] <= found["since"]
    Progress().phase("silent")


def test_timestamps_are_utc_to_the_millisecond():
    moment = datetime.datetime(2025, 11, 8, 2, 0, 0, 123999, tzinfo=datetime.timezone.utc)
    assert timestamp(moment) == "2025-11-08T02:00:00.123Z"
    east = moment.astimezone(datetime.timezone(datetime.timedelta(hours=2)))
    assert timestamp(east) == timestamp(moment)
