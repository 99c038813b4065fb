# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a progress file is read on a host, and what may come of it."""

from __future__ import annotations

import os
import subprocess

import pytest
from ansible_collections.backstop.postgres.plugins.plugin_utils.progress_display import line_of, read_command


@pytest.mark.parametrize(
    "name", ["plain", "it's", 'a "b"', "$(touch evil)", "a;touch evil", "new\nline", "-n", "~root"]
)
def test_any_path_is_read_and_nothing_else_done(tmp_path, name) -> None:
    (tmp_path / name).write_text("known")
    for path in (str(tmp_path / name), "~/" + name):
        done = subprocess.run(
            ["/bin/sh", "-c", read_command(path)],
            env={**os.environ, "HOME": str(tmp_path)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            check=True,
        )
        assert done.stdout == b"known"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_home_directories() -> None:
    assert read_command("~backup/it's") == "cat -- ~backup/'it'\"'\"'s'"
    assert read_command("~$(id)/x") == "cat -- '~$(id)/x'"
    assert read_command("/~root/x") == "cat -- '/~root/x'"


@pytest.mark.parametrize(
    "text", ["", "nothing", "[]", "7", "{}", '{"phase": 1, "bytes_total": 7}', '{"phase": "x", "rate": {}, "left": []}']
)
def test_what_is_no_progress_is_not_shown(text) -> None:
    assert line_of(text) is None


def test_what_a_host_writes_cannot_control_the_terminal() -> None:
    assert line_of('{"phase": "dumping\\u001b[2J\\r\\n"}') == "dumping[2J"
    assert len(str(line_of('{"phase": "%s"}' % ("x" * 3000)))) == 200
