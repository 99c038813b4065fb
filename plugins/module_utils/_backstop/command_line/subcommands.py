# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The subcommands of ``backstop``: one entry of SUBCOMMANDS each."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from typing import Any, Callable, Dict, List, Tuple, TypeVar

from ..backups.cluster_drill import run_cluster_drill
from ..backups.copies import fetch, read_copies
from ..backups.drill import verify
from ..backups.make import make_backup
from ..backups.prune import prune
from ..backups.restore import drop_left_restore, restore_beside
from ..backups.row_files import prune_row_files
from ..base.amounts import human_size, human_time
from ..base.durable_files import write_json
from ..base.encryption import find_age
from ..base.errors import BackstopError, CouldNotVerify, Locked, NotCopied, Refused
from ..base.progress import Progress, parse_timestamp, timestamp
from ..postgres import server
from ..postgres.connection import require_driver
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import KINDS, BackupPlace
from ..store.manifest import Manifest
from ..store.retention import policy_of, row_days_of
from ..ways.safety_copies import drop_old_copies
from . import reporting, rolling_back
from .configuration import Configuration, duration, load, names
from .copying import copy_and_prune, remote_of, require_offsite
from .exit_statuses import COULD_NOT_VERIFY, FAILED, NAGIOS, NAGIOS_WORDS, NOT_COPIED, OK, TOO_OLD, UsageError
from .jobs import alone_on_store, exclusive, refresh_metrics, watched
from .notification import notify
from .output import Output, table
from .run_records import RunRecords
from .standing import Backup, Standing, read_standing

_T = TypeVar("_T")


@dataclasses.dataclass
class Call:
    """One call of the command."""

    options: argparse.Namespace
    output: Output
    progress: Progress = dataclasses.field(default_factory=Progress)

    def configuration(self) -> Configuration:
        found = load(self.options.config_directory, self.options.name)
        identity = getattr(self.options, "identity", None)
        return found if identity is None else dataclasses.replace(found, age_identity=identity)

    def configurations(self) -> List[Configuration]:
        """The named configuration, else all of this host."""
        directory = self.options.config_directory
        return [load(directory, name) for name in ([self.options.name] if self.options.name else names(directory))]

    def place(self, standing: Standing) -> BackupPlace:
        """The named backup, else the newest verified one of this database."""
        wanted = self.options.backup
        if wanted is None:
            if standing.newest is None:
                raise CouldNotVerify(
                    "There is no backup of %s to work on" % standing.configuration.database,
                    found=standing.describe(),
                    hint="make one: backstop backup",
                )
            return standing.newest.place
        for backup in standing.backups:
            if backup.place.backup_id == wanted:
                return backup.place
        try:
            place = standing.configuration.store.find_backup(wanted)
        except Refused as error:
            raise UsageError(error.message, found=error.found, expected=error.expected, hint="backstop list") from None
        database = manifests.load(place).database.name
        raise UsageError(
            "Backup %s is of another database" % wanted,
            found=str(database),
            expected=standing.configuration.database,
        )


def _list(call: Call) -> int:
    if call.options.copies:
        return _list_copies(call)
    found, rows = [], [("backup", "kind", "age", "size", "rows", "level", "copied")]
    for configuration in call.configurations():
        standing = read_standing(configuration)
        for backup in sorted(standing.backups, key=lambda one: one.created):
            facts = backup.to_json()
            copied = None if configuration.offsite is None else facts["backup"] in standing.copied
            found.append({"configuration": configuration.name, **facts, "copied": copied})
            age = human_time(max(0.0, (standing.now - backup.created).total_seconds()))
            size, count = human_size(facts["size"]), str(facts["rows"])
            text = {None: "", True: "yes", False: "no"}[copied]
            rows.append((facts["backup"], facts["kind"], age, size, count, str(backup.level), text))
        for backup_id, reason in standing.unreadable.items():
            call.output.warn("%s cannot be used: %s" % (backup_id, reason))
    call.output.result(found, table(rows) if found else ["no backups"])
    return OK


def _list_copies(call: Call) -> int:
    """Ask the remotes. Without this option, the last known copies are shown."""
    found, rows = [], [("copy", "kind", "created", "size", "level", "problem")]
    for configuration in call.configurations():
        if configuration.offsite is None:
            continue
        copies = read_copies(configuration.site(call.progress), remote_of(configuration))
        for copy in sorted(copies, key=lambda one: one.item.age_key):
            item = copy.item
            created = timestamp(item.created) if item.created else None
            facts = {"backup": item.backup_id, "kind": item.kind, "created": created, "size": item.size}
            facts.update(level=item.level, problem=item.problem, database=configuration.database)
            found.append({"configuration": configuration.name, **facts})
            size = human_size(item.size)
            rows.append((item.backup_id, item.kind, str(created), size, str(item.level), item.problem or ""))
    call.output.result(found, table(rows) if found else ["no copies"])
    return OK


def _show(call: Call) -> int:
    standing = read_standing(call.configuration())
    place = call.place(standing)
    manifest = manifests.load(place)
    facts = Backup(place, manifest, manifests.level_of(place)).to_json()
    lines = ["%-10s %s" % (key, value) for key, value in facts.items()]
    rows = [("table", "rows", "digest")]
    for entry in manifest.tables:
        rows.append((entry.full_name, str(entry.digest.rows), entry.digest.hash))
    lines += [""] + table(rows) + ["", "not covered: %s" % (_not_covered(manifest) or "nothing")]
    call.output.result({**facts, "manifest": manifest.to_json(), "verification": manifests.verification(place)}, lines)
    return OK


def _not_covered(manifest: Manifest) -> str:
    return "; ".join("%s %s (%s)" % (one.kind, one.name, one.reason) for one in manifest.not_covered)


def _verify(call: Call) -> int:
    configuration = call.configuration()
    place = call.place(read_standing(configuration))
    site = configuration.site(call.progress)
    site.store.check()
    result = _evaluated(lambda: verify(site, place, call.options.level))
    _refresh(call, configuration)
    call.output.result(result.to_json(), ["%s is verified: %s" % (place.backup_id, call.options.level)])
    return OK


def _evaluated(act: Callable[[], _T]) -> _T:
    """A check whose precondition does not hold was not evaluated; it says nothing about the backup."""
    try:
        return act()
    except Refused as error:
        raise CouldNotVerify(
            "The backup could not be verified: " + error.message,
            found=error.found,
            expected=error.expected,
            hint=error.hint,
        ) from None


def _drill(call: Call) -> int:
    configuration = call.configuration()
    if call.options.backup is not None:
        # A typing error is not a failed drill.
        call.place(read_standing(configuration))
    facts = watched(configuration, "drill", lambda: _run_drill(call, configuration), call.output.warn)
    call.output.result(
        facts,
        [
            "%s was restored in %.1f s and equals its source: %d rows of %d tables"
            % (facts["backup"], facts["recovery_seconds"], facts["rows"], facts["tables"])
        ],
    )
    return OK


def _run_drill(call: Call, configuration: Configuration) -> Dict[str, Any]:
    place = call.place(read_standing(configuration))
    site = configuration.site(call.progress)
    with exclusive(site, call.options.wait, besides_operations=True) as site:
        if call.options.where == "cluster":
            return _evaluated(lambda: run_cluster_drill(site, place, call.options.scratch_directory)).to_json()
        _evaluated(lambda: _require_means(site))
        scratch_id = _tidied(configuration, site)
        return _evaluated(lambda: verify(site, place, "restored", scratch_id=scratch_id)).to_json()


def _tidied(configuration: Configuration, site: Site) -> str:
    """Drop the scratch database of a killed restore; returns the id for the names of this database's scratch databases.

    The lock of the database's runs is held, so no restore is running.
    """
    scratch_id = RunRecords(configuration.store, configuration.database).scratch_id()
    drop_left_restore(site, scratch_id)
    return scratch_id


def _require_means(site: Site) -> None:
    """Check what a drill needs besides the backup first, so that a missing program is not taken for a bad backup."""
    with site.administer() as admin:
        site.tools(admin)
        rights = server.rights(admin, site.database)
        if not rights.create_database:
            raise Refused(
                "The role may not make the scratch database of a drill",
                found="role %s without CREATEDB" % rights.role,
                hint="ALTER ROLE ... CREATEDB, or give an administration user in the configuration",
            )


def _backup(call: Call) -> int:
    configuration = call.configuration()

    def act() -> Dict[str, Any]:
        site = configuration.site(call.progress)
        with exclusive(site, call.options.wait) as site:
            place = make_backup(site, call.options.kind)
            try:
                _tidied(configuration, site)
                with site.administer() as admin:
                    drop_old_copies(site, admin)
            except BackstopError as error:
                call.output.warn(str(error))
        return Backup(place, manifests.load(place), manifests.level_of(place)).to_json()

    facts = watched(configuration, "backup", act, call.output.warn)
    status = _copy_afterwards(call, configuration, facts)
    call.output.result(
        facts,
        [
            "%s (%s): %d rows of %d tables, %s in %.1f s, %s"
            % (
                facts["backup"],
                facts["kind"],
                facts["rows"],
                facts["tables"],
                human_size(facts["size"]),
                facts["seconds"],
                facts["level"],
            )
        ],
    )
    return status


def _copy_afterwards(call: Call, configuration: Configuration, facts: Dict[str, Any]) -> int:
    """Copy backups without a copy. A failure does not affect the backup, but has its own exit status."""
    if configuration.offsite is None:
        return OK
    try:
        facts["copied"] = _run_copy(call, configuration)["copied"]
    except BackstopError as error:
        facts["copied"] = None
        call.output.warn("%s (exit status %d)" % (error, NOT_COPIED))
        return NOT_COPIED
    return OK


def _copy(call: Call) -> int:
    configuration = call.configuration()
    facts = _run_copy(call, configuration, only_check=call.options.check)
    gone = "would be deleted" if call.options.check else "deleted"
    lines = ["%s: copied" % backup_id for backup_id in facts["copied"]]
    lines += [_item_line(item, gone) for item in facts["items"]]
    counts = (len(facts["copied"]), len(facts["deleted"]), len(facts["items"]), gone)
    call.output.result(facts, [*lines, "%d copied, %d of %d %s" % counts])
    return OK


def _run_copy(call: Call, configuration: Configuration, only_check: bool = False) -> Dict[str, Any]:
    """Copy backups without a copy, then apply the copies' retention.

    :raises NotCopied: for any failure
    """

    require_offsite(configuration)

    def act() -> Dict[str, Any]:
        site = configuration.site(call.progress)
        with exclusive(site, call.options.wait, besides_operations=True) as site:
            return copy_and_prune(configuration, site, only_check=only_check)

    try:
        return act() if only_check else watched(configuration, "copy", act, call.output.warn, "copy_failure")
    except Locked:
        raise
    except BackstopError as error:
        for item in error.details.get("items", []):
            call.output.warn(_item_line(item, "would be deleted"))
        raise NotCopied(
            "The second copies are not as they should be: " + error.message,
            found=error.found,
            expected=error.expected,
            hint=error.hint,
        ) from None


def _fetch(call: Call) -> int:
    configuration = call.configuration()
    offsite = remote_of(configuration)
    site = configuration.site(call.progress)
    site.store.prepare()
    with exclusive(site, call.options.wait, besides_operations=True) as site:
        place = fetch(site, offsite, call.options.backup)
    facts = Backup(place, manifests.load(place), manifests.level_of(place)).to_json()
    _refresh(call, configuration)
    text = "%s (%s) is back in the store, every file as it was; prove it with: backstop drill"
    call.output.result(facts, [text % (place.backup_id, place.kind)])
    return OK


def _restore(call: Call) -> int:
    configuration = call.configuration()
    place = call.place(read_standing(configuration))
    site = configuration.site(call.progress)
    with exclusive(site, call.options.wait, besides_operations=True) as site:
        restored = restore_beside(site, place, call.options.into, _tidied(configuration, site))
    text = "%s is restored into database %s and equals its source: %d rows of %d tables"
    counts = (place.backup_id, restored.database, restored.rows, restored.tables)
    call.output.result(dataclasses.asdict(restored), [text % counts])
    return OK


def _prune(call: Call) -> int:
    configuration = call.configuration()
    try:
        if call.options.check:
            facts = _run_prune(configuration, only_check=True)
        else:

            def act() -> Dict[str, Any]:
                with alone_on_store(configuration.store, configuration.database, call.options.wait):
                    return _run_prune(configuration)

            facts = watched(configuration, "prune", act, call.output.warn)
    except Refused as error:
        # The reasons are needed to judge whether the refusal is right.
        for item in error.details.get("items", []):
            call.output.warn(_item_line(item, "would be deleted"))
        raise
    gone = "would be deleted" if call.options.check else "deleted"
    summary = "%d of %d backups %s, %s" % (
        len(facts["deleted"]),
        len(facts["items"]),
        gone,
        human_size(facts["freed"]),
    )
    lines = [_item_line(item, gone) for item in facts["items"]]
    for one in facts["row_files"]:
        text = "kept" if one["decision"] == "keep" else gone
        lines.append("rows of operation %s (%s) %s: %s" % (one["operation"], one["kind"], text, one["reason"]))
    call.output.result(facts, [*lines, summary])
    return OK


def _run_prune(configuration: Configuration, only_check: bool = False) -> Dict[str, Any]:
    decisions = prune(
        configuration.store,
        policy_of(configuration.retention),
        max_share=configuration.retention["max_delete_share"],
        only_check=only_check,
    )
    rows = prune_row_files(configuration.store, row_days_of(configuration.retention), only_check=only_check)
    going = [decision.item for decision in decisions if not decision.keep]
    return {
        "items": [decision.to_json() for decision in decisions],
        "deleted": [item.backup_id for item in going],
        "row_files": [one.to_json() for one in rows],
        "freed": sum(item.size for item in going) + sum(one.size for one in rows if not one.keep),
    }


def _item_line(item: Dict[str, Any], gone: str) -> str:
    return "%s (%s) %s: %s" % (
        item["backup"],
        item["kind"],
        "kept" if item["decision"] == "keep" else gone,
        item["reason"],
    )


def _ready(call: Call) -> int:
    """Check what every job needs. The result is written to a file too, the only way for a systemd unit to return it."""
    configuration = call.configuration()
    answer: Dict[str, Any] = {"configuration": configuration.name, "python": sys.executable, "uid": os.geteuid()}
    try:
        answer["found"] = _tried(configuration, call)
        answer["ready"] = True
    except BackstopError as error:
        answer.update(ready=False, message=str(error))
        raise
    finally:
        if call.options.answer:
            write_json(call.options.answer, answer)
    call.output.result(answer, ["%s: the jobs can run here: %s" % (configuration.name, answer["found"])])
    return OK


def _tried(configuration: Configuration, call: Call) -> str:
    require_driver()
    configuration.store.prepare()
    if configuration.age_recipients:
        find_age()
    try:
        site = configuration.site(call.progress)
    except BackstopError:
        # systemd passes a credential only to units that are configured for it.
        if configuration.password is None or configuration.password.key != "password_credential":
            raise
        return "the store is writable; the server was not tested, because its password is a credential of the jobs"
    with site.connect() as session:
        tools = site.tools(session)
        found = "server %s, client programs %s" % (server.major_version(session), tools.version)
    if configuration.offsite is not None:
        remote_of(configuration)
    return found


def _status(call: Call) -> int:
    found, lines, statuses = [], [], []
    for configuration in call.configurations():
        standing = read_standing(configuration)
        status, text = _judged(call, standing)
        statuses.append(status)
        lines.append("%s: %s: %s" % (NAGIOS_WORDS[NAGIOS[status]], configuration.name, text))
        found.append({**standing.to_json(), "exit_status": status, "message": text})
        if call.options.metrics:
            _refresh(call, configuration)
        if call.options.notify and status == TOO_OLD:
            _tell_missing(call, standing, text)
    if not found:
        raise UsageError("There is no configuration", found="none in " + call.options.config_directory)
    worst = min(statuses, key=_WORST_FIRST.index)
    call.output.result(found, lines, good=worst == OK)
    return worst


#: The overall state of several databases.
_WORST_FIRST = (TOO_OLD, FAILED, COULD_NOT_VERIFY, NOT_COPIED, OK)
#: How often the same missing backup is notified.
_REMIND_SECONDS = 24 * 3600


def _judged(call: Call, standing: Standing) -> Tuple[int, str]:
    """Exit status and one line."""
    max_age = call.options.max_age or standing.configuration.max_age
    try:
        standing.judge(max_age)
    except BackstopError as error:
        text = error.message + (": " + error.found if error.found else "")
        return error.exit_status, " ".join(text.split())
    return OK, standing.describe()


def _tell_missing(call: Call, standing: Standing, message: str) -> None:
    configuration = standing.configuration
    configuration.store.prepare()
    records = RunRecords(configuration.store, configuration.database)
    last = records.last("missing")
    if last and abs((standing.now - parse_timestamp(last["at"])).total_seconds()) < _REMIND_SECONDS:
        return
    try:
        if notify(configuration, "missing", job="status", message=message, exit_status=TOO_OLD):
            records.write("missing", {"at": timestamp(standing.now)})
    except BackstopError as error:
        call.output.warn(str(error))


def _refresh(call: Call, configuration: Configuration) -> None:
    try:
        refresh_metrics(configuration)
    except BackstopError as error:
        call.output.warn(str(error))


def _duration(text: str) -> int:
    try:
        return duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError("%s; expected %s" % (error.found, error.expected)) from None


def _seconds(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError("%r; expected a number of seconds" % text)
    return int(text)


# Arguments, by the names under which a subcommand lists them.
_Parser = argparse.ArgumentParser


def _argument(*names: str, **how: Any) -> Callable[[_Parser], None]:
    def add(parser: _Parser) -> None:
        parser.add_argument(*names, **how)

    return add


_one = _argument("name", metavar="DATABASE", help="name of its configuration")
_one_or_all = _argument("name", metavar="DATABASE", nargs="?", help="name of its configuration; default: all")
_which_backup = _argument("backup", metavar="BACKUP", nargs="?", help="id of the backup; default: the newest verified")
_patience = _argument("--wait", metavar="SECONDS", type=_seconds, default=0, help="for another run to end (default: 0)")
_identity = _argument(
    "--identity", metavar="FILE", help="private key of age that opens an encrypted backup; default: age_identity"
)
_level = _argument(
    "--level", choices=("checksum", "readable"), default="readable", help="level (the drill verifies more)"
)
_kind = _argument("--kind", choices=KINDS, default="daily", help="decides how long it is kept (default: daily)")
_into = _argument("--into", metavar="NAME", required=True, help="the new database; it must not exist")
_copies = _argument("--copies", action="store_true", help="ask the remotes for the second copies instead")
_only_check = _argument("--check", action="store_true", help="decide only: show what would be deleted, and why")
_answer = _argument("--answer", metavar="FILE", help="write the answer as JSON into this file as well")


def _where(parser: _Parser) -> None:
    parser.add_argument(
        "--where",
        choices=("database", "cluster"),
        default="database",
        help="in a scratch database of the server, or in a scratch server with the roles (default: database)",
    )
    parser.add_argument("--scratch-directory", metavar="PATH", help="where the data of a scratch server may lie")


def _judging(parser: _Parser) -> None:
    parser.add_argument("--max-age", metavar="AGE", type=_duration, help="such as 26h; default: the configuration's")
    parser.add_argument("--nagios", action="store_true", help="exit with 0, 2 or 3, as Nagios expects")
    parser.add_argument("--metrics", action="store_true", help="update the file for node_exporter")
    parser.add_argument("--notify", action="store_true", help="notify the webhook of a missing backup, once a day")


@dataclasses.dataclass(frozen=True)
class Subcommand:
    """One subcommand."""

    name: str
    what: str
    act: Callable[[Call], int]
    arguments: Tuple[Callable[[_Parser], None], ...]


SUBCOMMANDS = (
    Subcommand("list", "list the backups", _list, (_one_or_all, _copies)),
    Subcommand("show", "show what a backup holds", _show, (_one, _which_backup)),
    Subcommand(
        "verify",
        "read a backup and compare it with its manifest",
        _verify,
        (_one, _which_backup, _level, _identity),
    ),
    Subcommand(
        "drill",
        "restore a backup into a scratch database and compare",
        _drill,
        (_one, _which_backup, _where, _identity, _patience),
    ),
    Subcommand("restore", "restore into a new database", _restore, (_one, _which_backup, _into, _identity, _patience)),
    Subcommand("backup", "make a backup", _backup, (_one, _kind, _patience)),
    Subcommand(
        "prune",
        "delete the backups that retention does not keep, in the whole store: also those of other databases in it",
        _prune,
        (_one, _only_check, _patience),
    ),
    Subcommand(
        "copy",
        "copy to the remote what has no copy there, and delete the copies that their own retention does not keep",
        _copy,
        (_one, _only_check, _patience),
    ),
    Subcommand("fetch", "bring a second copy back into the store", _fetch, (_one, _which_backup, _patience)),
    Subcommand(
        "plan",
        "show which rollback applies, why, what it would lose, and what to run next",
        rolling_back.plan,
        (_one, rolling_back.any_scenario, rolling_back.what_to_lose, _identity),
    ),
    Subcommand(
        "rollback",
        "roll the database back; what would be lost is counted, shown, and refused unless it is accepted",
        rolling_back.rollback,
        (_one, rolling_back.which_scenario, rolling_back.what_to_lose, rolling_back.acting, _identity, _patience),
    ),
    Subcommand(
        "undo",
        "undo a rollback, an undo or the restore of a table",
        rolling_back.undo,
        (_one, rolling_back.which_operation, rolling_back.what_to_lose, rolling_back.acting, _identity, _patience),
    ),
    Subcommand(
        "report",
        "report an operation, or the whole store: questions and answers, as JSON, JUnit XML or HTML",
        reporting.report,
        (_one, reporting.arguments),
    ),
    Subcommand("ready", "check whether the jobs can run here, as this user", _ready, (_one, _answer)),
    Subcommand("status", "check whether the backups are as they should be", _status, (_one_or_all, _judging)),
)
