# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which texts of an environment file must never be shown."""
from __future__ import annotations

import pathlib

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.application.environment_file import (
    read,
    secrets_of,
)


def test_read_as_applications_read_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / ".env"
    path.write_text("# comment\nPORT=3000 # why\nexport A = 'x # y'\nB=\"two words\"\nnonsense\n C=`c`\nD=\n")
    assert read(str(path)) == {"PORT": "3000", "A": "x # y", "B": "two words", "C": "c", "D": ""}
    assert read(str(tmp_path / "missing")) == {}


def test_passwords_in_urls_and_what_bears_a_secrets_name() -> None:
    url = "postgresql://user:p%40ss%2Fword@localhost/x"
    secrets = secrets_of({
        "DATABASE_URL": url, "API_TOKEN": "token-1", "SessionKey": "key-1", "NODE_ENV": "production", "AUTH": "on",
        "PUBLIC_URL": "https://example.org/", "BROKEN": "http://[::1:x:y@",
    })
    assert set(secrets) == {url, "p%40ss%2Fword", "p@ss/word", "token-1", "key-1", "http://[::1:x:y@"}


def test_a_password_that_is_not_encoded() -> None:
    assert "pa+ss" in secrets_of({"URL": "postgresql://u:pa+ss@h/x"})
    assert "pa%2Bss" in secrets_of({"URL": "postgresql://u:pa+ss@h/x"})
