# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Real operations of the demo, recorded: journals, manifests and verifications, for tests of reports.

To record again, run the demo's deploy, a rollback and its undo, a rollback that loses rows, and a failing deploy; then

    python -m support.recorded_store .demo/store

Host, user and paths are replaced; what reports do not read is left out.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import sys
from typing import Any, Dict

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store

RECORDED = pathlib.Path(__file__).with_suffix(".json")
#: Parts of a manifest that reports do not read.
_LEFT_OUT = ("definitions", "dumped", "sequences", "extensions")
_NAMES = ("manifest.json", "verification.json", "operation.json", "journal.jsonl")


def record(root: pathlib.Path) -> Dict[str, str]:
    """The files of a store, by their paths in it."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.name not in _NAMES:
            continue
        text = path.read_text("utf-8")
        if path.name == "manifest.json":
            manifest = {key: value for key, value in json.loads(text).items() if key not in _LEFT_OUT}
            text = json.dumps(manifest, sort_keys=True)
        for actual, shown in ((str(root), "/var/backups/backstop"), (str(root.parent), "/srv/demo")):
            text = text.replace(actual, shown)
        text = text.replace('"host": "%s"' % _host(text), '"host": "controller"').replace(
            '"user": "root"', '"user": "alice"'
        )
        found[str(path.relative_to(root))] = text
    return found


def _host(text: str) -> str:
    return text.split('"host": "')[1].split('"')[0] if '"host": "' in text else "controller"


def unpack(target: pathlib.Path, found: Dict[str, str]) -> Store:
    """A store with these files; the archives of its backups are missing."""
    for name, text in found.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(text, "utf-8")
    for path in target.rglob("verification.json"):
        known: Dict[str, Any] = json.loads(path.read_text("utf-8"))
        known["manifest_sha256"] = hashlib.sha256(path.with_name("manifest.json").read_bytes()).hexdigest()
        path.write_text(json.dumps(known), "utf-8")
    target.chmod(0o700)
    return Store(str(target))


def recorded_store(target: pathlib.Path) -> Store:
    return unpack(target, json.loads(RECORDED.read_text("utf-8")))


if __name__ == "__main__":
    RECORDED.write_text(
        json.dumps(record(pathlib.Path(sys.argv[1]).resolve()), indent=1, sort_keys=True) + "\n", "utf-8"
    )
