# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The drill in a scratch cluster, without the live server, so that roles, owners and privileges are proved too."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from typing import Iterator, Optional

from ..base.encryption import SUFFIX, Encrypted, decrypt
from ..base.errors import BackstopError, Refused
from ..base.sql_names import scratch_name
from ..postgres.client_tools import find_client_tools
from ..postgres.connection import Session
from ..postgres.scratch_server import scratch_server
from ..site import Site
from ..store import manifest as manifests
from ..store.layout import ROLES, BackupPlace, new_id
from ..store.manifest import Manifest
from .drill import Verified, prover, record_passed, recorded
from .restore import build_database

METHOD = "restored into a scratch cluster, with its roles, and compared"


def run_cluster_drill(site: Site, place: BackupPlace, directory: Optional[str] = None) -> Verified:
    """Verify a backup to level ``restored`` in a temporary server, which is removed afterwards.

    The live server is not used.

    :param directory: where that server's data directory may be
    """
    manifest = manifests.load(place)
    manifest.require_whole()
    tools = find_client_tools(manifest.server.major, site.client_bin_dir)
    site.archive(place, manifest)
    roles = _roles(site, place, manifest)
    name = scratch_name(site.operation.id if site.operation else new_id(), "drill")
    started = time.monotonic()
    with scratch_server(tools, directory) as settings:
        there = dataclasses.replace(site, connection=settings, administration=settings)
        with there.administer() as admin:
            who = prover(admin, "postgres")
            with recorded(place, "restored", **who):
                _make_roles(admin, roles)
                built = build_database(there, place, name)
    return record_passed(place, built, who, METHOD, started)


@contextlib.contextmanager
def closed_copy_in_cluster(site: Site, place: BackupPlace) -> Iterator[Site]:
    """Restore a backup into an isolated temporary server that can connect to nothing; yields a Site of the restored
    database, with the live connection's role.

    :raises Refused: the server's programs are not installed here, or the live server has tablespaces
    """
    manifest = manifests.load(place)
    tools = find_client_tools(manifest.server.major, site.client_bin_dir)
    roles = _roles(site, place, manifest)
    name = scratch_name(site.operation.id if site.operation else new_id(), "closed")
    with scratch_server(tools, closed=True) as settings:
        there = dataclasses.replace(site, connection=settings, administration=settings)
        with there.administer() as admin:
            _make_roles(admin, roles)
        build_database(there, place, name)
        live = site.connection
        own = dataclasses.replace(settings, user=live.user, schema=live.schema, database=name)
        yield dataclasses.replace(there, connection=own)


def _roles(site: Site, place: BackupPlace, manifest: Manifest) -> str:
    """The statements of ``roles.sql``, without the pair of psql's meta-commands that pg_dumpall writes since 15.14."""
    name = next(name for name in (ROLES, ROLES + SUFFIX) if name in manifest.files)
    source = site.source_of(place, manifest, name)
    if isinstance(source, Encrypted):
        content = decrypt(source, site.keep_open)
    else:
        with open(source, "rb") as stream:
            content = stream.read()
    text = content.decode()
    # By its random key, because a role's name may hold lines that look alike.
    key = re.search(r"^\\restrict (\w+)\n", text, re.MULTILINE)
    if key:
        text = text.replace(key.group(), "", 1).replace("\\unrestrict %s\n" % key.group(1), "")
    if re.search("^CREATE TABLESPACE", text, re.MULTILINE):
        raise Refused(
            "The backup's server has tablespaces, whose directories a scratch cluster must not touch",
            found="%s of %s" % (ROLES, place.backup_id),
            hint="drill in a scratch database",
        )
    return text


def _make_roles(admin: Session, roles: str) -> None:
    try:
        admin.execute(roles)
    except BackstopError as error:
        raise BackstopError("The roles of the backup could not be created", found=error.found) from None
