# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hints as users of the playbooks read them: import the fixture into a conftest.py."""

from __future__ import annotations

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.ansible_words import AnsibleWords
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.remedies import in_words_of


@pytest.fixture(autouse=True)
def words_of_ansible():
    with in_words_of(AnsibleWords()):
        yield
