# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Isolates itself permanently, then runs a command. For :mod:`.closed_off`.

Its source is passed to Python, so it imports nothing of the collection. The kernel enforces the isolation.

A server only listens on a Unix socket, so a system call filter is enough: it can create no other socket and connect to
none. A client must connect to what is relayed to it, so it gets two things:

- A network namespace of its own, which has only a loopback interface. It is created as root, or within a user
  namespace, which Linux allows every user by default.
- A system call filter (seccomp), which its child processes inherit and cannot remove. A namespace does not keep
  processes from Unix sockets in the file system, so the filter allows only sockets of the internet protocols.
  io_uring would bypass the filter; setns would let root return to the host's namespace.

More sockets in the namespace are created on request of the parent process, over a pair of sockets.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import threading
from typing import Callable, List, NoReturn, Sequence

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000  # clone(2)
_DEATH_SIGNAL, _SECCOMP, _NO_NEW_PRIVILEGES = 1, 22, 38  # prctl(2)
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1  # netdevice(7)
#: The architecture in seccomp(2), and its system call numbers; io_uring_setup is 425 on all.
_MACHINES = {
    "x86_64": (0xC000003E, {"socket": 41, "connect": 42, "setns": 308}),
    "aarch64": (0xC00000B7, {"socket": 198, "connect": 203, "setns": 268}),
}
_IO_URING_SETUP = 425
#: Address families that a client may use; netlink (16) is needed to list interfaces.
_CLIENT_FAMILIES = (int(socket.AF_INET), int(socket.AF_INET6), 16)
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | 1  # EPERM
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def close_network() -> None:
    """Enter a network namespace that has only a loopback interface."""
    user, group = os.geteuid(), os.getegid()
    flags = _NEW_NETWORK | (0 if user == 0 else _NEW_USER)
    if _LIBC.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))
    if user != 0:
        maps = (("setgroups", "deny"), ("uid_map", "%d %d 1" % (user, user)), ("gid_map", "%d %d 1" % (group, group)))
        for name, text in maps:
            with open("/proc/self/" + name, "w", encoding="ascii") as stream:
                stream.write(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(any_socket, _GET_FLAGS, request))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))
    found = [name for _index, name in socket.if_nameindex()]
    if found != ["lo"]:
        raise OSError("the namespace has the interfaces " + ", ".join(found))


def close_sockets(families: Sequence[int], denied: str) -> None:
    """Allow only sockets of these families, and deny one system call."""
    machine = platform.machine()
    if machine not in _MACHINES or sys.byteorder != "little" or struct.calcsize("P") != 8:
        raise OSError("no filter of system calls is known for " + machine)
    kind, calls = _MACHINES[machine]
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, kind), (_RETURN, 0, 0, _DENY), (_LOAD, 0, 0, 0)]
    # Numbers from 2**30 on are those of another interface of x86_64 (x32).
    for test, number in ((_AT_LEAST, 0x40000000), (_EQUAL, calls[denied]), (_EQUAL, _IO_URING_SETUP)):
        steps += [(test, 0, 1, number), (_RETURN, 0, 0, _DENY)]
    steps += [(_EQUAL, 1, 0, calls["socket"]), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 16)]
    for family in families:
        steps += [(_EQUAL, 0, 1, family), (_RETURN, 0, 0, _ALLOW)]
    steps += [(_RETURN, 0, 0, _DENY)]
    code = b"".join(struct.pack("HBBI", *step) for step in steps)
    program = _Program(len(steps), code)
    if _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or _LIBC.prctl(_SECCOMP, 2, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp: " + os.strerror(ctypes.get_errno()))


def require_denied(attempt: Callable[[], object]) -> None:
    """Verify that the filter is in force."""
    try:
        attempt()
    except PermissionError:
        return
    except OSError:
        pass
    raise OSError("the filter of system calls has no effect")


def end(*_arguments: object) -> NoReturn:
    os.killpg(0, signal.SIGKILL)
    raise AssertionError("unreachable")


def send(channel: socket.socket, text: bytes, sockets: List[socket.socket]) -> None:
    rights = array.array("i", [one.fileno() for one in sockets])
    channel.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if sockets else [])


def serve(channel: socket.socket) -> None:
    """Create sockets for the parent process; end all processes when it has ended."""
    while channel.recv(1):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as made:
            send(channel, b"s", [made])
    end()


def listen(port: int) -> List[socket.socket]:
    made = []
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.bind((address, port))
        except OSError:
            if family == socket.AF_INET:
                raise
            continue  # no IPv6 here
        listener.listen(128)
        made.append(listener)
    return made


def run_server(*command: str) -> NoReturn:
    close_sockets([int(socket.AF_UNIX)], "connect")
    require_denied(lambda: socket.socket(socket.AF_INET))
    require_denied(lambda: socket.socket(socket.AF_UNIX).connect("/nowhere"))
    os.execv(command[0], command)
    raise AssertionError("unreachable")


def run_client(descriptor: str, port: str, *command: str) -> int:
    channel = socket.socket(fileno=int(descriptor))
    signal.signal(signal.SIGUSR1, end)
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        close_network()
        # Entering a user namespace resets the parent-death signal.
        _LIBC.prctl(_DEATH_SIGNAL, int(signal.SIGUSR1), 0, 0, 0)
        close_sockets(_CLIENT_FAMILIES, "setns")
        require_denied(lambda: socket.socket(socket.AF_UNIX))
        listeners = listen(int(port))
    except OSError as error:
        send(channel, ("E" + (error.strerror or str(error))).encode(), [])
        return 1
    send(channel, b"R", listeners)
    for listener in listeners:
        listener.close()
    threading.Thread(target=serve, args=(channel,), daemon=True).start()
    status = subprocess.call(command, stdout=2)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    if sys.argv[1] == "server":
        run_server(*sys.argv[2:])
    raise SystemExit(run_client(*sys.argv[2:]))
