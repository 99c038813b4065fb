# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reports of recorded real operations: what they answer, as data, as JUnit XML, and as a page."""

from __future__ import annotations

import base64
import json
import pathlib
import re
import urllib.parse
from xml.etree import ElementTree

import jsonschema
import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import AnsibleWords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import in_words_of
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.typed_json import from_json
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports import figures
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.answers import answers, story
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.files import write_beside
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.html import operation_page, store_page
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.junit import junit
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.operation_report import (
    OperationReport,
    choose,
    report_of,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.reports.store_report import (
    StoreReport,
    store_report,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.operation import Operation, operations
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.retention import Policy
from support.json_schemas import closed
from support.recorded_store import recorded_store

SCHEMA = json.loads((pathlib.Path(__file__).parents[3] / "docs" / "operation-report.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return recorded_store(tmp_path_factory.mktemp("recorded") / "store")


@pytest.fixture(scope="module")
def reports(store):
    """In order: a deploy, its rollback, the undo of that, a rollback that lost rows, a deploy that failed."""
    with in_words_of(AnsibleWords()):
        return [report_of(operation) for operation in operations(store)]


def answer(report, beginning):
    (found,) = [one for one in answers(report) if one.question.startswith(beginning)]
    return found


def said(report, beginning):
    return " ".join(answer(report, beginning).lines)


def test_the_recorded_operations(reports):
    assert [(one.kind, one.outcome) for one in reports] == [
        ("deploy", "done"),
        ("rollback", "done"),
        ("undo", "done"),
        ("rollback", "done"),
        ("deploy", "failed"),
    ]


def test_a_deploy_answers_its_auditor(reports):
    deploy = reports[0]
    assert "20251108000000_add_receipt_data" in said(deploy, "What was changed")
    assert "It adds public.ReceiptData. It destroys nothing." in said(deploy, "What was changed")
    assert "on controller" in said(deploy, "Who ran it")
    assert "5,294 rows of 4 tables" in said(deploy, "Which backup")
    assert "Last restored 30 Nov 2026" in said(deploy, "How was it verified")
    assert "level restored" in said(deploy, "How was it verified")
    assert "5,294 rows of 4 tables, by digest, and every definition. All equal." in said(deploy, "What was compared")
    assert "still equal to the backup" in said(deploy, "What was compared")
    assert "29 passed, none waived, none failed." in said(deploy, "What did the gates say")
    assert said(deploy, "What was lost") == "Nothing: no rollback took place."
    assert said(deploy, "How long were users").startswith("52.5 s in all.")
    assert [one.seconds is not None for one in deploy.change.migrations] == [True]
    assert deploy.change.locks == {"public.TokenPurchase": "ShareRowExclusiveLock"} and deploy.change.every_lock
    states = {one.table: one.state for one in deploy.tables}
    assert states["public.TokenPurchase"] == "equal" and states["public.ReceiptData"] == "new"


def test_a_rollback_tells_its_plan_and_its_loss(reports):
    rollback = reports[3]
    assert rollback.plan.lines and rollback.runners[0].user == "alice"
    assert rollback.loss.counted and rollback.loss.rows > 0 and rollback.loss.tables[0].kept
    assert "rows lost: " in said(rollback, "What was lost") and "kept in files" in said(rollback, "What was lost")
    assert "took over the name" in said(rollback, "What was changed")
    assert "retired database got its name back" in said(reports[2], "What was changed")


def test_a_failed_deploy_says_why(reports):
    failed = reports[4]
    assert failed.reason and failed.reason in said(failed, "What was changed")
    assert [phase.step for phase in failed.phases if phase.result == "failed"] == ["rehearsal"]
    assert not failed.windows and "not stopped" in said(failed, "How long were users")
    assert "ansible-playbook backstop.postgres.deploy" in failed.next.command


def test_the_way_back_is_the_one_of_now(store, reports):
    """Of the newest successful operation it is its undo; of an earlier one it depends on what came after."""
    assert reports[3].next.command.endswith("undo_rollback -e rollback_operation=" + reports[3].id)
    assert "--check" in reports[3].next.preview
    assert reports[0].next.command.endswith("rollback_plan") and reports[3].id in reports[0].next.text


def test_a_failed_run_leaves_its_operation_open_and_says_what_is_next(tmp_path):
    """A rollback is continued; a deploy whose own rollback failed is reverted to its backup."""
    store = recorded_store(tmp_path / "store")
    with in_words_of(AnsibleWords()):
        rollback = Operation.create(store, "rollback", {"database": "x", "request": {"scenario": "complete"}})
        rollback.leave(reason="The release is unhealthy.")
        report = report_of(rollback)
        assert (report.outcome, report.reason) == (None, "The release is unhealthy.")
        assert report.next.text == "It is open. To continue it when the cause of its failure is fixed"
        assert "rollback_complete" in report.next.command and report.reason in said(report, "What was changed")

        deploy = Operation.create(store, "deploy", {"database": "x"})
        for step in ("backup", "stop", "migrate"):
            deploy.write(step, "done", backup="b1")
        assert "run ansible-playbook with the deploy" in report_of(deploy).next.command, "it was interrupted"
        deploy.leave(reason="It would lose a row.")
        report = report_of(deploy)
        assert "its own rollback failed" in report.next.text and "still" in said(report, "How long were users")
        assert report.next.command == "ansible-playbook backstop.postgres.rollback_complete -e rollback_backup=b1"
        deploy.write("started", "done")
        assert "run ansible-playbook with the deploy" in report_of(deploy).next.command, "its release serves"
        jsonschema.validate(report.to_json(), closed(SCHEMA))


def test_an_open_operation_says_how_to_continue(tmp_path):
    store = recorded_store(tmp_path / "store")
    with in_words_of(AnsibleWords()):
        operation = Operation.create(store, "rollback", {"database": "shop", "request": {"scenario": "complete"}})
        operation.write("build", "began")
        report = report_of(operation)
        assert "continue" in report.next.text and "rollback_complete" in report.next.command
        assert [(phase.step, phase.result) for phase in report.phases] == [("build", "interrupted")]
        assert "not finished" in story(report)[0] and choose(store, None).id == operation.id
        assert "interrupted" in operation_page(report)


def test_backups_that_were_pruned_are_named(tmp_path):
    import shutil

    store = recorded_store(tmp_path / "store")
    for kind in ("pre-migration", "post-migration"):
        shutil.rmtree(tmp_path / "store" / kind)
    report = report_of(operations(store)[0])
    assert [one.problem for one in report.backups] == ["it is not in the store any more"] * 2
    assert "not in the store any more" in said(report, "Which backup") and report.comparison.tables == 4
    operation_page(report)


# Data


def test_the_schema_describes_every_field(store, reports):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for report in [*reports, store_report(store, Policy())]:
        jsonschema.Draft202012Validator(closed(SCHEMA)).validate(json.loads(json.dumps(report.to_json())))


def test_a_report_comes_back_from_its_data(store, reports):
    for report in reports:
        assert from_json(OperationReport, json.loads(json.dumps(report.to_json()))) == report
    whole = store_report(store, Policy())
    assert from_json(StoreReport, json.loads(json.dumps(whole.to_json()))) == whole


def test_ci_systems_see_gates_and_phases(reports):
    root = ElementTree.fromstring(junit(reports[0]))
    gates, phases = root.findall("testsuite")
    assert gates.get("tests") == "29" and (gates.get("failures"), gates.get("skipped")) == ("0", "0")
    assert {case.get("name") for case in phases} >= {"backup", "drill", "rehearsal", "migrate", "outcome"}
    failed = ElementTree.fromstring(junit(reports[4])).findall("testsuite")[1]
    broken = {case.get("name"): case.find("failure") for case in failed if case.find("failure") is not None}
    assert set(broken) == {"rehearsal", "outcome"} and reports[4].reason in broken["outcome"].text


def test_the_state_of_a_gate_in_ci(reports):
    gates = [
        {"name": "a", "result": "failed", "found": "x\x1b[1m"},
        {"name": "b", "result": "waived", "reason": "ours"},
    ]
    report = from_json(OperationReport, {**reports[0].to_json(), "gates": gates})
    suite = ElementTree.fromstring(junit(report)).find("testsuite")
    assert (suite.get("failures"), suite.get("skipped")) == ("1", "1")
    assert suite.find("testcase/skipped").get("message") == "waived: ours"
    assert [one.state for one in answers(report) if one.question.startswith("What did the gates")] == ["bad"]


# Pages


def test_a_page_is_one_file_without_scripts_and_network(store, reports):
    for page in [*map(operation_page, reports), store_page(store_report(store, Policy()))]:
        assert len(page.encode()) < 1_000_000
        assert "<script" not in page and not re.search(r"""(?:src|href)=["'](?!#|data:)""", page)
        assert "url(" not in page and "@import" not in page and "default-src 'none'" in page


def test_a_huge_operation_stays_below_a_megabyte(reports):
    value = reports[0].to_json()
    value["tables"] = [{**value["tables"][0], "table": "public.%s_%d" % ("t" * 50, n)} for n in range(20_000)]
    value["journal"] = [{**value["journal"][0], "note": "x" * 5000, "list": list(range(5000))}] * 3000
    page = operation_page(from_json(OperationReport, value))
    assert len(page.encode()) < 1_000_000 and "19,000 more tables" in page and "more lines" in page


def test_names_and_errors_are_text(reports):
    """Tables, gates, errors and the journal come from databases and programs: nothing of them is markup."""
    evil = """<script>alert(1)</script>'"><img src=x onerror=y>&{{ 7*7 }}"""

    def spoil(value):
        if isinstance(value, dict):
            return {key: spoil(one) for key, one in value.items()}
        if isinstance(value, list):
            return [spoil(one) for one in value]
        return value

    value = reports[3].to_json()
    value.update(database=evil, reason=evil, tables=[{"table": evil, "rows_before": 1, "digest_before": evil}])
    value["gates"] = [{"name": evil, "result": "failed", "found": evil, "expected": evil, "hint": evil}]
    value["journal"] = [{"at": value["journal"][0]["at"], "step": evil, "event": evil, evil: evil}]
    value["loss"]["tables"] = [{"table": evil, "unreadable": evil}]
    value["plan"]["lines"], value["next"]["command"] = [evil], evil
    value["backups"][0].update(problem=evil, id=evil)
    page = operation_page(from_json(OperationReport, value))
    assert "<script" not in page and "<img" not in page and "49" not in page.split("</style>")[1][:2000]
    assert page.count("&lt;script&gt;alert(1)") >= 12


def test_a_password_is_not_in_a_report(tmp_path, reports):
    """It is in no journal and no manifest, so it cannot be in a report; the environment of a report is not read."""
    password = "qZ7v@p ss/w#rd:%41"
    spellings = [password, urllib.parse.quote(password, safe=""), base64.b64encode(password.encode()).decode()]
    for report in reports:
        texts = [operation_page(report), junit(report), json.dumps(report.to_json()), "\n".join(story(report))]
        assert not [text for text in texts for spelling in spellings if spelling in text]


def test_the_files_beside_a_journal(tmp_path):
    store = recorded_store(tmp_path / "store")
    operation = operations(store)[0]
    report = report_of(operation)
    paths = [pathlib.Path(path) for path in write_beside(operation, report, "<p>")]
    assert [path.name for path in paths] == ["report.json", "report.xml", "report.html"]
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert {path.parent for path in paths} == {pathlib.Path(operation.path)}


def test_without_jinja2_it_says_what_to_do(monkeypatch, reports):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(BackstopError, match="cannot be written as HTML") as caught:
        operation_page(reports[0])
    assert "python3-jinja2" in caught.value.hint and "JSON" in caught.value.hint


def test_the_store_over_time(store):
    report = store_report(store, Policy())
    assert report.databases == ["electricity_tokens"] or "electricity_tokens" in report.databases
    assert {one.decision for one in report.backups} == {"keep"} and all(one.reason for one in report.backups)
    # The archives were not recorded.
    assert all("lacks the file" in one.problem for one in report.backups)
    assert [one.outcome for one in report.operations] == ["done"] * 4 + ["failed"]
    assert report.drills and report.drills[0].recovery_seconds > 0
    page = store_page(report)
    assert "Recovery time" in page and page.count("<svg") >= 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "not known"), (0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1 min"), (200, "3 min 20 s"), (7500, "2 h 5 min"),
     (356400, "4 d 3 h")],
)  # fmt: skip
def test_durations(seconds, text):
    assert figures.duration(seconds) == text


def test_other_figures():
    assert [figures.size(value) for value in (None, 12, 1300, 2.5e6, 3e9)] == [
        "not known",
        "12 B",
        "1.3 kB",
        "2.5 MB",
        "3.0 GB",
    ]
    assert [figures.counted(value, "row") for value in (None, 0, 1, 5294)] == [
        "an unknown number of rows", "no row", "1 row", "5,294 rows",
    ]  # fmt: skip
    assert figures.joined(list("abcdefgh"), 3) == "a, b, c and 5 more"
