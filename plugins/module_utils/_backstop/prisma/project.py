# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a Prisma project has its schema and migrations, and which variables its database URL comes from."""

from __future__ import annotations

import json
import os
import re
from typing import Iterator, List, Optional

from ..base.durable_files import file_error
from ..base.errors import Refused
from .configuration import Configuration, resolve

_CONFIG = re.compile(r"prisma7?(?:\.config)?\.(?:[cm]?[jt]s)")
_COMMENT = re.compile(r"//[^\n]*")
_DATASOURCE = re.compile(r"^\s*datasource\s+\w+\s*\{(.*?)^\s*\}", re.DOTALL | re.MULTILINE)
_FIELD = re.compile(r'^\s*(url|directUrl)\s*=\s*(?:env\(\s*"([^"]+)"\s*\)|(".*"))', re.MULTILINE)
USUAL_VARIABLE = "DATABASE_URL"


class Project:
    """A directory with a Prisma schema.

    :param schema_path: schema file or folder, if it is not in one of Prisma's usual places
    :param config_path: Prisma's configuration, if it is not in one of those either
    :param node_bin_dir: directory of ``node``, which runs that configuration if there is one; default is PATH
    """

    def __init__(
        self,
        path: str,
        schema_path: Optional[str] = None,
        config_path: Optional[str] = None,
        node_bin_dir: Optional[str] = None,
    ) -> None:
        self.path = os.path.abspath(path)
        self.node_bin_dir = node_bin_dir
        self._configuration: Optional[Configuration] = None
        if not os.path.isdir(self.path):
            raise Refused(
                "There is no Prisma project",
                found="no directory " + self.path,
                hint="give the directory of the release",
            )
        self.schema_path = os.path.join(self.path, schema_path) if schema_path else None
        self.config_path = os.path.join(self.path, config_path) if config_path else None
        if self.config_path and not os.path.isfile(self.config_path):
            raise Refused(
                "Prisma's configuration is missing",
                found="no file " + self.config_path,
                hint="correct config_path, relative to the release",
            )

    def schema(self) -> str:
        """The schema file or folder, as Prisma would find it."""
        if self.schema_path:
            candidates = [self.schema_path]
        else:
            named = self.configuration().schema or self._schema_of_package()
            candidates = [named] if named else []
            candidates += [os.path.join(self.path, place) for place in ("schema.prisma", "prisma/schema.prisma")]
        for candidate in candidates:
            if os.path.exists(candidate):
                return candidate
        raise Refused(
            "The project has no Prisma schema",
            found="none of " + ", ".join(candidates),
            hint="give its place as schema_path",
        )

    def _schema_of_package(self) -> Optional[str]:
        try:
            text = _read(os.path.join(self.path, "package.json"))
            named = json.loads(text).get("prisma", {}).get("schema") if text else None
        except (ValueError, AttributeError):
            return None
        return os.path.join(self.path, named) if isinstance(named, str) else None

    def migrations(self) -> str:
        """The migrations folder: the configuration's, else next to the file with the datasource."""
        configured = self.configuration().migrations
        return configured or os.path.join(os.path.dirname(self._datasource_file()), "migrations")

    def _datasource_file(self) -> str:
        files = list(_schema_files(self.schema()))
        return next((path for path in files if _DATASOURCE.search(_without_comments(path))), files[0])

    def url_variables(self) -> List[str]:
        """Names of the variables from which Prisma takes the database URL; DATABASE_URL is always included.

        :raises Refused: the schema contains a fixed URL, so Prisma would migrate that database in any case
        """
        configured = self.configuration()
        names = [USUAL_VARIABLE, *self.schema_variables(), *configured.variables, *configured.shadow_variables]
        return list(dict.fromkeys(names))

    def configured_variables(self) -> List[str]:
        """Variables that may hold the URL if the schema has none: the configuration's are those of Prisma's CLI, and
        the application's code usually reads DATABASE_URL."""
        return list(dict.fromkeys([*self.configuration().variables, USUAL_VARIABLE]))

    def schema_variables(self) -> List[str]:
        """Variables in the schema that hold the URL of the release's database: the pooled one and the direct one."""
        names = []
        block = _DATASOURCE.search(_without_comments(self._datasource_file()))
        for match in _FIELD.finditer(block.group(1) if block else ""):
            if match.group(3):
                raise Refused(
                    "The Prisma schema names a fixed database",
                    found="%s in %s is a text" % (match.group(1), self._datasource_file()),
                    expected='%s = env("DATABASE_URL")' % match.group(1),
                    hint="let it come from a variable, or it cannot be sent to another database",
                )
            names.append(match.group(2))
        return names

    def configuration(self) -> Configuration:
        """Prisma's configuration, run once."""
        if self._configuration is None:
            file = self.config()
            self._configuration = (
                resolve(self.path, file, self.config_path is not None, self.node_bin_dir) if file else Configuration()
            )
        return self._configuration

    def config(self) -> Optional[str]:
        """The file of Prisma's configuration, if there is one."""
        return self.config_path or next(self._config_files(), None)

    def _config_files(self) -> Iterator[str]:
        for folder, prefix in ((self.path, "prisma.config."), (os.path.join(self.path, ".config"), "prisma.")):
            names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            # Since 7.10 a file for that version takes precedence.
            for start in (prefix.replace("prisma", "prisma7"), prefix):
                for name in names:
                    if name.startswith(start) and _CONFIG.fullmatch(name):
                        yield os.path.join(folder, name)


def _schema_files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    found = False
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            if name.endswith(".prisma"):
                found = True
                yield os.path.join(folder, name)
    if not found:
        raise Refused("The folder of the Prisma schema is empty", found="no .prisma file in " + path)


def _without_comments(path: str) -> str:
    return _COMMENT.sub("", _keep_urls(_read(path) or ""))


def _keep_urls(text: str) -> str:
    # The // of a URL does not start a comment.
    return text.replace("://", ":/\0/")


def _read(path: str) -> Optional[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise file_error("A file of the Prisma project cannot be read", path, error) from error
