# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Realistic sample data: households that buy electricity tokens and share the cost.

The same number of purchases always gives the same rows. Loaded with COPY, in one transaction.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TextIO

SEED = 100
FIRST_DAY = datetime(2023, 1, 2)
LAST_DAY = datetime(2025, 11, 7, 20)
PURCHASES_PER_USER = 24
WITHOUT_NAME = 0.08
WITH_CONTRIBUTION = 0.72
#: Price of a kWh by tier of the amount bought at once: the first are cheap.
TARIFF = ((50.0, 0.04), (100.0, 0.09), (200.0, 0.16), (300.0, 0.22), (math.inf, 0.25))
GIVEN_NAMES = (
    "Tendai",
    "Rudo",
    "Farai",
    "Chipo",
    "Tatenda",
    "Nyasha",
    "Thandiwe",
    "Sipho",
    "José",
    "Zoë",
    "Blessing",
    "Memory",
    "Takudzwa",
    "Anesu",
    "Nomsa",
    "Lindiwe",
    "Simba",
    "Rumbidzai",
    "Kudakwashe",
    "Ngoni",
)
FAMILY_NAMES = (
    "Moyo",
    "Ncube",
    "Sibanda",
    "Dube",
    "Ndlovu",
    "Mpofu",
    "Chikwanha",
    "Mutasa",
    "O'Brien",
    "Núñez",
    "van der Merwe",
    "Gumbo",
    "Shumba",
    "Marufu",
    "Chirwa",
    "Zhou",
    "Banda",
    "Phiri",
)
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"

Row = tuple[object, ...]


def identifier(rng: random.Random) -> str:
    """An identifier in the format of Prisma's cuid."""
    return "c" + "".join(rng.choices(ALPHABET, k=24))


def price(kwh: float) -> float:
    """The price of this many kWh, by the tiers of the tariff."""
    total, below = 0.0, 0.0
    for limit, each in TARIFF:
        total += max(0.0, min(kwh, limit) - below) * each
        below = limit
    return round(total, 2)


def users(count: int) -> Iterator[Row]:
    """id, email, name, createdAt"""
    rng = random.Random(f"{SEED} users")
    for number in range(1, count + 1):
        given, family = rng.choice(GIVEN_NAMES), rng.choice(FAMILY_NAMES)
        name = None if rng.random() < WITHOUT_NAME else f"{given} {family}"
        mail = "".join(re.findall(r"[a-z.]", f"{given}.{family}".lower()))
        joined = FIRST_DAY + timedelta(minutes=rng.randrange(60 * 24 * 300))
        yield identifier(rng), f"{mail}.{number}@example.com", name, joined


def purchases(user_ids: list[str], count: int) -> Iterator[tuple[Row, Row | None]]:
    """id, userId, totalTokens, totalPayment, purchaseDate, createdAt; and the contribution's row, if it has one:
    id, purchaseId, contributionAmount, tokensConsumed, createdAt"""
    rng = random.Random(f"{SEED} purchases")
    seconds = int((LAST_DAY - FIRST_DAY).total_seconds())
    for number in range(count):
        # A few users buy often, many rarely; dates increase, as in a real table.
        owner = user_ids[min(int(len(user_ids) * rng.random() ** 1.7), len(user_ids) - 1)]
        tokens = round(min(max(rng.lognormvariate(4.4, 0.7), 5.0), 900.0), 1)
        paid = price(tokens)
        bought = FIRST_DAY + timedelta(seconds=seconds * number // count + rng.randrange(3600))
        entered = bought + timedelta(milliseconds=rng.randrange(1000, 3 * 86_400_000))
        key = identifier(rng)
        contribution: Row | None = None
        if rng.random() < WITH_CONTRIBUTION:
            used = round(tokens * rng.triangular(0.5, 1.0, 0.95), 2)
            share = round(paid * rng.choice((1.0, 1.0, 0.5, used / tokens)), 2)
            contribution = (identifier(rng), key, share, used, entered + timedelta(days=rng.randrange(1, 20)))
        yield (key, owner, tokens, paid, bought, entered), contribution


def as_copy_line(row: Row) -> str:
    """A row in the format of COPY."""
    fields = []
    for value in row:
        if value is None:
            fields.append(r"\N")
        elif isinstance(value, datetime):
            fields.append(value.isoformat(sep=" ", timespec="milliseconds"))
        elif isinstance(value, float):
            fields.append(repr(value))
        else:
            text = str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
            fields.append(text)
    return "\t".join(fields) + "\n"


def write_script(rows: int, script: TextIO) -> dict[str, int]:
    """Write a psql script that loads the data; returns the number of rows of each table."""
    people = list(users(max(3, rows // PURCHASES_PER_USER)))
    contributions = []
    script.write("BEGIN;\n")
    script.write('COPY "User" (id, email, name, "createdAt") FROM STDIN;\n')
    script.writelines(as_copy_line(row) for row in people)
    script.write("\\.\n")
    columns = 'id, "userId", "totalTokens", "totalPayment", "purchaseDate", "createdAt"'
    script.write(f'COPY "TokenPurchase" ({columns}) FROM STDIN;\n')
    for purchase, contribution in purchases([str(row[0]) for row in people], rows):
        script.write(as_copy_line(purchase))
        if contribution:
            contributions.append(contribution)
    script.write("\\.\n")
    columns = 'id, "purchaseId", "contributionAmount", "tokensConsumed", "createdAt"'
    script.write(f'COPY "UserContribution" ({columns}) FROM STDIN;\n')
    script.writelines(as_copy_line(row) for row in contributions)
    script.write('\\.\nCOMMIT;\nVACUUM (ANALYZE) "User", "TokenPurchase", "UserContribution";\n')
    return {"User": len(people), "TokenPurchase": rows, "UserContribution": len(contributions)}
