# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The alerts and the dashboard: Prometheus accepts them, and they name only metrics that the command writes."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import yaml
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.progress import timestamp, utc_now
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line import metrics
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.configuration import (
    Configuration,
)
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.run_records import RunRecords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.standing import read_standing
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store.layout import Store
from demo import ports
from support.made_backups import made_backup
from support.prisma_project import ROOT

FOLDER = ROOT / "docs" / "monitoring"
WRITTEN = {
    "backstop_" + name
    for name in re.findall(r'text\.add\(\s*"(\w+)"', pathlib.Path(metrics.__file__).read_text("utf-8"))
}


def promtool(*arguments):
    program = shutil.which("promtool")
    assert program, "no promtool (Debian: apt install prometheus)"
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metrics_of(text):
    return set(re.findall(r"\bbackstop_\w+", text))


def test_prometheus_accepts_the_alerts():
    assert "11 rules found" in promtool("check", "rules", "alerts.yml")


def test_each_alert_fires_when_it_should():
    promtool("test", "rules", "alerts.test.yml")
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    tests = yaml.safe_load((FOLDER / "alerts.test.yml").read_text("utf-8"))["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules}


def test_the_alerts_name_metrics_that_are_written():
    rules = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
    assert WRITTEN and metrics_of(" ".join(rule["expr"] for rule in rules)) <= WRITTEN


def test_the_dashboard_shows_the_metrics(tmp_path):
    """Every expression is one that Prometheus parses."""
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text("utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found = metrics_of(" ".join(expressions))
    not_shown = {"backstop_last_run_timestamp_seconds", "backstop_copy_max_age_seconds"}
    assert found == WRITTEN - not_shown
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    plain = [one.replace("$instance", "a").replace("$database", "b") for one in expressions]
    records = [{"record": "expression:%d" % number, "expr": one} for number, one in enumerate(plain)]
    path = tmp_path / "expressions.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}), "utf-8")
    promtool("check", "rules", str(path))


# A real Prometheus


def metrics_of_host(folder, age_hours):
    """What the command writes on a host whose newest backup is that old; backups may be 26 hours old there."""
    store = Store(str(folder))
    newest = made_backup(store, "daily", utc_now() - datetime.timedelta(hours=age_hours), recovery=4.5)
    settings = Settings(database="shop", user="backup")
    configuration = Configuration("shop", "/etc/backstop/shop.conf", settings, settings, store, max_age=26 * 3600)
    records = RunRecords(store, "shop")
    for job, passed in (("backup", True), ("drill", age_hours < 26)):
        facts = {"at": timestamp(), "passed": passed, "seconds": 2.0, "backup": newest.backup_id}
        records.write(job, {**facts, "recovery_seconds": 4.5})
    return metrics.render(read_standing(configuration), 1)


@contextlib.contextmanager
def served(text):
    """A host's exporter; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_arguments):
            """Not on the terminal."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield "127.0.0.1:%d" % server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def prometheus(folder, targets):
    """A Prometheus that scrapes these hosts with our alerts; yields a function that asks its API."""
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "250ms"},
        "rule_files": [str(FOLDER / "alerts.yml")],
        "scrape_configs": [{"job_name": "node", "static_configs": [{"targets": targets}]}],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings), "utf-8")
    port = ports.choose()
    program = shutil.which("prometheus")
    assert program, "no prometheus (Debian: apt install prometheus)"
    argv = [program, "--config.file=%s" % (folder / "prometheus.yml"), "--storage.tsdb.path=%s" % (folder / "data")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*argv, "--web.listen-address=127.0.0.1:%d" % port], stdout=log, stderr=log)

    def ask(what, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen("http://127.0.0.1:%d/api/v1/%s?%s" % (port, what, query), timeout=10) as answer:
            return json.load(answer)["data"]

    try:
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def until(told, seconds=60):
    """Ask again until there is an answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            found = told()
            if found:
                return found
        threading.Event().wait(0.2)
    raise AssertionError("Prometheus did not answer as expected")


def test_a_real_prometheus_scrapes_two_hosts(tmp_path):
    """The metrics as the command writes them: the alerts find the host that is not in order, the panels have data."""
    hosts = {"fresh": metrics_of_host(tmp_path / "fresh", 2), "old": metrics_of_host(tmp_path / "old", 40)}
    with served(hosts["fresh"]) as fresh, served(hosts["old"]) as old, prometheus(tmp_path, [fresh, old]) as ask:
        expected = {
            ("BackstopBackupTooOld", old),
            ("BackstopRunFailed", old),
            ("BackstopRetiredDatabasesLeft", old),
            ("BackstopRetiredDatabasesLeft", fresh),
        }

        def alerts():
            return {(a["labels"]["alertname"], a["labels"]["instance"]) for a in ask("alerts")["alerts"]}

        # The groups of alerts are evaluated one after the other, and each host is scraped at a time of its own.
        until(lambda: alerts() >= expected)
        assert alerts() == expected
        panels = json.loads((FOLDER / "grafana-dashboard.json").read_text("utf-8"))["panels"]

        def empty():
            return [panel["title"] for panel in panels if not ask("query", query=shown_by(panel))["result"]]

        # These hosts have no remote for second copies.
        until(lambda: len(empty()) <= 2)
        assert empty() == ["Second copies", "Age of the newest copied backup"]


def shown_by(panel):
    """The panel's query with all hosts and databases chosen."""
    return panel["targets"][0]["expr"].replace("$instance", ".*").replace("$database", ".*")
