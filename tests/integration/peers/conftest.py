# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real server, and a separate database for each test."""

from __future__ import annotations

from support.databases import cluster, databases, plain, realistic, seed, shared_databases
from support.hints import words_of_ansible

__all__ = ["cluster", "databases", "plain", "realistic", "seed", "shared_databases", "words_of_ansible"]
