# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real keys of age, made for one test."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import subprocess


@dataclasses.dataclass(frozen=True)
class Key:
    """The file with a private key, and its public key."""

    identity: str
    recipient: str

    @property
    def secret(self) -> str:
        return pathlib.Path(self.identity).read_text("utf-8").splitlines()[-1]


def make_key(folder: pathlib.Path, name: str = "identity.txt") -> Key:
    path = folder / name
    subprocess.run(["age-keygen", "-o", str(path)], check=True, capture_output=True)
    found = re.search(r"age1[a-z0-9]+", path.read_text("utf-8"))
    assert found
    return Key(str(path), found.group())
