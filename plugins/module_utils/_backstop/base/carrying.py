# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Relaying bytes between two sockets, in both directions at once."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl

_BLOCK = 65536
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Way:
    """One direction of a connection; bytes that were read are sent before more are read."""

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.waiting = b""
        self.ended = False

    @property
    def over(self) -> bool:
        return self.ended and not self.waiting

    def move(self) -> bool:
        """True if bytes could be moved without waiting."""
        moved = False
        with contextlib.suppress(*_LATER):
            if not self.waiting and not self.ended:
                self.waiting = self.source.recv(_BLOCK)
                self.ended = not self.waiting
                moved = True
        with contextlib.suppress(*_LATER):
            if self.waiting:
                self.waiting = self.waiting[self.target.send(self.waiting) :]
                moved = True
        return moved


def carry(client: socket.socket, server: socket.socket, alive: socket.socket) -> None:
    """Relay bytes until one side ends, or until ``alive`` becomes readable because its owner closed the other end."""
    client.setblocking(False)
    server.setblocking(False)
    there, back = _Way(client, server), _Way(server, client)
    while not (there.over or back.over):
        # Before waiting: TLS may have buffered bytes that a selector does not see.
        if any([there.move(), back.move()]):
            continue
        with selectors.DefaultSelector() as selector:
            selector.register(alive, selectors.EVENT_READ)
            for incoming, outgoing in ((there, back), (back, there)):
                events = 0 if incoming.waiting else selectors.EVENT_READ
                events |= selectors.EVENT_WRITE if outgoing.waiting else 0
                if events:
                    selector.register(incoming.source, events)
            if any(key.fileobj is alive for key, _events in selector.select()):
                return
