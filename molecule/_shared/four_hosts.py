# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The scenario hosts: two application hosts, of which the first is under pm2 and the second under systemd."""

from __future__ import annotations

from deployed_site import HOME, Site

APP1, APP2, RUNNER, DATABASE = "backstop-app1", "backstop-app2", "backstop-runner", "backstop-database"


class Hosts:
    """All hosts of the scenario."""

    def __init__(self) -> None:
        self.first, self.second, self.runner = Site(APP1), Site(APP2), Site(RUNNER)

    def both_run(self, tag: str) -> bool:
        """Both are healthy and run this release, each under its own manager in its own directory."""
        release = HOME + "/application/releases/" + self.first.commit(tag)
        (process,) = self.first.processes()
        pid = self.second.host.check_output("systemctl show --property=MainPID --value electricity-tokens")
        directories = [process["pm2_env"]["pm_cwd"], self.second.host.check_output("readlink /proc/%s/cwd", pid)]
        return [site.runs(tag) for site in (self.first, self.second)] == [True, True] and directories == [release] * 2
