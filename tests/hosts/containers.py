# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The hosts of the Molecule scenarios: containers with systemd, started from images of a prepared site.

    containers.py image host|before|after   make it if it is missing (after: by the scenario default), print its name
    containers.py create                    the containers of a scenario, from Molecule's variables
    containers.py destroy
    containers.py keep CONTAINER            make the image after from a host on which ET-100 was deployed

The images: host is Debian with PostgreSQL and Node; before is a host with the application before ET-100; after
is the result of the scenario default. Their names contain a checksum of their sources.

A scenario's platform names its image. If a scenario has several, the server runs on the host of the group database
and the application on those of the group application; every host resolves the former as `database`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

PROJECT = pathlib.Path(__file__).resolve().parents[2]
PODMAN = PROJECT / "tests" / "hosts" / "podman"
VARIABLES = PROJECT / "molecule" / "_shared" / "group_vars" / "all.yml"
#: The path on a host of the code that prepares it.
COLLECTION = "/opt/collections/ansible_collections/backstop/postgres"
CODE = ("examples", "plugins/module_utils", "tests/hosts")
#: The sources of the two sites.
SOURCES = {
    "before": (*CODE, "molecule/_shared/group_vars"),
    "after": ("plugins", "roles", "playbooks", "molecule/default"),
}
NOT_SOURCE = {"__pycache__", "node_modules", "collections", "containers.py"}
ROWS = 400
LABEL = "backstop.site"
BOOT_SECONDS = 120.0
#: The machine's certificates, so that npm in the container trusts the same as the machine.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def podman(*arguments: str, data: bytes | None = None, accept: Sequence[int] = (0,)) -> str:
    """The output of podman; when it fails, an error with its message."""
    argv = [str(PODMAN), *arguments]
    done = subprocess.run(argv, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
    said, complaint = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if done.returncode not in accept:
        raise SystemExit("%s: status %d\n%s%s" % (" ".join(argv), done.returncode, said, complaint))
    return said.strip()


def holds(*arguments: str) -> bool:
    return subprocess.run([str(PODMAN), *arguments], check=False, stdout=subprocess.DEVNULL).returncode == 0


@contextlib.contextmanager
def exclusive(what: str) -> Iterator[None]:
    """Scenarios that run in parallel make an image once."""
    path = pathlib.Path(tempfile.gettempdir()) / ("backstop-hosts-%d-%s.lock" % (os.getuid(), what))
    with open(path, "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


# Images


def source_files(folders: Sequence[str]) -> Iterator[pathlib.Path]:
    for folder in folders:
        for path in sorted((PROJECT / folder).rglob("*")):
            if path.is_file() and not NOT_SOURCE.intersection(path.relative_to(PROJECT).parts):
                yield path


def host_image() -> str:
    printed = subprocess.run([str(PODMAN.parent / "build-image.sh")], check=True, stdout=subprocess.PIPE, text=True)
    return printed.stdout.splitlines()[-1]


def site_image(kind: str) -> str:
    """The image's name for the present sources."""
    digest = hashlib.sha256()
    for path in source_files(SOURCES["before"] + (SOURCES["after"] if kind == "after" else ())):
        digest.update(("%s\n" % path.relative_to(PROJECT)).encode() + path.read_bytes())
    return "localhost/backstop-site-%s:%s" % (kind, digest.hexdigest()[:12])


def image(kind: str) -> str:
    """The name of an image; it is made if it does not exist."""
    with exclusive("host"):
        host = host_image()
    if kind == "host":
        return host
    name = site_image(kind)
    with exclusive(kind):
        if not holds("image", "exists", name):
            {"before": make_before, "after": make_after}[kind](host, name)
    return name


def make_before(host: str, name: str) -> None:
    container = "backstop-making-" + name.rpartition(":")[2]
    podman("rm", "--force", "--ignore", container)
    run(container, host, ["--add-host=database:127.0.0.1"])
    wait_until_up(container)
    podman("exec", "-i", container, "tar", "-x", "-C", "/", data=code())
    variables = yaml.safe_load(VARIABLES.read_text("utf-8"))
    given = json.dumps({"url": variables["host_database_url"], "store": variables["backstop_store"]}).encode()
    path = "%s/tests/hosts/before_et_100.py" % COLLECTION
    python = "PYTHONPATH=%s/examples:/opt/collections" % COLLECTION
    podman("exec", "-i", "--env", python, container, "python3", path, str(ROWS), data=given)
    podman("exec", container, "systemctl", "enable", "--now", "pm2-deployer")
    keep(container, name)
    podman("rm", "--force", container)


def code() -> bytes:
    """The code that prepares a host, as one archive that every user may read."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for path in source_files(CODE):
            entry = archive.gettarinfo(path, COLLECTION + "/" + str(path.relative_to(PROJECT)))
            entry.mode, entry.uid, entry.gid = 0o755 if entry.mode & 0o100 else 0o644, 0, 0
            entry.uname = entry.gname = "root"
            with path.open("rb") as stream:
                archive.addfile(entry, stream)
        link = tarfile.TarInfo("/opt/backstop")
        link.type, link.linkname = tarfile.SYMTYPE, COLLECTION
        archive.addfile(link)
    return made.getvalue()


def make_after(_host: str, name: str) -> None:
    """The scenario default keeps it at its end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MOLECULE_")}
    with tempfile.TemporaryDirectory(prefix="bm-") as folder:
        environment["MOLECULE_EPHEMERAL_DIRECTORY"] = folder
        argv = ["molecule", "test", "--scenario-name", "default"]
        subprocess.run(argv, cwd=PROJECT, env=environment, check=True, stdout=sys.stderr)
    if not holds("image", "exists", name):
        raise SystemExit("The scenario default left no image " + name)


def keep(container: str, name: str) -> None:
    """Shut a host down cleanly and make an image of it; systemd gives each host started from it its own machine id."""
    podman("exec", container, "sh", "-c", "rm -rf /var/log/journal/*; truncate -s 0 /etc/machine-id")
    podman("stop", "--time", "60", container)
    podman("commit", "--quiet", "--change=LABEL %s=yes" % LABEL, container, name)
    # Old images of former sources, some hundred megabytes each.
    podman("image", "prune", "--all", "--force", "--filter=label=" + LABEL, "--filter=until=24h")


# Containers


def run(name: str, image_name: str, options: Sequence[str]) -> None:
    podman(
        "run",
        "--detach",
        "--name=" + name,
        "--hostname=" + name,
        "--volume=%s:%s:ro" % (CERTIFICATES, CERTIFICATES),
        "--cap-add=SYS_ADMIN",  # without it systemd silently ignores ProtectSystem= and similar settings
        "--cap-add=SYS_PTRACE",  # without it root cannot see the working directory of another user's process
        "--systemd=always",
        *options,
        image_name,
        "/sbin/init",
    )


def wait_until_up(name: str) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        state = podman("exec", name, "systemctl", "is-system-running", "--wait", accept=range(256))
        if state == "running":
            return
        if state == "degraded" or time.monotonic() > deadline:
            raise SystemExit(podman("exec", name, "systemctl", "status", "--failed", "--no-pager", accept=range(256)))
        time.sleep(0.2)


class Scenario:
    """A scenario's data from Molecule's variables."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.directory = pathlib.Path(environment["MOLECULE_EPHEMERAL_DIRECTORY"])
        self.instances = pathlib.Path(environment["MOLECULE_INSTANCE_CONFIG"])
        given = yaml.safe_load(pathlib.Path(environment["MOLECULE_FILE"]).read_text("utf-8"))
        self.platforms: list[dict[str, Any]] = given["platforms"]
        self.names = [str(platform["name"]) for platform in self.platforms]
        self.network = "backstop-" + environment["MOLECULE_SCENARIO_NAME"].replace("_", "-")

    def has(self, platform: Mapping[str, Any], part: str) -> bool:
        """Whether this part of the site runs on a host."""
        return len(self.platforms) == 1 or part in platform["groups"]

    def create(self) -> None:
        self.remove()
        images = {kind: image(kind) for kind in sorted({str(platform["image"]) for platform in self.platforms})}
        key = self.directory / "id_ed25519"
        if not key.exists():
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "molecule", "-f", str(key)]
            subprocess.run(argv, check=True)
        podman("network", "create", self.network)
        for platform in self.platforms:
            run(platform["name"], images[platform["image"]], self.options(platform, key))
        for name in self.names:
            wait_until_up(name)
        self.write_instances([self.instance(facts, key) for facts in json.loads(podman("inspect", *self.names))])

    def options(self, platform: Mapping[str, Any], key: pathlib.Path) -> list[str]:
        options = [
            "--network=" + self.network,
            "--publish=127.0.0.1::22",
            "--volume=%s.pub:/etc/ssh/molecule.pub:ro" % key,
        ]
        if platform["image"] == "host":
            return options
        masked = []
        if self.has(platform, "database"):
            options.append("--network-alias=database")
        else:
            masked += ["postgresql@.service", "postgresql.service"]
        if not self.has(platform, "application"):
            masked.append("pm2-deployer.service")
        if not self.has(platform, "backstop_runner"):
            # Anything that uses the store on this host by mistake fails.
            options.append("--tmpfs=/var/backups:ro,notmpcopyup")
        return options + ["--volume=/dev/null:/etc/systemd/system/%s:ro" % unit for unit in masked]

    @staticmethod
    def instance(facts: Mapping[str, Any], key: pathlib.Path) -> dict[str, Any]:
        port = int(facts["NetworkSettings"]["Ports"]["22/tcp"][0]["HostPort"])
        way = {"address": "127.0.0.1", "port": port, "user": "deployer", "identity_file": str(key)}
        return {"instance": facts["Name"], **way}

    def remove(self) -> None:
        podman("rm", "--force", "--ignore", "--volumes", "--time", "0", *self.names)
        if holds("network", "exists", self.network):
            podman("network", "rm", "--force", self.network)

    def destroy(self) -> None:
        self.remove()
        self.write_instances([])

    def write_instances(self, instances: Sequence[Mapping[str, Any]]) -> None:
        self.instances.write_text(yaml.safe_dump(list(instances)), encoding="utf-8")
        self.instances.chmod(0o600)


def main() -> None:
    command, *words = sys.argv[1:]
    if command == "image":
        print(image(words[0]))
    elif command == "keep":
        keep(words[0], site_image("after"))
    else:
        scenario = Scenario(os.environ)
        {"create": scenario.create, "destroy": scenario.destroy}[command]()


if __name__ == "__main__":
    main()
