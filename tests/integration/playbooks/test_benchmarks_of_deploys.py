# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Both sides of the deploys that benchmarks/run compares work, without installing; their time is not looked at."""

from __future__ import annotations

import pytest

from benchmarks.deploy_work import Deploys
from benchmarks.measuring import cost_of

pytestmark = pytest.mark.prisma


def test_both_sides(site):
    deploy, idle = Deploys(site, install=False).comparisons()
    typed = cost_of(deploy.theirs, site.cluster)
    applied = site.applied()
    site.reset()
    played = cost_of(deploy.ours, site.cluster)
    assert site.applied() == applied != site.before.applied
    assert typed["wall"] > typed["gap"] > 0 and played["wall"] > played["gap"] > 0
    with site.unchanged():
        for work in (idle.ours, idle.theirs):
            assert cost_of(work, site.cluster)["wall"] > 0
