# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Renders the scripts for Windows as Ansible's module win_template does, and parses them by their grammar."""

from __future__ import annotations

import json
from typing import Any, Dict

import jinja2
from support.collection_files import ROLES
from support.powershell import Script

TEMPLATES = ROLES / "scheduled_backups" / "templates"
#: The role's options on a host that sets only the required ones.
DEFAULTS: Dict[str, Any] = {
    "backstop_store": "C:\\ProgramData\\backstop",
    "backstop_client_bin_dir": "",
    "scheduled_backups_user": "SYSTEM",
    "scheduled_backups_daily_time": "02:00",
    "scheduled_backups_state": "present",
    "scheduled_backups_retention": {},
    "scheduled_backups_scripts": "C:\\Program Files\\backstop",
}


def database(name: str = "shop", **given: Any) -> Dict[str, Any]:
    """An entry of the role's list of databases."""
    connection = {"user": "shop_owner", "database": name, **given.pop("connection", {})}
    return {"name": name, "connection": connection, **given}


def render(name: str, **values: Any) -> Script:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["to_json"] = json.dumps
    return Script(environment.get_template("windows/%s.ps1.j2" % name).render({**DEFAULTS, **values}))


def backup_script(**given: Any) -> Script:
    return render("backup-database", item=database(**given))


def settings_of(script: Script) -> Dict[str, Any]:
    """The JSON at the beginning of a script."""
    (text,) = script.strings("$Settings")
    return dict(json.loads(text))
