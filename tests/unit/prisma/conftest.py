# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random tests show how to repeat them."""

from __future__ import annotations

from support.databases import seed

__all__ = ["seed"]
