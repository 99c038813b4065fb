# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The gate on encrypted backups: a deploy drills its backup, so it must be able to read what it writes."""

from __future__ import annotations

import os
import tempfile

from ...base.encryption import Encrypted, decrypt, encrypt, require_identity
from ...base.errors import Refused
from ...base.remedies import Setting, remedy
from ...postgres.connection import Session
from ...site import Site
from .inputs import GateInputs

_PROBE = b"backstop"


def backup_encryption(site: Site, _session: Session, _question: GateInputs) -> str:
    """Proved with a few bytes: encrypted for the recipients, decrypted with the identity."""
    if not site.recipients:
        return "backups are not encrypted"
    if site.identity is None:
        raise Refused(
            "Backups are to be encrypted, and a deploy cannot drill what it cannot read",
            found="recipients without an identity on this host",
            hint=remedy(
                "give %s for as long as the deploy runs, or deploy without %s", Setting.IDENTITY, Setting.RECIPIENTS
            ),
        )
    identity = require_identity(site.identity)
    with tempfile.TemporaryDirectory(prefix="backstop-age-") as folder:
        path = os.path.join(folder, "probe.age")
        encrypt(_PROBE, path, site.recipients)
        if decrypt(Encrypted(path, identity)) != _PROBE:
            raise Refused("age does not decrypt what it encrypted", found="other bytes")
    return "for %d recipients, and the identity opens it" % len(site.recipients)
