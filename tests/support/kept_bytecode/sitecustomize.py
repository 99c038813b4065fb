# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Python imports this at its start if the folder is in PYTHONPATH."""

from __future__ import annotations

import kept_bytecode

__all__ = ["kept_bytecode"]
