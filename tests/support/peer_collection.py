# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A module of any collection, run as Ansible would run it on this host, to compare two modules in the same situation.

community.postgresql comes from the package ``ansible`` on PyPI: its files are used, none is copied into this tree.
"""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import subprocess
import sys
import zipfile
from typing import Any, Dict, Mapping, NamedTuple

#: The newest that works with the oldest supported ansible-core.
PACKAGE = "ansible==12.3.0"
COLLECTION = "ansible_collections/community/postgresql/"
PLACE = pathlib.Path(__file__).resolve().parents[2] / ".test" / "peers"
_RUN = """
import importlib, json, sys
from ansible.module_utils.testing import patch_module_args
with patch_module_args(json.load(sys.stdin)):
    importlib.import_module(sys.argv[1]).main()
"""


class Said(NamedTuple):
    failed: bool
    changed: bool
    msg: str
    result: Dict[str, Any]


def community_postgresql() -> pathlib.Path:
    """The directory to import it from; downloaded once."""
    target = PLACE / PACKAGE.replace("==", "-")
    PLACE.mkdir(parents=True, exist_ok=True)
    with open(PLACE / "lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _unpack(target)
    return target


def _unpack(target: pathlib.Path) -> None:
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*argv, "--only-binary", ":all:", "--dest", str(PLACE), PACKAGE], check=True)
    (wheel,) = PLACE.glob("ansible-*.whl")
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(partial, [name for name in archive.namelist() if name.startswith(COLLECTION)])
    wheel.unlink()
    partial.rename(target)


def run(module: str, arguments: Mapping[str, Any], *, check: bool = False, **keywords: Any) -> Said:
    """Run a module by its name with the collection.

    :param keywords: of subprocess.run(), such as ``preexec_fn`` and ``umask``
    """
    namespace, collection, name = module.split(".")
    path = os.pathsep.join([str(community_postgresql()), os.environ["PYTHONPATH"]])
    argv = [sys.executable, "-c", _RUN, "ansible_collections.%s.%s.plugins.modules.%s" % (namespace, collection, name)]
    done = subprocess.run(
        argv,
        input=json.dumps({**arguments, "_ansible_check_mode": check}),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        **keywords,
    )
    assert done.stdout.startswith("\n{") or done.stdout.startswith("{"), done.stdout + done.stderr
    result = json.loads(done.stdout)
    return Said(bool(result.get("failed")), bool(result.get("changed")), str(result.get("msg", "")), result)
