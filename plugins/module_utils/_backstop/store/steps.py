# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of operations that more than one package asks a journal for."""

from __future__ import annotations

#: The migrations were applied on the live database.
MIGRATE = "migrate"
#: Another database took over the live name.
SWAP = "swap"
#: The retired database of a swap was dropped: what its undo needed may go.
RETIRED_PRUNED = "prune"
