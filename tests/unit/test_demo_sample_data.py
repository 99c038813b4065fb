# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo's sample data: the same every time, consistent, and readable by COPY."""

from __future__ import annotations

import io
import random
from datetime import datetime

import pytest
from demo import sample_data


def script_of(rows: int) -> str:
    stream = io.StringIO()
    sample_data.write_script(rows, stream)
    return stream.getvalue()


def test_the_same_number_of_rows_gives_the_same_data() -> None:
    assert script_of(200) == script_of(200)
    assert script_of(200) != script_of(201)


@pytest.mark.parametrize("rows", [1, 50, 1000])
def test_the_tables_have_the_rows_that_were_announced(rows: int) -> None:
    stream = io.StringIO()
    counts = sample_data.write_script(rows, stream)
    blocks = stream.getvalue().split("FROM STDIN;\n")[1:]
    lines = [len(block.split("\\.\n")[0].splitlines()) for block in blocks]
    assert lines == list(counts.values())
    assert counts["TokenPurchase"] == rows
    assert 0 <= counts["UserContribution"] <= rows


def test_rows_refer_to_rows_that_exist_and_keys_are_unique() -> None:
    people = list(sample_data.users(40))
    ids = [str(row[0]) for row in people]
    emails = [row[1] for row in people]
    bought = list(sample_data.purchases(ids, 900))
    keys = [purchase[0] for purchase, _contribution in bought]
    assert len(set(ids)) == len(set(emails)) == 40
    assert len(set(keys)) == 900
    assert {purchase[1] for purchase, _contribution in bought} <= set(ids)
    shared = [contribution for _purchase, contribution in bought if contribution]
    assert {row[1] for row in shared} <= set(keys)
    assert len({row[1] for row in shared}) == len(shared) == len({row[0] for row in shared})
    assert 0.6 < len(shared) / 900 < 0.85


def test_some_names_are_missing_and_some_are_not_ascii() -> None:
    names = [row[2] for row in sample_data.users(500)]
    assert None in names
    assert any(isinstance(name, str) and not name.isascii() for name in names)
    assert any(isinstance(name, str) and "'" in name for name in names)


def test_the_price_climbs_by_the_steps_of_the_tariff() -> None:
    assert sample_data.price(0) == 0
    assert sample_data.price(50) == 2.0
    assert sample_data.price(60) == 2.9
    prices = [sample_data.price(kwh) for kwh in range(0, 900, 7)]
    assert prices == sorted(prices)


def test_a_line_for_copy_hides_what_copy_would_read_otherwise() -> None:
    row = ("a\tb\\c\nd", None, 1.5, datetime(2025, 11, 7, 20, 30))
    assert sample_data.as_copy_line(row) == "a\\tb\\\\c\\nd\t\\N\t1.5\t2025-11-07 20:30:00.000\n"


def test_an_identifier_looks_like_that_of_prisma() -> None:
    found = sample_data.identifier(random.Random(1))
    assert len(found) == 25
    assert found.startswith("c")
    assert found.isalnum()
    assert found == found.lower()
