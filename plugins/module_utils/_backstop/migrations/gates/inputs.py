# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the gates are asked about."""

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
    """What the gates are asked about, beside the database and the store."""

    files: Sequence[history.MigrationFile]
    expected: Sequence[str]
    #: finds the release's own connections, by the variable from which each comes
    release_connections: Optional[Callable[[], Mapping[str, Settings]]] = None
    #: directory of the server's data on this host, for its free space
    database_directory: Optional[str] = None
    #: free space of the server's data, declared by the user, in bytes
    database_free_bytes: Optional[int] = None
    #: version of the server's programs on its disk, declared by the user
    server_programs_version: Optional[str] = None
    #: application host to its ``commit``, ``running``, ``healthy`` and ``elsewhere``; None when nobody looked
    applications: Optional[Mapping[str, Mapping[str, Any]]] = None
    #: whether drift closes its gate; else it is only told
    refuse_drift: bool = False
    #: gate name to reason
    waivers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: what the gate ``restorable`` foresaw of the pending migrations, or why it did not
    foresight: Union[Foresight, str] = "the gate restorable did not come that far"

    def release_users(self) -> List[str]:
        """The roles as which the release connects; none where that is not known, which its own gate tells."""
        try:
            found = self.release_connections() if self.release_connections else {}
        except BackstopError:
            return []
        return sorted({settings.user for settings in found.values()})


#: Tells what it found, or raises what closes the gate.
Check = Callable[[Site, Session, GateInputs], str]


def is_local(settings: Settings) -> bool:
    """Whether the server of a connection runs on this host, as far as its address tells: nobody can listen on another
    host's."""
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
