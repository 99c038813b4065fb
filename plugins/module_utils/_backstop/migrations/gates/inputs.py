# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inputs of the gates."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
from typing import Any, Callable, List, Mapping, Optional, Sequence, Union

from ...base.errors import BackstopError
from ...postgres.connection import Session, Settings
from ...prisma import history
from ...site import Site
from ..foresight import Foresight


@dataclasses.dataclass
class GateInputs:
    """The inputs of the gates, besides the database and the store."""

    files: Sequence[history.MigrationFile]
    expected: Sequence[str]
    #: finds the release's own connections, by variable
    release_connections: Optional[Callable[[], Mapping[str, Settings]]] = None
    #: directory of the server's data on this host, for its free space
    database_directory: Optional[str] = None
    #: free space of the server's data, declared by the user, in bytes
    database_free_bytes: Optional[int] = None
    #: version of the server's programs on its disk, declared by the user
    server_programs_version: Optional[str] = None
    #: application host to its ``commit``, ``running``, ``healthy`` and ``elsewhere``; None if not checked
    applications: Optional[Mapping[str, Mapping[str, Any]]] = None
    #: whether drift fails its gate; else it is only reported
    refuse_drift: bool = False
    #: whether the database is copied right before the migration: SAFETY_COPIES of gates.safety_copy
    safety_copy: str = "off"
    #: how long that may take
    safety_copy_seconds: float = 60
    #: how it will be copied, as the gate ``safety_copy`` found; empty: not at all
    copy_method: str = ""
    #: gate name to reason
    waivers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: the prediction of the gate ``restorable`` for the pending migrations, or the reason why there is none
    foresight: Union[Foresight, str] = "the gate restorable did not come that far"

    def release_users(self) -> List[str]:
        """The roles as which the release connects; none where these are unknown, which another gate reports."""
        try:
            found = self.release_connections() if self.release_connections else {}
        except BackstopError:
            return []
        return sorted({settings.user for settings in found.values()})


#: Returns what it found, or raises the reason of a failure.
Check = Callable[[Site, Session, GateInputs], str]


def is_local(settings: Settings) -> bool:
    """Whether the server of a connection runs on this host, by its address: a socket can only be bound to a local
    address."""
    if settings.host.startswith("/"):
        return True
    try:
        found = socket.getaddrinfo(settings.host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(found) and all(_is_own(family, address) for family, _type, _protocol, _name, address in found)


def _is_own(family: int, address: Any) -> bool:
    if ipaddress.ip_address(address[0].split("%")[0]).is_loopback:
        return True
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(address)
        except OSError:
            return False
    return True
