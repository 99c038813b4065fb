# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts with scheduled backups, from the first timer to the removal. The tests depend on each other, in order."""

from __future__ import annotations

import datetime
import functools
import json
import time
from typing import Any, Callable, Dict, List

import pytest
from deployed_site import connect, succeeds

testinfra_hosts = ["local://"]
STORE = "/var/backups/backstop"
#: Seconds ahead that the schedule is set; the run of the playbook must end before. Tried in order.
LEADS = (60, 180, 420)


def host(name: str) -> Any:
    return connect("backstop-fleet-" + name, "root")


@pytest.fixture(scope="module")
def timers() -> Any:
    return host("db1")


@pytest.fixture(scope="module")
def cron() -> Any:
    return host("db2")


@pytest.fixture(scope="module")
def monitor() -> Any:
    return host("monitor")


def until(look: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, "not within %d s: %s" % (seconds, what)
        time.sleep(1)


def backstop(at: Any, *arguments: str) -> Any:
    """Run the command as its user."""
    return at.run("runuser -u backstop -- backstop " + " ".join(arguments))


def backups(at: Any, database: str = "shop") -> List[Dict[str, Any]]:
    return list(json.loads(backstop(at, "list", database, "--json").stdout))


def verified(at: Any, database: str) -> List[Dict[str, Any]]:
    return [backup for backup in backups(at, database) if backup["level"]]


def metrics(monitor: Any, name: str) -> Dict[str, float]:
    """The metrics that the monitor gets from a host's node_exporter."""
    read = "from urllib.request import urlopen; print(urlopen('http://backstop-fleet-%s:9100/metrics').read().decode())"
    lines = monitor.check_output("python3 -c %s", read % name).splitlines()
    lines = [line for line in lines if line.startswith(("backstop_", "node_textfile"))]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def said(at: Any, pattern: str, *arguments: str) -> bool:
    """Whether the command logged it, to journal or syslog."""
    return bool(at.run("journalctl -t backstop %s --grep %%s" % " ".join(arguments), pattern).rc == 0)


def series(name: str, database: str = "shop", **labels: str) -> str:
    pairs = {"configuration": "shop", "database": database, **labels}
    return "backstop_%s{%s}" % (name, ",".join('%s="%s"' % pair for pair in sorted(pairs.items())))


def test_nobody_else_gets_in(timers: Any, cron: Any) -> None:
    for at in (timers, cron):
        tree = at.check_output("find %s -type d -printf '%%m %%U %%f\\n'", STORE).split("\n")
        assert {line.split()[0] for line in tree} == {"700"}
        assert {line.split()[2] for line in tree} == {
            "backstop",
            "daily",
            "weekly",
            "pre-migration",
            "post-migration",
            "emergency",
            "operations",
        }
        secret = at.check_output("find /etc/backstop -type f -printf '%m %u\\n' | sort -u")
        assert secret == "600 backstop"
        assert at.run("grep -l 'p@ss' /etc/backstop/*.conf").rc == 1
    assert timers.check_output("ls /etc/backstop") == "second.conf\nsecond.password\nshop.conf\nshop.password"


def test_timers_and_cron_fire(timers: Any, cron: Any) -> None:
    """The schedule is set to the next minute: a changed schedule takes effect at once."""
    for lead in LEADS:
        now = datetime.datetime.now(datetime.timezone.utc)
        moment = (now + datetime.timedelta(seconds=lead + 60)).replace(second=0, microsecond=0)
        day_after = (now + datetime.timedelta(days=2)).strftime("%A").lower()
        times = {"scheduled_backups_daily_time": moment.strftime("%H:%M"), "scheduled_backups_weekly_day": day_after}
        succeeds("schedule_backups", **times)
        if datetime.datetime.now(datetime.timezone.utc) < moment:
            break
    else:
        raise AssertionError("the playbook takes longer than %d s" % LEADS[-1])
    for at, database in ((timers, "shop"), (timers, "second"), (cron, "shop")):
        # It exists before it is verified.
        seconds = lead + 180
        made = until(functools.partial(verified, at, database), "a backup of " + database, seconds)[-1]
        assert (made["kind"], made["level"], made["rows"]) == ("daily", "readable", 400)
    for at in (timers, cron):
        until(functools.partial(said, at, "shop-.*daily.*400 rows"), "what the run said")


def test_a_timer_that_was_missed_is_made_up_for(timers: Any) -> None:
    """Persistent=: the stamp file says that the drill last ran two weeks ago."""
    timer, stamp = "backstop-drill@shop.timer", "/var/lib/systemd/timers/stamp-backstop-drill@shop.timer"
    timers.check_output("systemctl stop %s && touch -d '-14 days' %s && systemctl start %s", timer, stamp, timer)
    until(lambda: [backup for backup in backups(timers) if backup["level"] == "restored"], "the drill")
    listed = timers.check_output("runuser -u postgres -- psql -XAtc %s", "SELECT datname FROM pg_database")
    assert "shop" in listed and "backstop_scratch" not in listed


PROBE = """[Service]
User=root
Group=root
ExecStart=
ExecStart=/bin/sh -c 'for place in /etc /usr/local /var/lib /root /srv; do if touch $$place/probe 2>/dev/null; \
then echo wrote $$place; fi; done; echo tmp $$(ls /tmp); grep -E "NoNewPrivs|CapBnd" /proc/self/status; \
ls /dev/mem /dev/kmsg 2>/dev/null; touch /proc/sys/kernel/hostname && echo sysctl; echo end'
"""


def test_the_hardening_holds_even_for_root(timers: Any) -> None:
    """Run as root: as the user of the backups it would hold for the wrong reason."""
    folder = "/run/systemd/system/backstop-daily@probe.service.d"
    timers.check_output("mkdir -p %s && printf '%%s' %s >%s/probe.conf", folder, PROBE, folder)
    timers.check_output("touch /tmp/of-somebody-else")
    timers.check_output("systemctl daemon-reload && systemctl start backstop-daily@probe.service")
    read = "journalctl -o cat _SYSTEMD_UNIT=backstop-daily@probe.service"
    until(lambda: "end" in timers.check_output(read).splitlines(), "the journal")
    printed = timers.check_output(read).splitlines()
    timers.check_output("rm -r %s && systemctl daemon-reload", folder)
    assert {"end", "tmp", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000"} <= set(printed)
    assert not [line for line in printed if line.startswith(("wrote", "/dev/", "sysctl"))]


def test_the_monitor_sees_both(timers: Any, cron: Any, monitor: Any) -> None:
    for name in ("db1", "db2"):
        found = until(functools.partial(metrics, monitor, name), "metrics of " + name)
        assert found["node_textfile_scrape_error"] == 0
        assert abs(time.time() - found[series("last_success_timestamp_seconds")]) < 600
        assert found[series("last_run_success", job="backup")] == 1 == found[series("server_up")]
        assert found[series("backups", kind="daily")] == 1 and found[series("retired_databases")] == 0
        assert found[series("last_success_size_bytes")] > 0
    assert metrics(monitor, "db1")[series("last_success_level")] == 3
    assert metrics(monitor, "db1")[series("recovery_seconds")] > 0


def test_a_database_that_is_down_is_told_and_the_others_are_untouched(timers: Any, cron: Any, monitor: Any) -> None:
    before = backups(cron)
    cron.check_output("systemctl stop postgresql@15-main")
    line = cron.check_output("grep ' backup shop --kind daily' /etc/cron.d/backstop")
    command = line.split("backstop ", 1)[1]
    # As cron runs it: by sh, in its minimal environment. The exit status is the command's own.
    ended = cron.run("runuser -u backstop -- env -i PATH=/usr/bin:/bin SHELL=/bin/sh /bin/sh -c %s", command)
    assert (ended.rc, ended.stdout, ended.stderr) == (1, "", "")
    until(lambda: said(cron, "No PostgreSQL server answers.*exit status 1", "-p", "err"), "syslog")
    assert backups(cron) == before
    assert backstop(cron, "status", "shop", "--metrics").rc == 1
    found = metrics(monitor, "db2")
    assert found[series("last_run_success", job="backup")] == 0 == found[series("server_up")]
    assert found[series("backups", kind="daily")] == 1
    assert metrics(monitor, "db1")[series("last_run_success", job="backup")] == 1
    assert backstop(timers, "status").rc == 0
    cron.check_output("systemctl start postgresql@15-main")
    assert backstop(cron, "backup", "shop", "--wait", "5").rc == 0 == backstop(cron, "status", "shop").rc


def test_the_removal_keeps_the_backups(timers: Any, cron: Any) -> None:
    kept = {at: at.check_output("find %s -type f | sort", STORE) for at in (timers, cron)}
    succeeds("schedule_backups", scheduled_backups_state="absent")
    for at, files in kept.items():
        assert at.check_output("find %s -type f | sort", STORE) == files != ""
        for path in ("/etc/backstop", "/etc/cron.d/backstop", "/usr/local/bin/backstop", "/var/lib/backstop"):
            assert not at.file(path).exists, path
        assert at.check_output("find /etc/systemd/system -name 'backstop*'") == ""
        assert at.check_output("systemctl list-timers --all --no-legend 'backstop*'") == ""
        assert at.check_output("find /var/lib/prometheus/node-exporter -name 'backstop*'") == ""
    assert succeeds("schedule_backups", scheduled_backups_state="absent").changed == 0
