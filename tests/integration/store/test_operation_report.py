# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module operation_report, and the report that the end of an operation writes, through real Ansible."""

from __future__ import annotations

import base64
import json
import pathlib
import urllib.parse

from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import operations
from support.module_runner import run_module
from support.recorded_store import recorded_store


def test_the_newest_operation_and_the_store(tmp_path):
    store = recorded_store(tmp_path / "store")
    dest = tmp_path / "page.html"
    checked = run_module(tmp_path, "operation_report", {"store": store.root, "dest": str(dest)}, check=True)
    assert not checked.failed and checked.result["report"]["report"] == "operation" and not dest.exists()
    answer = run_module(tmp_path, "operation_report", {"store": store.root, "dest": str(dest)})
    assert not answer.failed and not answer.result["changed"], answer.printed
    newest = operations(store)[-1]
    names = {name: pathlib.Path(newest.path, "report" + name) for name in (".html", ".json", ".xml")}
    assert sorted(answer.result["files"]) == sorted(map(str, names.values()))
    assert (
        dest.read_text("utf-8") == names[".html"].read_text("utf-8")
        and "Deploy of electricity_tokens" in dest.read_text()
    )
    assert json.loads(names[".json"].read_text("utf-8"))["id"] == newest.id
    whole = run_module(tmp_path, "operation_report", {"store": store.root, "whole_store": True, "dest": str(dest)})
    assert not whole.failed and whole.result["report"]["report"] == "store", whole.printed
    assert "Store report" in dest.read_text("utf-8") and pathlib.Path(store.root, "report.html").is_file()
    unknown = run_module(tmp_path, "operation_report", {"store": store.root, "operation": "20251108T020000Z-3fa9c1"})
    assert unknown.failed and "There is no operation" in unknown.result["msg"]


def test_the_end_of_an_operation_writes_its_report(tmp_path, shared_databases):
    """Without the password, and without failing where it cannot be written."""
    live = shared_databases.make("reported")
    password = str(live.site.connection.password)
    operation = live.begun("deploy", dead=True).operation
    operation.write("gates", "done", gates=[], rollback="swap")
    end = {"state": "end", "outcome": "failed", "operation": operation.id, "store": live.store.root}
    end["connection"], end["facts"] = {"url": live.site.connection.url()}, {"reason": "the copy differs"}
    answer = run_module(tmp_path, "operation", end)
    page = pathlib.Path(operation.path, "report.html")
    assert not answer.failed and answer.result["story"][0] == "Report: %s" % page, answer.printed
    assert "report" not in answer.result and "the copy differs" in page.read_text("utf-8")
    spellings = [password, urllib.parse.quote(password, safe=""), base64.b64encode(password.encode()).decode()]
    for path in pathlib.Path(operation.path).glob("report.*"):
        assert not [one for one in spellings if one in path.read_text("utf-8")], path.name
    other = live.begun("deploy", dead=True).operation
    pathlib.Path(other.path, "report.html").mkdir()
    answer = run_module(tmp_path, "operation", {**end, "operation": other.id})
    assert not answer.failed and not other.is_open, answer.printed
    assert "The report of operation %s could not be written" % other.id in " ".join(answer.printed.split())
