# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Second copies as the configuration of a database requires them."""

from __future__ import annotations

from typing import Any, Dict

from ..backups.copies import copy_missing, prune_copies
from ..base.progress import timestamp
from ..site import Site
from ..store.offsite import Offsite
from ..store.retention import policy_of
from .configuration import Configuration, OffsiteCopies
from .exit_statuses import UsageError
from .passwords import read_private
from .run_records import RunRecords


def require_offsite(configuration: Configuration) -> OffsiteCopies:
    if configuration.offsite is None:
        raise UsageError(
            "Second copies of %s are not configured" % configuration.name,
            found="no offsite in " + configuration.path,
            expected="an object with remote and rclone_config",
        )
    return configuration.offsite


def remote_of(configuration: Configuration) -> Offsite:
    """The remote. Its configuration is read only now: backups are made even while it is unreadable."""
    offsite = require_offsite(configuration).offsite
    if offsite.configuration is not None:
        read_private(offsite.configuration, "configuration of rclone")
    return offsite


def copy_and_prune(configuration: Configuration, site: Site, *, only_check: bool = False) -> Dict[str, Any]:
    """Copy backups without a copy, prune by the copies' retention, and record the existing copies.

    :param only_check: only decide, on the existing copies
    """
    wanted = require_offsite(configuration)
    offsite = remote_of(configuration)
    policy = policy_of(wanted.retention)
    copied = [] if only_check else copy_missing(site, offsite, policy)
    decisions = prune_copies(
        site,
        offsite,
        policy,
        max_share=wanted.retention["max_delete_share"],
        only_check=only_check,
    )
    if not only_check:
        kept = [decision.item for decision in decisions if decision.keep]
        RunRecords(configuration.store, configuration.database).write_copies(
            {item.backup_id: timestamp(item.created) for item in kept if item.created and item.problem is None}
        )
    return {
        "copied": copied,
        "items": [decision.to_json() for decision in decisions],
        "deleted": [decision.item.backup_id for decision in decisions if not decision.keep],
    }
