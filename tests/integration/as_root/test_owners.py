# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Cases that only root can create."""

from __future__ import annotations

import os

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import BackstopError


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_store_of_another_user(plain):
    plain.backup()
    os.chown(plain.store.root, 65534, 65534)
    with pytest.raises(BackstopError, match="The store belongs to another user"):
        plain.backup()
    os.chown(plain.store.root, 0, 0)
    assert len(plain.store.backups()) == 1
