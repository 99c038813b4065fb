# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scripts for Windows, in every way they are rendered. They are not run here, but parsed by their grammar."""

from __future__ import annotations

import collections
import re

import jinja2
import pytest
import yaml
from support.collection_files import ROLES
from support.windows_templates import TEMPLATES, backup_script, database, render, settings_of

EVERYTHING = {
    "connection": {
        "host": "db.example.com",
        "port": 5433,
        "sslmode": "verify-full",
        "sslrootcert": "C:\\certs\\root.crt",
        "connect_timeout": 5,
    },
    "passfile": "C:\\ProgramData\\backstop\\pgpass.conf",
    "store": "D:\\Backups of us",
    "client_bin_dir": "C:\\Program Files\\PostgreSQL\\15\\bin",
    "retention": {"keep_days": 14, "keep_weeks": 8, "max_delete_share": 0.25},
}
#: Commands of Windows PowerShell 5.1 that the scripts may call, in addition to their own functions.
BUILT_IN = {
    "ConvertFrom-Json",
    "ConvertTo-Json",
    "ForEach-Object",
    "Get-Acl",
    "Get-ChildItem",
    "Get-Command",
    "Get-FileHash",
    "Get-Item",
    "Get-ScheduledTask",
    "Join-Path",
    "Move-Item",
    "New-Item",
    "New-Object",
    "New-ScheduledTask",
    "New-ScheduledTaskAction",
    "New-ScheduledTaskPrincipal",
    "New-ScheduledTaskSettingsSet",
    "New-ScheduledTaskTrigger",
    "New-TimeSpan",
    "Register-ScheduledTask",
    "Remove-Item",
    "Set-Acl",
    "Set-StrictMode",
    "Sort-Object",
    "Split-Path",
    "Test-Path",
    "Unregister-ScheduledTask",
    "Where-Object",
    "Write-Host",
    "Write-Output",
}
ODD = ["it's", "it\u2019s", 'a"b', "电", "$(Stop-Computer)", "`n", "a'; exit 0 #", "{{ x }}", "a\nb", "<&>", "\\", "é"]
SCRIPTS = {
    "least": backup_script(),
    "everything": backup_script(**EVERYTHING),
    "no client directory": backup_script(**{**EVERYTHING, "client_bin_dir": ""}),
    "odd names": backup_script(name=ODD[0], connection={"database": "".join(ODD), "user": ODD[1]}),
    "tasks": render("register-tasks", scheduled_backups_databases=[database("a"), database("b-2")]),
    "tasks of a user": render(
        "register-tasks", scheduled_backups_databases=[database("a")], scheduled_backups_user="EXAMPLE\\backup"
    ),
    "tasks of a managed account": render(
        "register-tasks", scheduled_backups_databases=[], scheduled_backups_user="EXAMPLE\\backup$"
    ),
    "no tasks": render("register-tasks", scheduled_backups_databases=[database("a")], scheduled_backups_state="absent"),
}
every_script = pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)


@every_script
def test_the_grammar_fits(script):
    assert script.errors() == []


@every_script
def test_windows_powershell_reads_it_whatever_the_code_page(script):
    assert script.text.isascii()


@every_script
def test_commands_are_known(script):
    assert set(script.commands()) - BUILT_IN - set(script.functions()) == set()
    assert len(script.functions()) == len(set(script.functions()))


@every_script
def test_variables_are_spelled_in_one_way(script):
    """PowerShell does not distinguish $Settings from $settings."""
    spellings = collections.defaultdict(set)
    for name in script.variables():
        spellings[name.lower()].add(name)
    assert [names for names in spellings.values() if len(names) > 1] == []


@every_script
def test_nothing_that_only_newer_versions_have(script):
    assert not re.search(r"\?\?|\?\.|&&|\|\|| -AsHashtable| -Parallel|\bternary\b", script.text)


def test_the_grammar_is_one():
    """The tests above rely on this: broken scripts are found."""
    text = SCRIPTS["least"].text
    for old, new in (("} finally {", "} finally"), ("function Get-Source {", "function Get-Source"), ("= @('", "= @(")):
        broken = type(SCRIPTS["least"])(text.replace(old, new, 1))
        assert broken.errors(), old


# Values


def test_what_must_be_given_and_what_is_assumed():
    assert settings_of(SCRIPTS["least"]) == {
        "database": "shop",
        "store": "C:\\ProgramData\\backstop\\shop",
        "client_directory": "",
        "environment": {"PGHOST": "localhost", "PGUSER": "shop_owner"},
        "keep_days": 7,
        "keep_weeks": 4,
        "max_delete_share": 0.5,
    }
    assert "Get-Command 'pg_dump.exe'" in SCRIPTS["least"].text


def test_everything_that_can_be_given():
    assert settings_of(SCRIPTS["everything"]) == {
        "database": "shop",
        "store": "D:\\Backups of us",
        "client_directory": "C:\\Program Files\\PostgreSQL\\15\\bin",
        "environment": {
            "PGHOST": "db.example.com",
            "PGUSER": "shop_owner",
            "PGPORT": "5433",
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": "C:\\certs\\root.crt",
            "PGCONNECT_TIMEOUT": "5",
            "PGPASSFILE": "C:\\ProgramData\\backstop\\pgpass.conf",
        },
        "keep_days": 14,
        "keep_weeks": 8,
        "max_delete_share": 0.25,
    }
    assert "Get-Command" not in SCRIPTS["everything"].text


@pytest.mark.parametrize(
    "key, variable",
    [
        ("port", "PGPORT"),
        ("sslmode", "PGSSLMODE"),
        ("sslrootcert", "PGSSLROOTCERT"),
        ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ],
)
def test_each_part_of_a_connection_alone(key, variable):
    script = backup_script(connection={key: "7"})
    assert script.errors() == []
    assert settings_of(script)["environment"] == {"PGHOST": "localhost", "PGUSER": "shop_owner", variable: "7"}


@pytest.mark.parametrize("text", ODD)
def test_odd_names_mean_themselves(text):
    script = backup_script(connection={"database": text, "user": text}, store="D:\\" + text)
    settings = settings_of(script)
    assert script.errors() == [] and script.text.isascii()
    assert settings["database"] == settings["environment"]["PGUSER"] == text and settings["store"] == "D:\\" + text
    assert script.functions() == SCRIPTS["least"].functions()


@pytest.mark.parametrize(
    "account, logon",
    [
        ("SYSTEM", "ServiceAccount"),
        ("Local Service", "ServiceAccount"),
        ("NETWORK SERVICE", "ServiceAccount"),
        ("EXAMPLE\\backup$", "Password"),
        ("EXAMPLE\\backup", "S4U"),
    ],
)
def test_how_an_account_logs_on(account, logon):
    script = render("register-tasks", scheduled_backups_databases=[database()], scheduled_backups_user=account)
    assert script.errors() == [] and script.strings("$LogonType") == [logon]
    assert settings_of(script)["account"] == account


def test_the_tasks_are_those_of_the_list():
    folder = "C:\\Program Files\\backstop\\backup-"
    assert settings_of(SCRIPTS["tasks"])["tasks"] == {"a": folder + "a.ps1", "b-2": folder + "b-2.ps1"}
    assert settings_of(SCRIPTS["no tasks"])["tasks"] == {}
    assert settings_of(SCRIPTS["tasks"])["at"] == "02:00"
    for part in ("-StartWhenAvailable", "-MultipleInstances IgnoreNew", "New-ScheduledTaskTrigger -Daily"):
        assert part in SCRIPTS["tasks"].text


# Promises of the documentation


def test_no_password_anywhere():
    for script in SCRIPTS.values():
        assert "PGPASSWORD" not in script.text
    # A password in the options is refused and not shown: test_rendered_by_ansible.py.


def test_no_program_is_called_but_through_the_one_that_checks_its_status():
    text = SCRIPTS["everything"].text
    assert set(re.findall(r"Invoke-Client '(\w+)'", text)) == {"psql", "pg_dump", "pg_dumpall", "pg_restore"}
    assert text.count(".exe'") == 1 and "if ($status -ne 0) {\n        throw" in text
    assert not re.search(r"(?m)^\s*&|Start-Process|Invoke-Expression", text)


def test_the_order_of_a_backup():
    """The final name comes after the dump, the roles, the whole read, the sync and the manifest; deletion is last."""
    text = SCRIPTS["everything"].text
    steps = [
        "Invoke-Client 'pg_dump' (",
        "Invoke-Client 'pg_dumpall'",
        "Invoke-Client 'pg_restore'",
        "Sync-File $archive",
        "'manifest.json') $manifest",
        "Move($partial, $final)",
        "'verification.json') $verification",
        "return $id",
    ]
    assert [text.index(step) for step in steps] == sorted(text.index(step) for step in steps)
    main = text[text.index("$status = 1") :]
    steps = ["Enter-Store", "Remove-Debris", "Get-Source", "New-Backup $Source", "Remove-Outlived $made", "$status = 0"]
    assert [main.index(step) for step in steps] == sorted(main.index(step) for step in steps)
    assert main.rstrip().endswith("exit $status")


def tasks():
    (block,) = yaml.safe_load((ROLES / "scheduled_backups" / "tasks" / "windows.yml").read_text("utf-8"))
    return block["block"]


def test_the_tasks_write_what_the_tests_render():
    module = "ansible.windows.win_template"
    names = ["backup-database.ps1.j2", "register-tasks.ps1.j2"]
    assert [task[module]["src"] for task in tasks() if module in task] == ["windows/" + name for name in names]
    assert sorted(path.name for path in (ROLES / "scheduled_backups" / "templates" / "windows").iterdir()) == names


def test_the_scripts_read_no_option_that_the_role_does_not_have():
    """Validation refuses such an option before a script is written; code that reads it would be dead."""
    spec = yaml.safe_load((ROLES / "scheduled_backups" / "meta" / "argument_specs.yml").read_text("utf-8"))
    options = spec["argument_specs"]["main"]["options"]
    of_database = options["scheduled_backups_databases"]["options"]
    known = {"rule": options["scheduled_backups_retention"]["options"], "item": of_database, "database": of_database}
    read = []
    for path in (TEMPLATES / "windows").iterdir():
        for node in jinja2.Environment().parse(path.read_text("utf-8")).find_all(jinja2.nodes.Getattr):
            of = node.node
            if isinstance(of, jinja2.nodes.Name) and of.name in known:
                read.append((node.attr, known[of.name]))
            elif isinstance(of, jinja2.nodes.Getattr) and of.attr == "connection":
                read.append((node.attr, of_database["connection"]["options"]))
    assert len(read) > 10 and [name for name, there in read if name not in there] == []
