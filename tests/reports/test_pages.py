# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Pages of reports, opened in real Chromium: nothing to complain about, for anybody who reads them."""

from __future__ import annotations

import pytest
from support.browser import DESKTOP, PHONE, PICTURES, SCREENSHOTS, check, write_pages

#: How each page is opened.
VIEWS = {"light": {"width": DESKTOP}, "dark": {"width": DESKTOP, "dark": True}, "phone": {"width": PHONE}}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Page and view, with what Chromium and axe-core found."""
    folder = tmp_path_factory.mktemp("pages")
    paths = write_pages(folder)
    views = [(name, view) for name in paths for view in VIEWS]
    requests = [{**VIEWS[view], "page": str(paths[name])} for name, view in views]
    requests[0]["pdf"] = str(folder / "page.pdf")
    return dict(zip(views, check(requests)))


def test_every_page_was_opened_in_every_view(opened):
    assert len(opened) == 6 * len(VIEWS)


def test_no_error_and_no_network(opened):
    for view, found in opened.items():
        assert (found["console"], found["requests"]) == ([], []), view


def test_axe_finds_no_violation(opened):
    for view, found in opened.items():
        assert found["violations"] == [], view
        # The rules for tables, landmarks, headings and contrast were evaluated.
        assert found["passes"] > 30, view


def test_nothing_is_wider_than_the_window(opened):
    """A phone does not scroll sideways; wide tables scroll in themselves."""
    assert {view: found["overflow"] for view, found in opened.items() if found["overflow"] > 0} == {}


def test_it_prints(opened):
    assert next(iter(opened.values()))["pdf"] > 10_000


def test_the_documentation_has_the_screenshots():
    assert {path.stem for path in PICTURES.glob("report-*.png")} == set(SCREENSHOTS)
