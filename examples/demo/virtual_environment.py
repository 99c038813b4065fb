# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's Python environment with Ansible and the PostgreSQL driver.

Debian and Ubuntu package a part of Python, `ensurepip`, separately; without it `python3 -m venv` fails. The environment
is then made without pip, and pip is downloaded as a wheel, from which it can run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

from .programs import DemoError, clean_environment, run

REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"
#: Debian's and Ubuntu's package that contains pip as a wheel.
PIP_PACKAGE = "python3-pip-whl"
NETWORK_HINT = "see that this machine reaches a Python package index (PIP_INDEX_URL names another than the usual one)"
VENV_HINT = "install Python's venv module (Debian, Ubuntu: python3-venv)"


def python_of(directory: Path) -> Path:
    return directory / "bin" / "python"


def works(directory: Path) -> bool:
    """True when the environment's Python runs and has pip; False after the machine's Python was replaced."""
    with contextlib.suppress(DemoError):
        probe = "import pip, sys; print(*sys.version_info[:2])"
        said = run([python_of(directory), "-c", probe], what="", accept=range(256)).stdout.split()
        return said == [str(part) for part in sys.version_info[:2]]
    return False


def make(directory: Path) -> bool:
    """Make an environment with pip; False when it exists."""
    if works(directory):
        return False
    shutil.rmtree(directory, ignore_errors=True)
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    options = [] if has_ensurepip else ["--without-pip"]
    argv = [sys.executable, "-m", "venv", *options, directory]
    run(argv, what="The Python environment could not be made", do=VENV_HINT)
    if not has_ensurepip:
        install_pip(directory)
    return True


def install_pip(directory: Path) -> None:
    """Install pip into an environment: by the machine's own pip if it has one, else from the distribution's package."""
    argv = [sys.executable, "-m", "pip", "--python", python_of(directory), "install", "--quiet", "pip"]
    if importlib.util.find_spec("pip") is not None:
        run(argv, what="pip could not be installed", environment=pip_environment(), do=NETWORK_HINT)
        return
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        wheel = wheel_out_of_package(Path(folder))
        argv = [python_of(directory), wheel / "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]
        run(argv, what="pip could not be installed", environment=pip_environment())


def wheel_out_of_package(folder: Path) -> Path:
    """pip's wheel, downloaded by apt into a folder of ours: this needs neither root nor an installation."""
    what = "Python on this machine has no ensurepip, and pip could not be installed another way"
    download = ["apt-get", *apt_options(folder), "download", "--quiet", PIP_PACKAGE]
    if shutil.which("apt-get") is None:
        raise DemoError(what, found="no apt-get either", do=VENV_HINT)
    run(["apt-get", *apt_options(folder), "update", "--quiet"], what=what, do=VENV_HINT)
    run(download, what=what, cwd=folder, do=VENV_HINT)
    for package in folder.glob("*.deb"):
        run(["dpkg-deb", "--extract", package, folder], what=what, do=VENV_HINT)
    for wheel in folder.glob("usr/share/python-wheels/pip-*.whl"):
        return wheel
    raise DemoError(what, found=f"no wheel of pip in {PIP_PACKAGE}", do=VENV_HINT)


def apt_options(folder: Path) -> list[str]:
    """Let apt work in our folder with the machine's sources, without changing the machine's own lists."""
    for name in ("lists/partial", "archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    settings = [f"Dir::State::lists={folder}/lists", f"Dir::Cache={folder}", "Acquire::Languages=none"]
    if os.geteuid() == 0:
        settings.append("APT::Sandbox::User=root")
    return [word for setting in settings for word in ("-o", setting)]


def pip_environment() -> dict[str, str]:
    """Override user settings that would install packages outside the environment."""
    return clean_environment({"PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"})


def install_requirements(directory: Path) -> bool:
    """Install Ansible and the driver; False when they are installed."""
    stamp = directory / "installed-requirements.txt"
    wanted = REQUIREMENTS.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return False
    argv = [python_of(directory), "-m", "pip", "install", "--quiet", "--prefer-binary", "-r", REQUIREMENTS]
    run(argv, what="Ansible could not be installed", environment=pip_environment(), do=NETWORK_HINT)
    stamp.write_text(wanted, encoding="utf-8")
    return True
