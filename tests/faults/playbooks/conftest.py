# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One real site for all tests of this folder; each begins with it as it is before ET-100."""
from __future__ import annotations

from typing import Iterator

import pytest
from support.broken_releases import BROKEN
from support.demo_site import DemoSite


@pytest.fixture(scope="session")
def the_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoSite]:
    made = DemoSite.create(tmp_path_factory.mktemp("site"))
    try:
        for tag, changes in BROKEN.items():
            made.add_release(tag, changes)
        yield made
    finally:
        made.destroy()


@pytest.fixture
def site(the_site: DemoSite) -> DemoSite:
    the_site.reset()
    return the_site
