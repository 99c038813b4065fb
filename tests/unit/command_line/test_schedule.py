# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The files that the role scheduled_backups writes on hosts, rendered as Ansible does and parsed by their readers."""

from __future__ import annotations

import pathlib
from typing import Any, Dict, List

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line import configuration
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.main import make_parser
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.store import retention
from support.collection_files import ROLES

ROLE = ROLES / "scheduled_backups"
DAYS = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"]
SHOP = {"name": "shop", "connection": {"user": "owner", "database": 'Shop "é" {{ x }} %'}}
OTHER = {"name": "other.db-2", "connection": {"user": "owner", "database": "other"}, "store": "/srv/more backups"}


def trusted(value: Any) -> Any:
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {key: trusted(part) for key, part in value.items()}
    return [trusted(part) for part in value] if isinstance(value, list) else value


def variables(databases: List[Dict[str, Any]], **changes: Any) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    for name in ("defaults", "vars"):
        found.update(trusted(yaml.safe_load((ROLE / name / "main.yml").read_text("utf-8"))))
    # The user's values are no templates; the store's default reads the environment.
    given = {"backstop_store": "/var/backups/backstop", "scheduled_backups_databases": databases}
    return {**found, **given, **changes}


def render(template: str, given: Dict[str, Any]) -> str:
    text = (ROLE / "templates" / template).read_text("utf-8")
    templar = Templar(DataLoader(), given)
    # Like ansible.builtin.template: see its options trim_blocks and keep_trailing_newline.
    overrides = {"trim_blocks": True, "keep_trailing_newline": True}
    return str(
        templar.copy_with_new_env().template(
            trust_as_template("#jinja2: %s\n%s" % (", ".join("%s: %s" % pair for pair in overrides.items()), text))
        )
    )


def jobs(given: Dict[str, Any]) -> List[Dict[str, Any]]:
    return list(Templar(DataLoader(), given).template(trust_as_template("{{ scheduled_backups_jobs }}")))


def configured(tmp_path: pathlib.Path, item: Dict[str, Any], **changes: Any) -> configuration.Configuration:
    path = tmp_path / (item["name"] + ".conf")
    path.write_text(render("configuration.j2", {**variables([item], **changes), "item": item}), "utf-8")
    path.chmod(0o600)
    return configuration.load(str(tmp_path), item["name"])


def test_a_configuration_with_little(tmp_path):
    found = configured(tmp_path, SHOP)
    assert found.database == SHOP["connection"]["database"] and found.connection.host == "localhost"
    assert (found.store.root, found.max_age) == ("/var/backups/backstop", 30 * 3600)
    assert (found.password, found.webhook) == (None, None)
    assert configured(tmp_path, SHOP, scheduled_backups_max_age="2d").max_age == 2 * 86400
    assert found.textfile == "/var/lib/backstop/metrics/shop.prom" and found.client_bin_dir is None


def test_a_configuration_with_everything(tmp_path):
    item = {
        **OTHER,
        "password": "hunter2",
        "administration": {"database": "maintenance", "port": "5434"},
        "connection": {**OTHER["connection"], "port": "5433", "connect_timeout": 3, "host": "db", "sslmode": "require"},
        "client_bin_dir": "/opt/pg/bin",
        "max_age": "2d",
        "webhook": {"url": "https://example.org/x", "events": ["missing"]},
        "application": {"stop": ["systemctl", "stop", "shop"], "start": ["start-shop", "${commit}"]},
    }
    found = configured(tmp_path, item, scheduled_backups_webhook={"url": "https://example.org/all"})
    assert (found.connection.port, found.connection.connect_timeout, found.administration.port) == (5433, 3, 5434)
    assert (found.store.root, found.max_age, found.client_bin_dir) == ("/srv/more backups", 172800, "/opt/pg/bin")
    assert found.password.key == "password_file" and found.password.value == "/etc/backstop/other.db-2.password"
    assert found.webhook.events == ("missing",)
    assert found.application.start == ("start-shop", "${commit}") and found.application.stop[0] == "systemctl"
    assert "hunter2" not in (tmp_path / "other.db-2.conf").read_text()


RECIPIENT = "age1qgzsg3psph477xwwl2gvdnrs4xcm50z2qmtkethxrxayg3safsfsnrpwel"
OFFSITE = {
    "remote": "kept:fleet",
    "rclone_config": "/etc/backstop/rclone.conf",
    "max_age": "2d",
    "retention": {"keep_days": "30", "max_delete_share": "0.2", "time_zone": "UTC"},
}


def test_second_copies(tmp_path):
    """Each host has its own directory, so that no host treats another's copies as its own."""
    host = {"inventory_hostname": "app1"}
    found = configured(tmp_path, SHOP, scheduled_backups_offsite=OFFSITE, **host).offsite
    assert (found.offsite.remote, found.offsite.configuration) == ("kept:fleet/app1", "/etc/backstop/rclone.conf")
    wanted = {**retention.OPTIONS, "keep_days": 30, "max_delete_share": 0.2, "time_zone": "UTC"}
    assert found.max_age == 2 * 86400 and found.retention == wanted
    for remote, expected in (("kept:", "kept:app1"), ("/mnt/kept/", "/mnt/kept/app1"), ("/mnt/kept", "/mnt/kept/app1")):
        changed = configured(tmp_path, SHOP, scheduled_backups_offsite={"remote": remote}, **host)
        assert changed.offsite.offsite.remote == expected
    own = configured(tmp_path, {**SHOP, "offsite": {"remote": "other:x"}}, scheduled_backups_offsite=OFFSITE, **host)
    assert own.offsite.offsite.remote == "other:x"
    unit = render(
        "job.service.j2",
        {
            **variables([SHOP, OTHER], scheduled_backups_offsite={"remote": "/mnt/kept"}, **host),
            "scheduled_backups_job": jobs(variables([SHOP]))[0],
        },
    )
    assert '"-/mnt/kept/app1"' in unit


def test_encryption(tmp_path):
    """Backups that cannot be read on a host are not drilled there."""
    given = {"backstop_age_recipients": [RECIPIENT], "backstop_age_identity": "/run/identity"}
    found = configured(tmp_path, SHOP, **given)
    assert (found.age_recipients, found.age_identity) == ((RECIPIENT,), "/run/identity")
    own = {**SHOP, "age_recipients": [RECIPIENT]}
    assert configured(tmp_path, own).age_recipients == (RECIPIENT,)
    for changes, databases, drilled in (
        ({}, [SHOP, OTHER], ["shop", "other.db-2"]),
        ({}, [own, OTHER], ["other.db-2"]),
        ({}, [{**own, "age_identity": "/run/identity"}, OTHER], ["shop", "other.db-2"]),
        (given, [SHOP, OTHER], ["shop", "other.db-2"]),
        ({"backstop_age_recipients": [RECIPIENT]}, [SHOP, OTHER], []),
    ):
        lines = render("cron.j2", variables(databases, **changes)).splitlines()
        assert [line.split()[8] for line in lines if " drill " in line] == drilled


def test_poolers(tmp_path, monkeypatch):
    """They are in a file of their own, because their consoles have passwords."""
    console = {"host": "10.0.0.6", "user": "backstop", "password": "hunter2", "port": "6433"}
    read = []
    monkeypatch.setitem(configuration._FIELDS, "poolers", lambda section, key: read.append(section.values[key]) or ())
    for item, changes in (({**SHOP, "poolers": [{"console": console}]}, {}), (SHOP, {"backstop_poolers": [console]})):
        configured(tmp_path, item, **changes)
        assert "hunter2" not in (tmp_path / "shop.conf").read_text()
    configured(tmp_path, {**SHOP, "poolers": []}, backstop_poolers=[console])
    assert read == ["/etc/backstop/shop.poolers"] * 2


def told(name: str, databases: Any = (SHOP,), **changes: Any) -> Any:
    return Templar(DataLoader(), variables(list(databases), **changes)).template(trust_as_template("{{ %s }}" % name))


@pytest.mark.parametrize(
    ("given", "on_windows"),
    [
        ({}, False),
        ({"ansible_connection": "ssh"}, False),
        ({"ansible_connection": "local"}, False),
        ({"ansible_connection": "winrm"}, True),
        ({"ansible_connection": "psrp"}, True),
        ({"ansible_connection": "ssh", "ansible_shell_type": "powershell"}, True),
        ({"ansible_connection": "ssh", "ansible_shell_type": "sh"}, False),
    ],
)
def test_hosts_with_windows_get_the_script(given, on_windows):
    assert told("scheduled_backups_on_windows", **given) is on_windows
    tasks = yaml.safe_load((ROLE / "tasks" / "main.yml").read_text("utf-8"))
    assert [(task.get("ansible.builtin.include_tasks"), task["when"]) for task in tasks] == [
        ("windows.yml", "scheduled_backups_on_windows"),
        (None, "not scheduled_backups_on_windows"),
    ]


def test_a_rule_for_each_store(tmp_path):
    """Databases of one store cannot have two: each would delete the backups that the other keeps."""
    rule = {"keep_days": 30}
    assert configured(tmp_path, {**SHOP, "retention": rule}).retention["keep_days"] == 30
    for databases, rules, stores in (
        ([SHOP, {**OTHER, "retention": rule}], 2, 2),
        ([SHOP, {**OTHER, "retention": rule, "store": "/var/backups/backstop"}], 2, 1),
        ([{**SHOP, "retention": rule}, {**OTHER, "retention": rule, "store": "/var/backups/backstop"}], 1, 1),
    ):
        assert told("scheduled_backups_rules | length", databases) == rules
        assert told("scheduled_backups_stores | length", databases) == stores


def test_nothing_is_deleted_where_that_is_not_wanted():
    lines = render("cron.j2", variables([SHOP, OTHER], scheduled_backups_prune=False)).splitlines()
    assert not [line for line in lines if " prune " in line] and [line for line in lines if " drill " in line]


def test_the_drill_in_a_server_of_its_own():
    found = jobs(variables([SHOP], scheduled_backups_drill_where="cluster"))
    (drill,) = [job for job in found if job["name"] == "drill"]
    assert make_parser().parse_args(drill["arguments"].replace("%i", "shop").split()).where == "cluster"


def test_retention(tmp_path):
    """Numbers in inventories can also be strings."""
    assert dict(configured(tmp_path, SHOP).retention) == dict(retention.OPTIONS)
    given = {"keep_days": "14", "max_delete_share": "0.25", "time_zone": "UTC"}
    found = configured(tmp_path, SHOP, scheduled_backups_retention=given).retention
    assert found == {**retention.OPTIONS, "keep_days": 14, "max_delete_share": 0.25, "time_zone": "UTC"}


@pytest.mark.parametrize("key", ["password_file", "passfile", "password_credential"])
def test_other_places_for_the_password(tmp_path, key):
    assert configured(tmp_path, {**SHOP, key: "/run/secret"}).password.key == key


def cron_lines(**changes: Any) -> List[List[str]]:
    text = render("cron.j2", variables([SHOP, OTHER], **changes))
    return [line.split(None, 6) for line in text.splitlines() if line[:1].isdigit()]


def test_cron():
    lines = cron_lines()
    assert len(lines) == 10
    assert lines[0][:6] == ["0", "2", "*", "*", "1,2,3,4,5,6", "backstop"]
    assert lines[1][:6] == ["0", "3", "*", "*", "0", "backstop"]
    assert lines[2][:6] == ["0", "4", "*", "*", "*", "backstop"]
    assert lines[3][:6] == ["0", "5", "*", "*", "0", "backstop"]
    assert lines[4][:6] == ["30", "*", "*", "*", "*", "backstop"]
    for line in lines:
        program, arguments = line[6].split(None, 1)
        assert program == "/usr/local/bin/backstop" and "%" not in arguments
        options = make_parser().parse_args(arguments.split())
        assert options.syslog and options.name in ("shop", "other.db-2")


@pytest.mark.parametrize("day", DAYS)
def test_every_day_has_one_backup(day):
    lines = cron_lines(scheduled_backups_weekly_day=day, scheduled_backups_daily_time="23:05")
    assert lines[0][:2] == ["5", "23"]
    assert lines[1][4] == str(DAYS.index(day))
    assert sorted((lines[0][4] + "," + lines[1][4]).split(",")) == list("0123456")


def test_the_times_of_all_jobs():
    options = {
        "scheduled_backups_weekly_time": "03:10",
        "scheduled_backups_prune_time": "04:20",
        "scheduled_backups_drill_time": "05:40",
        "scheduled_backups_check_minute": 7,
    }
    assert [line[:2] for line in cron_lines(**options)[1:5]] == [["10", "3"], ["20", "4"], ["40", "5"], ["7", "*"]]


def test_units():
    given = variables([SHOP, OTHER])
    services = {}
    for job in jobs(given):
        services[job["name"]] = render("job.service.j2", {**given, "scheduled_backups_job": job}).splitlines()
        timer = render("job.timer.j2", {**given, "scheduled_backups_job": job}).splitlines()
        assert "Persistent=yes" in timer
        (calendar,) = [line for line in timer if line.startswith("OnCalendar=")]
        assert (
            calendar
            == {
                "daily": "OnCalendar=Mon,Tue,Wed,Thu,Fri,Sat *-*-* 02:00:00",
                "weekly": "OnCalendar=Sun *-*-* 03:00:00",
                "prune": "OnCalendar=Sun,Mon,Tue,Wed,Thu,Fri,Sat *-*-* 04:00:00",
                "drill": "OnCalendar=Sun *-*-* 05:00:00",
                "check": "OnCalendar=Sun,Mon,Tue,Wed,Thu,Fri,Sat *-*-* *:30:00",
            }[job["name"]]
        )
    arguments = Templar(DataLoader(), given).template(trust_as_template("{{ scheduled_backups_ready }}"))
    ready = {"name": "ready", "what": "Trial", "arguments": arguments}
    services["ready"] = render("job.service.j2", {**given, "scheduled_backups_job": ready}).splitlines()
    for lines in services.values():
        (command,) = [line for line in lines if line.startswith("ExecStart=")]
        assert make_parser().parse_args(command.replace("%i", "shop").split()[1:]).name == "shop"
        assert 'ReadWritePaths="/srv/more backups" "/var/backups/backstop" "/var/lib/backstop"' in lines
        assert "User=backstop" in lines and "ProtectSystem=strict" in lines
    assert "ExecStart=/usr/local/bin/backstop backup %i --kind daily" in services["daily"]
    assert "ExecStart=/usr/local/bin/backstop prune %i --wait 3600" in services["prune"]


def test_the_user_and_store_of_deploys_are_taken():
    given = variables([SHOP], backstop_user="deployer", backstop_store="/srv/store")
    text = render("job.service.j2", {**given, "scheduled_backups_job": jobs(given)[0]})
    assert "User=deployer" in text and 'ReadWritePaths="/srv/store" "/var/lib/backstop"' in text


def test_two_databases_of_one_name_in_one_store_are_seen():
    twin = {**SHOP, "name": "twin"}
    apart = {**twin, "store": "/srv/apart"}
    for databases, places in (([SHOP, twin], 1), ([SHOP, apart], 2), ([SHOP, OTHER], 2)):
        found = Templar(DataLoader(), variables(databases)).template(
            trust_as_template("{{ scheduled_backups_places | unique | length }}")
        )
        assert found == places
