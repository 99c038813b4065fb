# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's paths: all below one directory, except those that would be too long or not private enough there."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from .programs import DemoError

CHECKOUT = Path(__file__).resolve().parents[2]
#: A directory to use instead of the checkout's .demo.
CHOICE = "BACKSTOP_DEMO_DIRECTORY"
#: The longest path of a Unix socket, and the longest file name that pm2 makes in its home.
LONGEST_SOCKET_PATH = 107
LONGEST_SOCKET_NAME = "/interactor.sock"
#: Characters with a special meaning in PATH, ansible.cfg, an inventory's name, a template or a shell.
MISREAD_BY_SOMEBODY = re.compile(r"""[:;,%{}$`'"\\\n\t]""")
#: With one of these in the path of its home, pm2's daemon loops forever instead of listening.
MISREAD_BY_PM2 = re.compile(r"[ #?]")


@dataclass(frozen=True)
class Places:
    """Paths of one demo."""

    directory: Path
    checkout: Path = CHECKOUT

    @classmethod
    def here(cls) -> Places:
        directory = Path(os.environ.get(CHOICE) or CHECKOUT / ".demo").absolute()
        forbidden = MISREAD_BY_SOMEBODY.findall(str(directory))
        if forbidden:
            raise DemoError(
                f"The demo cannot work in a path with {' '.join(map(repr, forbidden))}",
                found=str(directory),
                do=f"move the checkout, or set {CHOICE} to another directory",
            )
        return cls(directory)

    @property
    def short_name(self) -> str:
        """Distinguishes this demo from others on the machine."""
        return hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]

    @property
    def state_file(self) -> Path:
        return self.directory / "state.json"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def environment(self) -> Path:
        return self.directory / "venv"

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    @property
    def programs(self) -> Path:
        """Node and PostgreSQL from wheels, when the machine lacks them."""
        return self.directory / "programs"

    @property
    def cluster(self) -> Path:
        return self.directory / "postgres"

    @property
    def npm_cache(self) -> Path:
        return self.directory / "npm-cache"

    @property
    def prisma_engine(self) -> Path:
        return self.directory / "prisma-engine"

    @property
    def pm2(self) -> Path:
        return self.directory / "pm2"

    @property
    def pm2_executable(self) -> Path:
        return self.pm2 / "node_modules" / ".bin" / "pm2"

    @property
    def pm2_home(self) -> Path:
        usual = self.directory / "pm2-home"
        short_enough = len(os.fsencode(usual)) + len(LONGEST_SOCKET_NAME) <= LONGEST_SOCKET_PATH
        if short_enough and not MISREAD_BY_PM2.search(str(usual)):
            return usual
        return Path("/var/tmp") / f"backstop-pm2-{self.short_name}"

    @property
    def repository(self) -> Path:
        return self.directory / "repository.git"

    @property
    def application(self) -> Path:
        """The application's root: releases, current, shared."""
        return self.directory / "application"

    @property
    def environment_file(self) -> Path:
        return self.application / "shared" / ".env"

    @property
    def current(self) -> Path:
        return self.application / "current"

    @property
    def store(self) -> Path:
        return self.directory / "store"

    @property
    def inventory(self) -> Path:
        return self.directory / "inventory"

    @property
    def hosts(self) -> Path:
        return self.inventory / "hosts.yml"

    @property
    def ansible_home(self) -> Path:
        return self.directory / "ansible"

    @property
    def ansible_config(self) -> Path:
        return self.directory / "ansible.cfg"

    @property
    def password_file(self) -> Path:
        return self.directory / "pgpass"

    @property
    def playbooks(self) -> Path:
        return self.checkout / "playbooks"

    @property
    def collections(self) -> Path:
        """Where Ansible and Python find the collection of this checkout by its name."""
        return self.playbooks / "collections"
