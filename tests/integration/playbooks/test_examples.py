# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every example of every module is run on a real site, one after the other."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
import tempfile
from typing import Any, Dict, Iterator, List, Mapping, Union

import pytest
import yaml
from demo import application
from support import service_script
from support.collection_files import documentation, fragment_options, fragments, module_files, string_constant
from support.demo_site import DemoSite

pytestmark = pytest.mark.prisma
PREFIX = "backstop.postgres."
MIGRATION = "20251108000000_add_receipt_data"
Task = Dict[str, Any]


def sql(name: str, statement: str) -> Task:
    """A task between the examples that prepares the next."""
    argv = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement]
    return {"name": name, "ansible.builtin.command": {"argv": argv}}


def begin(kind: str, **asked: str) -> Task:
    request = {"state": "begin", "kind": kind, "request": asked or {"story": kind}}
    return {"name": "Begin a " + kind, PREFIX + "operation": {**request, **WHERE}, "register": "begun"}


def end(outcome: str) -> Task:
    arguments = {"state": "end", "operation": "{{ begun.operation }}", "outcome": outcome}
    return {"name": "End it", PREFIX + "operation": {**arguments, **WHERE}}


WHERE = {"connection": {"url": "{{ database_url }}"}, "store": "/var/backups/backstop"}
COLUMNS = "_prisma_migrations (id, checksum, migration_name, logs)"
FAILED = "INSERT INTO %s VALUES (gen_random_uuid(), 'x', '%s', 'ERROR')" % (COLUMNS, MIGRATION)
FORGET = "DELETE FROM _prisma_migrations WHERE migration_name = '20251001000000_init'"
VALUES = "'r1', \"id\", NULL, NULL, 1, 1, 0, 0, 0, 1, 1, now()"
RECEIPT = 'INSERT INTO "ReceiptData" SELECT %s FROM "TokenPurchase" LIMIT 1' % VALUES
AFTER: Task = {
    "name": "Back up after the deploy",
    PREFIX + "pg_dump": {"kind": "post-migration", **WHERE},
    "register": "after",
}
REVIEWED: Task = {
    "name": "Back up for no operation",
    PREFIX + "pg_dump": {"kind": "emergency", "operation": "{{ omit }}", **WHERE},
    "register": "reviewed",
}
LATER: Task = {
    "name": "Back up as every day",
    PREFIX + "pg_dump": {"kind": "daily", "operation": "{{ omit }}", **WHERE},
}
#: Modules, whose examples run in their order; module and number of an example; tasks in between.
STORY: List[Union[str, Task]] = [
    "check_variables",
    "application_info",
    "prisma_migrate_info",
    "prisma_migrate_lint",
    "pg_table_info",
    "smoke_test:0",
    "operation:0",
    "deploy_gates_info",
    "pg_dump:0",
    "pg_backup_info",
    "pg_backup_verify",
    "prisma_migrate_rehearse:0",
    "release_trial",
    "prisma_migrate_rehearse:1",
    "application_release:0",
    "operation:1",
    "application_service:0",
    "application_service:3",
    "application_service:4",
    "prisma_migrate_deploy",
    "application_release:1",
    "application_service:1",
    "smoke_test:1",
    "operation:2",
    sql("Write a receipt", RECEIPT),
    "pg_table_check:0",
    "pg_table_check:1",
    AFTER,
    "pg_table_check:2",
    sql("Remove it again", 'DELETE FROM "ReceiptData"'),
    "operation_info",
    "operation:3",
    "operation:4",
    "rollback_plan_info",
    begin("rollback"),
    "pg_dump:1",
    "pg_dump:2",
    "pg_dump:4",
    end("done"),
    "application_service:0",
    "pg_restore",
    sql("Let a migration fail", FAILED),
    "prisma_migrate_resolve:0",
    sql("Forget the first migration", FORGET),
    "prisma_migrate_resolve:1",
    REVIEWED,
    begin("rollback"),
    "pg_dump:3",
    end("done"),
    begin("rollback", scenario="complete", backup="{{ reviewed.backup }}"),
    "rollback_prepare",
    "rollback",
    end("done"),
    "operation_report",
    "pg_retired_prune",
    REVIEWED,
    LATER,
    "pg_backup_mark",
    "pg_backup_prune",
    "backstop_command",
]


#: The example that needs a host with systemd, which the test machine may not have.
ON_SYSTEMD = {"application_service:2"}


def examples() -> Dict[str, List[Task]]:
    return {path.stem: list(flat(yaml.safe_load(string_constant(path, "EXAMPLES")))) for path in module_files()}


def flat(found: List[Task]) -> Iterator[Task]:
    """The tasks of examples; some are whole plays."""
    for item in found:
        yield from flat(item["tasks"]) if "hosts" in item else [item]


def story() -> List[Task]:
    """The examples in the order of STORY."""
    known, told = examples(), []
    for step in STORY:
        if isinstance(step, dict):
            told.append(step)
        elif ":" in step:
            module, number = step.split(":")
            told.append(known[module][int(number)])
        else:
            told += known[step]
    return told


def test_the_story_has_every_example() -> None:
    told = story()
    missing = {
        "%s:%d" % (module, number)
        for module, tasks in examples().items()
        for number, task in enumerate(tasks)
        if task not in told
    }
    assert missing == ON_SYSTEMD


def placed(value: Any, places: Mapping[str, str]) -> Any:
    """An example with the paths, URLs and ids of a real site."""
    # No other user's privileges are needed here.
    text = json.dumps({key: part for key, part in value.items() if key != "become"})
    for example, real in places.items():
        text = text.replace(example, real)
    return json.loads(text)


def defaults(path: pathlib.Path) -> Dict[str, str]:
    """Options that depend on the machine and not on the example; and the id of the operation that is open."""
    options = dict(documentation(path).get("options") or {})
    for fragment in fragments(path):
        options.update(fragment_options(fragment))
    machine = {
        "client_bin_dir": "{{ backstop_client_bin_dir }}",
        "node_bin_dir": "{{ application_node_bin_dir }}",
        "prisma_environment": "{{ backstop_prisma_environment }}",
        "database_directory": "{{ backstop_database_directory }}",
        "operation": "{{ begun.operation | default(omit) }}",
    }
    if "whole_store" in options:
        del machine["operation"]  # without one it reports the newest, or all
    return {name: value for name, value in machine.items() if name in options and name != path.stem}


@pytest.fixture
def drill_directory() -> Iterator[str]:
    """A directory in which another account can run a server."""
    path = tempfile.mkdtemp(prefix="drill-", dir="/var/tmp")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path)


def test_every_example_runs(site: DemoSite, tmp_path: pathlib.Path, drill_directory: str) -> None:
    release = str(application.releases(site.places).path(site.commits["et-100"]))
    former = str(application.releases(site.places).path(site.commits["before-et-100"]))
    places = {
        "/opt/squawk/bin/squawk": str(pathlib.Path(sys.executable).parent / "squawk"),
        "/usr/local/bin/tokens-service": str(service_script.write(tmp_path)),
        "/srv/electricity-tokens/releases/0a1b2c": release,
        "/srv/electricity-tokens/releases/9f8e7d": former,
        "/srv/electricity-tokens/current/prisma": str(pathlib.Path(release) / "prisma"),
        "/srv/electricity-tokens/shared/.env": str(site.places.environment_file),
        "/srv/electricity-tokens": str(site.places.application),
        "git@git.example.org:energy/electricity-tokens.git": str(site.places.repository),
        "/var/lib/electricity-tokens/.pm2": str(site.places.pm2_home),
        "/var/backups/backstop": str(site.places.store),
        "electricity_tokens-20251108T020000Z-3fa9c1": "{{ backup.backup }}",
        "20251108T020000Z-3fa9c1": "{{ begun.operation }}",
        "electricity_tokens-20251231T020000Z-3fa9c1": "{{ backup.backup }}",
        "electricity_tokens-20251109T020000Z-c04d5e": "{{ after.backup }}",
        "electricity_tokens-20251101T120000Z-5b1c0d": "{{ reviewed.backup }}",
        "/usr/local/bin/backstop": str(tmp_path / "backstop"),
        "/srv/drill": drill_directory,
        "/tmp/report.html": str(tmp_path / "report.html"),
        "/tmp/store.html": str(tmp_path / "store.html"),
        "http://127.0.0.1:3000": "http://127.0.0.1:%d" % site.port,
    }
    play = {
        "name": "Every example",
        "hosts": "localhost",
        "gather_facts": False,
        "vars": {"database_url": site.url(), "scratch_database_url": site.url()},
        "module_defaults": {PREFIX + path.stem: defaults(path) for path in module_files()},
        "tasks": [placed(task, places) for task in story()],
    }
    playbook = tmp_path / "examples.yml"
    playbook.write_text(yaml.safe_dump([play], sort_keys=False), "utf-8")
    programs = [site.node.bin_dir, site.places.pm2_executable.parent, site.cluster.bin_dir, os.environ["PATH"]]
    environment = {**site.cluster.environment(application.DATABASE), "PATH": os.pathsep.join(map(str, programs))}
    run = site.play(str(playbook), environment=environment)
    assert run.status == 0, run.output
