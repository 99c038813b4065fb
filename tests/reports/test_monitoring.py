# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The alerts and the dashboard: Prometheus accepts them, and they name only metrics that the command writes."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess

import yaml
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line import metrics
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
