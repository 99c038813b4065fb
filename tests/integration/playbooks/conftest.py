# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One real site for all tests of this folder; each begins with it as it is before ET-100."""

from __future__ import annotations

from support.demo_site import site, the_site

__all__ = ["site", "the_site"]
