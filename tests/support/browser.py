# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pages of reports in real Chromium, from recorded operations; and their screenshots for the documentation.

python -m support.browser        (with what pyproject.toml names in PYTHONPATH) writes the screenshots
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any, Dict, List, Sequence

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import AnsibleWords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import utc_now
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import in_words_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.html import operation_page, store_page
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.operation_report import report_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.store_report import store_report
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import operations
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import Policy
from demo import node_tools

from .made_backups import made_backup
from .prisma_project import ROOT, cache_directory
from .recorded_store import recorded_store

PACKAGE = pathlib.Path(__file__).with_name("browser_package")
#: Widths in pixels: a desktop, a phone.
DESKTOP, PHONE = 1100, 390
PICTURES = ROOT / "docs" / "docsite" / "rst" / "images"
#: Page, window and colours of each screenshot in PICTURES.
SCREENSHOTS = {
    "report-deploy": {"page": "deploy-1", "width": DESKTOP, "height": 1500},
    "report-deploy-dark": {"page": "deploy-1", "width": DESKTOP, "height": 1500, "dark": True},
    "report-phone": {"page": "rollback-4", "width": PHONE, "height": 840},
    "report-store": {"page": "store", "width": DESKTOP, "height": 1100},
}


@functools.lru_cache(maxsize=None)
def installed() -> "tuple[node_tools.Node, pathlib.Path]":
    """Node, and an npm project with puppeteer-core and axe-core; installed into the cache if they are missing."""
    cache = cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    node = node_tools.find_node(cache / "node")
    node_tools.install_project(PACKAGE, cache / "browser", node)
    return node, cache / "browser"


def check(requests: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Open pages; see browser_package/check_page.js."""
    node, project = installed()
    chromium = shutil.which("chromium")
    assert chromium, "no chromium (Debian: apt install chromium)"
    shutil.copy(PACKAGE / "check_page.js", project)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "requests.json")
        path.write_text(json.dumps(list(requests)), "utf-8")
        argv = [node.bin_dir / "node", "check_page.js", chromium, path]
        done = subprocess.run(argv, cwd=project, env=node.environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def write_pages(folder: pathlib.Path) -> Dict[str, pathlib.Path]:
    """The page of each recorded operation, such as ``deploy-1``, and of a store of 40 days."""
    pages = {}
    store = recorded_store(folder / "recorded")
    with in_words_of(AnsibleWords()):
        for number, operation in enumerate(operations(store), 1):
            pages["%s-%d" % (operation.kind, number)] = operation_page(report_of(operation))
        report = store_report(_store_of_40_days(folder / "days"), Policy())
        pages["store"] = store_page(
            dataclasses.replace(report, store="/var/backups/backstop", free_bytes=60_400_000_000)
        )
    paths = {name: folder / (name + ".html") for name in pages}
    for name, path in paths.items():
        path.write_text(pages[name], "utf-8")
    return paths


def _store_of_40_days(folder: pathlib.Path) -> Store:
    recorded = recorded_store(folder)
    for kind in ("pre-migration", "post-migration", "emergency"):
        shutil.rmtree(folder / kind, ignore_errors=True)
    today = utc_now().replace(hour=2, minute=0, second=0)
    for days in range(40, 0, -1):
        created = today - datetime.timedelta(days=days)
        size = 280_000 + (40 - days) * 5_000 + days * 7919 % 11_000
        recovery = round(1.6 + (40 - days) * 0.03 + days * 31 % 7 * 0.05, 1) if days % 2 else None
        made_backup(recorded, "daily", created, database="electricity_tokens", size=size, recovery=recovery)
    return recorded


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pages(pathlib.Path(folder))
        wanted = [
            {**one, "page": str(paths[str(one["page"])]), "screenshot": str(PICTURES / (name + ".png"))}
            for name, one in SCREENSHOTS.items()
        ]
        check(wanted)


if __name__ == "__main__":
    main()
