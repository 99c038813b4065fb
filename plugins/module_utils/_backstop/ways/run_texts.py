# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a deploy or rollback says about its hosts, from facts that only the controller has: which of them failed or do
not answer. This is not a module's result, because it is also needed when the runner is unreachable."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Dict, List, Mapping, Sequence, Union

from ..base.remedies import Action, Given, Setting, Start
from ..migrations.standing import SERVING, UNTOUCHED


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a playbook, as its roles know it. What is not known is empty."""

    commit: str = ""
    former: str = ""
    runner: str = ""
    #: id of the operation, and the directory of its journal
    operation: str = ""
    journal: str = ""
    #: all hosts of the application, in inventory order, and those of them that are not in this run
    hosts: Sequence[str] = ()
    missing: Sequence[str] = ()
    #: by host: the task that failed and its message
    failed: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    #: by host: the result of the probe, with ``ping`` if it answered
    answers: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    #: by host: why it needs manual work
    trouble: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: by host: what ran before and was no release
    elsewhere: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    #: how far a deploy came, as migrations.standing.DeployStanding
    standing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: whether this run stopped the application
    stopped: bool = False
    #: what a deploy's own rollback did to the database
    database: str = ""
    #: the failure of that rollback: task and message
    second: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: of a rollback: the result of the module operation with state settle
    settled: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: the backup that a rollback restores
    backup: str = ""
    #: variables that name a hook without a file, and the directory of the playbook
    hooks: str = ""
    playbook: str = ""
    #: the event of a notification, and the notifications that were not sent
    event: str = ""
    notices: Sequence[str] = ()
    #: migrations to apply, and what they did on the copy
    pending: Sequence[str] = ()
    rehearsed: str = ""
    #: whom to call, each a dictionary; what to do when nobody answers
    contacts: Sequence[Mapping[str, Any]] = ()
    escalation: Sequence[str] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Run":
        """From a dictionary, without what is not known there."""
        known = (field.name for field in dataclasses.fields(cls))
        return cls(**{name: given[name] for name in known if name in given and given[name] is not None})

    @property
    def failures(self) -> Dict[str, Mapping[str, str]]:
        return {host: found for host, found in self.failed.items() if found and found.get("message")}

    @property
    def failure(self) -> str:
        """Why it failed, whichever host it was on."""
        failures = self.failures
        silent = [host for host, answer in self.answers.items() if answer and "ping" not in answer]
        if failures and len(self.hosts) == 1:
            return next(iter(failures.values()))["message"].strip()
        if failures:
            return " ".join("%s: %s" % (host, found["message"].strip()) for host, found in failures.items())
        if silent:
            return "%s could not be reached." % ", ".join(silent)
        return "a host could not be reached for a moment, or a file of tasks could not be read; see the lines above."

    @property
    def where(self) -> str:
        task = next((found.get("task") for found in self.failures.values()), "")
        return " at '%s'" % task if task else ""

    @property
    def in_trouble(self) -> Dict[str, str]:
        return {host: why for host, why in self.trouble.items() if why}

    @property
    def hosts_back(self) -> List[str]:
        """The hosts on which a deploy's former release runs again."""
        return [host for host in self.hosts if host not in self.in_trouble] if self.former else []

    @property
    def manual(self) -> str:
        """The hosts that need manual work, with the reasons."""
        hosts = ["%s (%s)" % pair for pair in self.in_trouble.items()]
        return "Needs manual action: %s." % ", ".join(hosts) if hosts else ""


Text = Union[str, List[str]]


def _missing_hosts(run: Run, what: str) -> str:
    return (
        "Not in this run (by --limit, by serial, or unreachable): %s."
        " One database serves all of them, so a %s goes to all or to none. Nothing was changed."
        " Remove a host that no longer exists from the group application, and make sure that the application does not"
        " start there." % (", ".join(run.missing), what)
    )


def _missing_hooks(run: Run) -> str:
    return (
        "A hook names a file that does not exist: %s. Expected is a file of tasks on the controller: an absolute path,"
        " or one below %s. Nothing was changed." % (run.hooks.strip(), run.playbook)
    )


def _idle(run: Run) -> List[str]:
    return [
        "Release %s runs everywhere and is healthy." % run.commit,
        "No migration is pending. Nothing was stopped, nothing was changed.",
    ]


def _proved(run: Run) -> List[str]:
    return [
        "The change is proved. Nothing was stopped; the database and the running release are as before.",
        "For the rest %s; it continues operation %s." % (Action.THE_REST, run.operation),
    ]


def _confirm(run: Run) -> str:
    on_copy = "; on a copy: %s" % run.rehearsed if run.rehearsed else ""
    migrations = (", ".join(run.pending) or "none") + on_copy
    return (
        "Everything is proved. Now %s would be stopped for the deploy of %s (migrations: %s). Type yes to continue"
        % (", ".join(run.hosts), run.commit, migrations)
    )


def _reverted(run: Run) -> str:
    return (
        "Operation %s was interrupted in its rollback, after the database was reverted to before the migration."
        " Finish the rollback, then deploy again: %s" % (run.operation, Action.COMPLETE)
    )


# A deploy that failed


def _left(run: Run) -> str:
    """The end of a deploy that rolls nothing back, by what it did to the application."""
    state = run.standing.get("application")
    if state == UNTOUCHED:
        return (
            "Nothing was changed and the application was never stopped. The deploy ended%s: %s"
            " Run it again when that is fixed." % (run.where, run.failure)
        )
    if state == SERVING:
        return (
            "Release %s runs and is healthy, but the deploy is not finished. It ended%s: %s"
            " When that is fixed %s; it finishes without stopping anything."
            % (run.commit, run.where, run.failure, Action.SAME_AGAIN)
        )
    stopped = "the application was stopped and remains stopped." if run.stopped else "the application was not stopped."
    return (
        "The deploy failed%s: %s The runner %s cannot be asked how far it came, so nothing was rolled back; %s"
        " When the runner answers again, %s: it continues or rolls back."
        % (run.where, run.failure, run.runner, stopped, Action.SAME_AGAIN)
    )


def _left_notice(run: Run) -> str:
    state = run.standing.get("application")
    if state == UNTOUCHED:
        return "The deploy of %s ended before its downtime. %s" % (run.commit, run.failure)
    if state == SERVING:
        return "Release %s serves, but its deploy is not finished. %s" % (run.commit, run.failure)
    return "The deploy of %s failed and its runner %s cannot be asked." % (run.commit, run.runner)


def _rolled_back(run: Run) -> str:
    if run.hosts_back:
        on_hosts = " on " + ", ".join(run.hosts_back) if len(run.hosts) > 1 else ""
        back = "Release %s runs again and is healthy%s." % (run.former, on_hosts)
    elif run.former:
        back = "The former release runs on no host."
    else:
        back = "No release was there before, so none runs now."
        by_hand = ["%s in %s." % (host, ", ".join(found)) for host, found in run.elsewhere.items() if found]
        back += " What ran before has to be started by hand: %s" % " ".join(by_hand) if by_hand else ""
    parts = [
        "The deploy failed%s and was rolled back." % run.where,
        run.failure,
        back,
        run.manual,
        "Database: %s." % (run.database or "was not changed"),
        "Fix this and run the deploy again. Journal: %s" % run.journal,
    ]
    return " ".join(part for part in parts if part)


def _rolled_back_notice(run: Run) -> str:
    return "The deploy of %s was rolled back. Needs manual action: %s. %s" % (
        run.commit, ", ".join(run.in_trouble) or "no host", run.failure,
    )  # fmt: skip


def _serves_again(run: Run) -> str:
    """Empty if no host is back."""
    return "Release %s serves again on %s." % (run.former, ", ".join(run.hosts_back)) if run.hosts_back else ""


def _second(run: Run) -> str:
    """What failed in the rollback. An unreachable runner returns no result, and the first failure is still there."""
    message = run.second.get("message", "")
    first = [found["message"] for found in run.failures.values()]
    return message if message and message not in first else "the runner %s could not be reached." % run.runner


def _stuck(run: Run) -> str:
    backup, again = run.standing.get("backup"), "When that is fixed %s." % Action.SAME_AGAIN
    if run.standing.get("migration_began") and backup:
        again = (
            "To revert to the backup made before the migration: %s (add %s to accept a loss that it counts)."
            % (Start(Action.COMPLETE, (Given(Setting.BACKUP, backup),)), Given(Setting.ACCEPT_LOST_ROWS, "N"))
        )  # fmt: skip
    return (
        "The deploy failed%s: %s Going back failed too, at '%s': %s The application is stopped, nothing was lost."
        " %s Journal: %s" % (run.where, run.failure, run.second.get("task"), _second(run), again, run.journal)
    )


def _stuck_notice(run: Run) -> str:
    return "The deploy of %s failed, going back failed too, the application is stopped. %s" % (run.commit, _second(run))


# A rollback that failed


def _unknown(run: Run) -> str:
    why = run.settled.get("msg") or "the runner %s cannot be reached." % run.runner
    return (
        "The rollback failed: %s It is unknown whether another database became live, so nothing more was done: %s"
        " When that is fixed, run the same command again: it continues where it stopped." % (run.failure, why)
    )


def _not_rolled_back(run: Run) -> str:
    settled = run.settled
    parts = [
        settled["before_error"] + run.failure,
        run.manual or settled["after_error"],
        settled["next"],
    ]
    return " ".join(part for part in parts if part)


def _no_release(run: Run) -> str:
    when = "when backup %s was made" % run.backup if run.backup else "then"
    return (
        "The release to run afterwards is unknown: none was the current one %s."
        " Name it: -e %s=TAG, BRANCH or COMMIT. Nothing was changed." % (when, Setting.RELEASE)
    )


# Whom to call


def _contacts(run: Run) -> List[str]:
    lines = [", ".join(map(str, one.values())) for one in run.contacts]
    return (["Contacts:", *lines] if lines else []) + (["Escalation:", *run.escalation] if run.escalation else [])


_TEXTS: Dict[str, Callable[[Run], Text]] = {
    "deploy_missing_hosts": lambda run: _missing_hosts(run, "deploy"),
    "deploy_missing_hooks": _missing_hooks,
    "deploy_idle": _idle,
    "deploy_reverted": _reverted,
    "deploy_proved": _proved,
    "deploy_prompt": _confirm,
    "deploy_opened": lambda run: "The deploy of %s begins its downtime." % run.commit,
    "deploy_closed": lambda run: "Release %s serves, the downtime is over." % run.commit,
    "deploy_serves_again": _serves_again,
    "deploy_left": _left,
    "deploy_left_notice": _left_notice,
    "deploy_rolled_back": _rolled_back,
    "deploy_rolled_back_notice": _rolled_back_notice,
    "deploy_stuck": _stuck,
    "deploy_stuck_notice": _stuck_notice,
    "rollback_missing_hosts": lambda run: _missing_hosts(run, "rollback"),
    "rollback_no_release": _no_release,
    "rollback_unknown": _unknown,
    "rollback_failed": _not_rolled_back,
    "failure": lambda run: run.failure,
    "contacts": _contacts,
    "notices_failed": lambda run: (
        "The notification '%s' failed: %s. The deploy continues." % (run.event, ", ".join(run.notices))
    ),
}


def text(name: str, run: Run) -> Text:
    """A text by its name; a list has one line each."""
    return _TEXTS[name](run)


NAMES = tuple(_TEXTS)
