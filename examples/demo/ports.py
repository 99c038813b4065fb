# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ports on the loopback interface, chosen below the system's ephemeral port range."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable

from .programs import DemoError

FIRST, LAST = 20000, 29999


def is_free(port: int) -> bool:
    """True when a server could listen on this port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(but_not: Iterable[int] = ()) -> int:
    """A free port; the search starts at a random port, so that two demos that start together do not choose the same."""
    taken = set(but_not)
    start = random.randrange(FIRST, LAST + 1)
    for offset in range(LAST - FIRST + 1):
        port = FIRST + (start - FIRST + offset) % (LAST - FIRST + 1)
        if port not in taken and is_free(port):
            return port
    raise DemoError("No free port", found=f"all of {FIRST} to {LAST} on 127.0.0.1 are in use")
