# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real OpenSSH server on 127.0.0.1 with keys of its own, run by the user of the tests, whose connections can be cut.

with ssh_server() as server:
    playing = site.start("deploy.yml", **server.variables())      # the same host, now over ssh
    ...
    server.cut()                                                  # all connections end, the server continues
    with server.unreachable():                                    # they end, and no new one is made
        ...
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Dict, Iterator, List

from demo import ports

#: What every connection of these tests uses: nothing of the user's own files.
_OPTIONS = "-F none -o UserKnownHostsFile=%(folder)s/known_hosts -o StrictHostKeyChecking=yes -o SendEnv=*"
_SETTINGS = """
ListenAddress 127.0.0.1
Port %(port)d
HostKey %(folder)s/host_key
AuthorizedKeysFile %(folder)s/key.pub
PidFile none
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
AcceptEnv *
Subsystem sftp internal-sftp
"""


@dataclasses.dataclass
class SshServer:
    """A server that runs between start() and stop()."""

    program: str
    folder: pathlib.Path
    port: int
    process: "subprocess.Popen[bytes]" = dataclasses.field(init=False)

    def start(self) -> None:
        argv = [self.program, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "log")]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.02)
        raise AssertionError("sshd does not run: " + (self.folder / "log").read_text("utf-8"))

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)  # else a connection could be made meanwhile
        self.cut()
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """All connections end, and none can be made in the block."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def variables(self) -> Dict[str, object]:
        """The extra variables with which a playbook reaches its hosts through this server.

        Environment variables of ansible-playbook reach the modules too, as they do without ssh.
        """
        return {
            "ansible_connection": "ssh",
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": pwd.getpwuid(os.geteuid()).pw_name,
            "ansible_ssh_private_key_file": str(self.folder / "key"),
            "ansible_ssh_common_args": _OPTIONS % {"folder": self.folder},
            # The path of a Unix socket ends at 107 bytes.
            "ansible_control_path_dir": str(self.folder),
        }

    def connections(self) -> List[int]:
        """Processes of the server that serve a connection; what these started is not among them."""
        found, parents = [], [self.process.pid]
        for parent in parents:
            with contextlib.suppress(OSError):
                children = pathlib.Path("/proc/%d/task/%d/children" % (parent, parent)).read_text("ascii")
                served = [int(child) for child in children.split() if _is_sshd(int(child))]
                parents += served
                found += served
        return found

    def cut(self) -> None:
        """End all connections at once; programs on the host get SIGHUP if they have a terminal, which Ansible gives
        them where pipelining is off.
        """
        for pid in self.connections():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _is_sshd(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return pathlib.Path("/proc/%d/comm" % pid).read_text("ascii").startswith("sshd")
    return False


@contextlib.contextmanager
def ssh_server() -> Iterator[SshServer]:
    """Start a server and stop it again."""
    program = shutil.which("sshd", path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")
    assert program, "OpenSSH's server is not installed: apt-get install openssh-server"
    if os.geteuid() == 0:
        # The directory of privilege separation; systemd makes it where the service runs.
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bt-ssh-"))
    try:
        for name in ("host_key", "key"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / name)]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        port = ports.choose()
        given = {"folder": folder, "port": port}
        (folder / "sshd_config").write_text(_SETTINGS % given, "utf-8")
        public = (folder / "host_key.pub").read_text("utf-8")
        (folder / "known_hosts").write_text("[127.0.0.1]:%d %s" % (port, public), "utf-8")
        made = SshServer(program, folder, port)
        try:
            made.start()
            yield made
        finally:
            made.stop()
    finally:
        # The client may remove its socket at the same time.
        shutil.rmtree(folder, ignore_errors=True)
