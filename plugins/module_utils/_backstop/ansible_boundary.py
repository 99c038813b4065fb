# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The boundary between Ansible and the library: arguments, results and errors. The only file that imports Ansible.

This module utility is private to the collection; it can change in any release.

Ansible packs every file that a module imports, and Python compiles those in each call: what only some modules need is
in ``ansible_prisma.py`` and ``ansible_service.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from typing import Any, Callable, Dict, Iterator, List, Optional, Union, cast

from ansible.module_utils.basic import AnsibleModule

from .ansible_words import AnsibleWords
from .base.errors import BackstopError, Refused
from .base.processes import signals_as_errors
from .base.progress import Progress, TaskProgress
from .base.remedies import in_words_of
from .postgres.connection import Settings, database_errors
from .postgres.pgbouncer import END, REFUSE, Pooler
from .site import Run, Site, exclusive
from .store.layout import Store
from .store.operation import Operation


def _connection_fields() -> Dict[str, Any]:
    return dict(
        url=dict(type="str", no_log=True),
        host=dict(type="str"),
        port=dict(type="int"),
        user=dict(type="str"),
        password=dict(type="str", no_log=True),
        database=dict(type="str"),
        schema=dict(type="str"),
        sslmode=dict(type="str", choices=["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
        sslrootcert=dict(type="path"),
        connect_timeout=dict(type="int"),
    )


def connection_argument_spec(required: bool = True) -> Dict[str, Any]:
    """The options of every module that connects to the database; documented in the fragment ``connection``."""
    return dict(
        connection=dict(type="dict", required=required, options=_connection_fields()),
        administration=dict(type="dict", options=_connection_fields()),
        client_bin_dir=dict(type="path"),
        age_recipients=dict(type="list", elements="str"),
        age_identity=dict(type="path"),
    )


def store_argument_spec(operation: bool = False) -> Dict[str, Any]:
    """The options of modules that use the store; documented in the fragment ``store``.

    :param operation: the module is a step of an operation and requires its id
    """
    return dict(
        store=dict(type="path", required=True),
        operation=dict(type="str", required=operation),
        controller=dict(type="dict"),
    )


def pooler_argument_spec() -> Dict[str, Any]:
    """The option of modules that pause PgBouncer's pools; documented in the fragment ``pooler``."""
    return dict(
        poolers=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(
                console=dict(type="dict", required=True, options=_connection_fields()),
                pools=dict(type="list", elements="str", default=[]),
                wait=dict(type="float", default=10),
                held=dict(type="str", choices=[REFUSE, END], default=REFUSE),
            ),
        )
    )


def prisma_argument_spec() -> Dict[str, Any]:
    """The options of modules that run Prisma; documented in the fragment ``prisma``."""
    return dict(
        project=dict(type="path", required=True),
        node_bin_dir=dict(type="path"),
        prisma_environment=dict(type="dict", default={}),
        schema_path=dict(type="str"),
        config_path=dict(type="str"),
    )


def rollback_argument_spec() -> Dict[str, Any]:
    """The options of modules that carry out a rollback; documented in ``rollback``, ``pooler`` and ``store``."""
    return dict(
        accept_lost_rows=dict(type="int", default=0),
        accept_lost_objects=dict(type="int", default=0),
        accept_unreadable=dict(type="bool", default=False),
        accept_cascade=dict(type="bool", default=False),
        accept_restore=dict(type="bool", default=True),
        again=dict(type="bool", default=False),
        reapply=dict(type="str", choices=["off", "report", "apply"], default="off"),
        reapply_deletes=dict(type="bool", default=False),
        old_project=dict(type="path"),
        down_sql=dict(type="str"),
        down_sql_file=dict(type="path"),
        dump=dict(
            type="dict",
            default={},
            options=dict(
                format=dict(type="str", choices=["custom", "directory"], default="custom"),
                jobs=dict(type="int", default=1),
                plain=dict(type="bool", default=False),
            ),
        ),
        keep_retired=dict(type="bool", default=True),
        wait=dict(type="float", default=30),
        **{**prisma_argument_spec(), "project": dict(type="path")},
        **pooler_argument_spec(),
        **store_argument_spec(operation=True),
    )


def table_checks_argument_spec() -> Dict[str, Any]:
    """The option of modules that check tables; documented in the fragment ``table_checks``."""
    return dict(
        tables=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(
                name=dict(type="str", required=True),
                exists=dict(type="bool", default=True),
                columns=dict(type="list", elements="str"),
                key=dict(type="list", elements="str", no_log=False),
                rows=dict(type="int"),
                min_rows=dict(type="int"),
                max_rows=dict(type="int"),
                earliest=dict(type="dict"),
                latest=dict(type="dict"),
                sums=dict(type="dict"),
            ),
        ),
    )


@dataclasses.dataclass
class Request:
    """The arguments of a module."""

    params: Dict[str, Any]
    check_mode: bool
    diff: bool
    warn: Callable[[str], None]
    #: read by the action plugin while the module runs
    progress: Progress = dataclasses.field(default_factory=Progress)
    _connection: Optional[Settings] = None
    _administration: Optional[Settings] = None
    _acting: Optional[Run] = None

    @property
    def connection(self) -> Settings:
        """The application's database, connected to directly."""
        return cast(Settings, self._connection)

    @property
    def administration(self) -> Settings:
        """The maintenance database: to create and rename databases and to terminate their sessions."""
        return cast(Settings, self._administration)

    @property
    def has_connection(self) -> bool:
        return self._connection is not None

    @property
    def store(self) -> Store:
        return Store(self.params["store"])

    @property
    def site(self) -> Site:
        """Database and store as a Site; a Run where an operation is given."""
        if self._acting is not None:
            return self._acting
        site = Site(
            self.connection,
            self.administration,
            self.store,
            self.params.get("client_bin_dir") or None,
            poolers=[Pooler.from_mapping(one) for one in self.params.get("poolers") or []],
            watched_by=self.progress,
            recipients=tuple(self.params.get("age_recipients") or ()),
            identity=self.params.get("age_identity") or None,
        )
        wanted = self.params.get("operation")
        if not wanted:
            return site
        return site.run(Operation.load(self.store, wanted), self.params.get("controller"))

    @property
    def run(self) -> Run:
        """The operation that the module is a step of."""
        site = self.site
        if not isinstance(site, Run):
            raise Refused("This belongs to an operation", hint="begin one with the module operation and give its id")
        return site

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Hold the operation's locks, if there is one, while the module works."""
        site = self.site
        if self.check_mode or not isinstance(site, Run):
            yield
            return
        with exclusive(site) as self._acting:
            site.require_current()
            yield


def _settings(module: AnsibleModule) -> List[Settings]:
    connection = Settings.from_mapping(module.params["connection"])
    administration = Settings.from_mapping(
        module.params["administration"] or {}, base=connection.with_database("postgres")
    )
    consoles = [Pooler.from_mapping(one).console for one in module.params.get("poolers") or []]
    for settings in (connection, administration, *consoles):
        module.no_log_values.update(settings.secrets)
    return [connection, administration]


@contextlib.contextmanager
def _shown_progress(request: Request) -> Iterator[None]:
    """Show the module's progress to the action plugin, which names the file in ``controller``."""
    controller = dict(request.params.get("controller") or {})
    task = controller.pop("task", None)
    if task is None:
        yield
        return
    request.params["controller"] = controller
    if request.check_mode or not re.fullmatch("[0-9a-f]{16}", str(task)):
        yield
        return
    request.progress = progress = TaskProgress(request.store.root, task)
    try:
        yield
    finally:
        progress.close()


def run_module(
    argument_spec: Dict[str, Any],
    act: Callable[[Request], Dict[str, Any]],
    *,
    connection: Union[bool, str] = False,
    acts: bool = False,
    **keywords: Any,
) -> None:
    """Run a module: return the result of ``act``, or fail with its BackstopError.

    :param connection: the module connects to the database and gets the connection options; ``"optional"``: it connects
        only where they are given
    :param acts: the module is a step of an operation and holds its locks from start to end
    :param keywords: further arguments of AnsibleModule (required_if, mutually_exclusive, ...)
    """
    spec = dict(argument_spec)
    if connection:
        spec.update(connection_argument_spec(required=connection != "optional"))
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True, **keywords)
    module.run_command_environ_update = {"LC_ALL": "C.UTF-8"}
    request = Request(module.params, module.check_mode, module._diff, module.warn)
    with in_words_of(AnsibleWords()):
        try:
            if connection and module.params["connection"] is not None:
                request._connection, request._administration = _settings(module)
            step = request.acting if acts else contextlib.nullcontext
            with signals_as_errors(), database_errors(), _shown_progress(request), step():
                result = act(request)
        except BackstopError as error:
            failure = dict(error.details)
            failure.update(found=error.found, expected=error.expected, hint=error.hint, error=type(error).__name__)
            module.fail_json(msg=str(error), **failure)
    module.exit_json(**result)
