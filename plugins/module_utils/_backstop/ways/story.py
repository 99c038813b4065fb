# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a finished operation says: short lines, the one thing to know and the one command to run next last."""

from __future__ import annotations

import dataclasses
from typing import Any, List, Mapping, Optional, Sequence

from ..base.remedies import Action
from ..base.short_lines import packed
from ..migrations.standing import standing_of
from ..store.operation import Operation
from ..store.steps import STOP


@dataclasses.dataclass(frozen=True)
class Summary:
    """What the hosts know at the end of an operation."""

    #: the release that runs on the hosts and is healthy
    release: Optional[str] = None
    hosts: Sequence[str] = ()
    #: programs that still run the release that they were started with, by host
    not_restarted: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    #: what can be done next; of a deploy it is known
    next: Optional[str] = None

    @classmethod
    def of(cls, given: Optional[Mapping[str, Any]]) -> "Summary":
        """From a module's option."""
        return cls(**{name: value for name, value in (given or {}).items() if value is not None})


def ended(operation: Operation, retired: str, summary: Summary) -> List[str]:
    """Lines about an operation that ended.

    :param retired: number, size and age of the retired databases
    """
    deploy = operation.kind == "deploy"
    lines = list(standing_of(operation).story) if deploy else []
    for host, programs in sorted(summary.not_restarted.items()):
        if programs:
            lines += packed("Not restarted on %s, so still of its former release:" % host, programs)
    lines.append("Retired databases: %s." % retired)
    lines.append("Journal: %s" % operation.path)
    stopped = operation.last(STOP)
    lines.append("Downtime: %s." % ("%s s" % operation.downtime() if stopped else "none, nothing was stopped"))
    if summary.release:
        lines += packed("Release %s runs and is healthy on:" % summary.release, summary.hosts)
    following = summary.next or ("To go back: %s" % Action.COMPLETE if deploy and summary.release else "")
    return [*lines, following] if following else lines
