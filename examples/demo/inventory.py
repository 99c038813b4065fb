# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible needs for the demo: an inventory with its variables, and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping

from . import application, private_files, repository
from .node_tools import Node
from .places import Places
from .postgres_server import Cluster

HOSTS = """\
---
# The demo: one host that runs the application and does all work on its database.
application:
  hosts:
    localhost:
backstop_runner:
  hosts:
    localhost:
"""


def as_yaml(value: object, indent: str = "") -> str:
    """Write dictionaries in block style, all else as JSON, which is YAML."""
    if isinstance(value, Mapping) and value:
        lines = []
        for key, item in value.items():
            nested = isinstance(item, Mapping) and item
            lines.append(f"{indent}{key}:" + ("\n" + as_yaml(item, indent + "  ") if nested else f" {as_yaml(item)}"))
        return "\n".join(lines)
    return json.dumps(value, ensure_ascii=False)


def variables(places: Places, cluster: Cluster, node: Node, prisma: Mapping[str, str], port: int) -> dict[str, object]:
    return {
        "ansible_connection": "local",
        "ansible_python_interpreter": "{{ ansible_playbook_python }}",
        "backstop_store": str(places.store),
        "backstop_client_bin_dir": str(cluster.bin_dir),
        "backstop_database_directory": str(cluster.data),
        "backstop_prisma_environment": dict(prisma),
        "application_name": application.NAME,
        "application_repository": str(places.repository),
        "application_root": str(places.application),
        "application_environment_file": str(places.environment_file),
        "application_node_bin_dir": str(node.bin_dir),
        "application_pm2_home": str(places.pm2_home),
        "application_pm2_executable": str(places.pm2_executable),
        "application_ecosystem_file": application.ECOSYSTEM_FILE,
        "application_url": f"http://127.0.0.1:{port}",
        "application_health_url": f"http://127.0.0.1:{port}/api/health",
        "application_install_command": application.INSTALL,
        "application_generate_command": application.GENERATE,
        "application_build_command": application.BUILD,
        "application_start_command": application.START,
        "deploy_revision": repository.AFTER,
    }


def write(places: Places, cluster: Cluster, node: Node, prisma: Mapping[str, str], port: int) -> None:
    """Write inventory, variables, ansible.cfg and the password file of PostgreSQL's tools."""
    group = places.inventory / "group_vars" / "all"
    private_files.write(places.hosts, HOSTS)
    text = as_yaml(variables(places, cluster, node, prisma, port))
    private_files.write(group / "main.yml", f"---\n{text}\n")
    connection = as_yaml({"backstop_connection": {"url": application.database_url(cluster)}})
    private_files.write(group / "secrets.yml", f"---\n{connection}\n")
    private_files.write(places.password_file, password_lines(cluster))
    private_files.write(places.ansible_config, ansible_settings(places))


def password_lines(cluster: Cluster) -> str:
    """The passwords of both roles, in the format of libpq's password file."""
    lines = []
    for role in (application.ROLE, cluster.superuser):
        secret = cluster.password_of(role).replace("\\", "\\\\").replace(":", "\\:")
        lines.append(f"127.0.0.1:{cluster.port}:*:{role}:{secret}\n")
    return "".join(lines)


def ansible_settings(places: Places) -> str:
    return (
        "[defaults]\n"
        f"inventory = {places.hosts}\n"
        f"collections_path = {places.collections}\n"
        f"home = {places.ansible_home}\n"
        f"remote_tmp = {places.ansible_home}/tmp\n"
        "localhost_warning = False\n"
        "retry_files_enabled = False\n"
        "callback_result_format = yaml\n"
    )
