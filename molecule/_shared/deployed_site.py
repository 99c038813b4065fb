# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the scenarios' tests ask of a host."""
from __future__ import annotations

import json
from typing import Any, Dict, List

HOME = "/srv/electricity-tokens"
STORE = "/var/backups/backstop"
BEFORE, AFTER = "before-et-100", "et-100"


class Site:
    """The application's host, as its own user sees it."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def sql(self, statement: str, database: str = "electricity_tokens") -> str:
        command = "PGPASSFILE=%s/.pgpass psql -X -At -h 127.0.0.1 -U electricity_tokens -d %s -c %%s" % (HOME, database)
        return str(self.host.check_output(command, statement))

    def databases(self) -> List[str]:
        return self.sql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1").splitlines()

    def commit(self, tag: str) -> str:
        return str(self.host.check_output("git --git-dir %s/repository.git rev-parse %s^{commit}", HOME, tag))

    def health(self) -> Dict[str, Any]:
        read = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:3000/api/health').read().decode())"
        return dict(json.loads(self.host.check_output("python3 -c %s", read)))

    def processes(self) -> List[Dict[str, Any]]:
        listed = self.host.check_output("PM2_HOME=%s/pm2-home %s/pm2/node_modules/.bin/pm2 jlist", HOME, HOME)
        return list(json.loads(listed[listed.index("["):]))

    def manifests(self) -> List[Dict[str, Any]]:
        paths = self.host.check_output("find %s -name manifest.json", STORE).splitlines()
        return [json.loads(self.host.file(path).content_string) for path in sorted(paths)]
