# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One real site for all tests of this folder, with broken releases; each test begins with the site before ET-100."""

from __future__ import annotations

import pytest
from support.broken_releases import BROKEN
from support.databases import seed
from support.demo_site import DemoSite, the_site

__all__ = ["seed", "site", "the_site"]


@pytest.fixture(scope="session")
def the_broken_site(the_site: DemoSite) -> DemoSite:
    for tag, changes in BROKEN.items():
        the_site.add_release(tag, changes)
    return the_site


@pytest.fixture
def site(the_broken_site: DemoSite) -> DemoSite:
    the_broken_site.reset()
    return the_broken_site
