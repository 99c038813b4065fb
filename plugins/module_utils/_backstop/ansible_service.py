# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application's process manager as a module's arguments describe it.

This module utility is private to the collection; it can change in any release.
"""

from __future__ import annotations

from typing import Any, Dict

from .ansible_boundary import Request
from .application.service import MANAGERS, Service, service_of
from .application.systemd import SCOPES


def managed_service(request: Request) -> Service:
    """The application under its process manager."""
    return service_of(request.params["manager"], {name: request.params[name] for name in MANAGERS})


def service_argument_spec() -> Dict[str, Any]:
    """The options of modules that check, start or stop the application; documented in the fragment ``service``."""
    pm2 = dict(
        name=dict(type="str", required=True),
        executable=dict(type="str", default="pm2"),
        home=dict(type="path", required=True),
        node_bin_dir=dict(type="path"),
        ecosystem_file=dict(type="str", default="ecosystem.config.js"),
        stable=dict(type="float", default=2),
        save=dict(type="bool", default=True),
    )
    systemd = dict(
        unit=dict(type="str", required=True),
        scope=dict(type="str", choices=list(SCOPES), default="system"),
        stable=dict(type="float", default=2),
    )
    commands = dict(
        status=dict(type="list", elements="str", required=True),
        start=dict(type="list", elements="str", default=[]),
        stop=dict(type="list", elements="str", default=[]),
        log=dict(type="list", elements="str", default=[]),
    )
    return dict(
        manager=dict(type="str", choices=list(MANAGERS), required=True),
        pm2=dict(type="dict", options=pm2),
        systemd=dict(type="dict", options=systemd),
        commands=dict(type="dict", options=commands),
    )
