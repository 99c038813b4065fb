# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""URLs are changed only on request, and libpq's own parser reads them back with the intended values."""

from __future__ import annotations

import random
from urllib.parse import quote

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.base.errors import Refused
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.prisma.urls import (
    database_of,
    secrets_in,
    with_database,
    with_session_settings,
    without_password,
)
from psycopg2.extensions import parse_dsn

URL = "postgresql://app:p%40ss@db.example:5433/shop?schema=public&connection_limit=5&pgbouncer=true"


def test_another_database():
    assert with_database(URL, "other/ä b") == (
        "postgresql://app:p%40ss@db.example:5433/other%2F%C3%A4%20b?schema=public&connection_limit=5&pgbouncer=true"
    )
    assert database_of(with_database(URL, "other/ä b")) == "other/ä b"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://localhost/shop",
        "postgresql://u:p@[::1]:5432/shop",
        "postgres://u@h1:1,h2:2/shop?sslmode=require",
        "postgresql:///shop?host=/run/postgresql",
        "postgresql://u:p@h/shop#x",
    ],
)
def test_every_other_part_stays(url):
    assert with_database(url, "shop") == url
    assert with_database(with_database(url, "x"), "shop") == url


def test_settings_are_added():
    url = with_session_settings(URL, {"lock_timeout": "2000ms", "statement_timeout": "5min"}, "backstop 1")
    options = "-c%20lock_timeout%3D2000ms%20-c%20statement_timeout%3D5min"
    assert url == URL + "&options=" + options + "&application_name=backstop%201"


def test_settings_join_those_that_are_there():
    url = with_session_settings(URL + "&options=-c+search_path%3Dx&application_name=old", {"lock_timeout": "1s"}, "new")
    assert url == URL + "&options=-c%20search_path%3Dx%20-c%20lock_timeout%3D1s&application_name=new"


def test_nothing_to_add():
    assert with_session_settings(URL, {}) == URL


def test_values_are_escaped_for_the_server():
    url = with_session_settings("postgresql://localhost/shop", {"search_path": "a, b\\c"})
    assert parse_dsn(url)["options"] == r"-c search_path=a,\ b\\c"


def test_not_a_setting():
    with pytest.raises(Refused, match="name of a setting"):
        with_session_settings(URL, {"lock_timeout=1 -c x": "1s"})


@pytest.mark.parametrize("url", ["", "mysql://a:b@c/d", "prisma://x?api_key=secret", "postgresql", "http://[::1/"])
def test_not_a_url(url):
    for change in (lambda: with_database(url, "x"), lambda: with_session_settings(url, {}), lambda: secrets_in(url)):
        with pytest.raises(Refused) as caught:
            change()
        assert "secret" not in str(caught.value)


def test_without_password():
    assert without_password(URL) == URL.replace(":p%40ss", "")
    assert without_password("postgresql://h/d?sslpassword=x&schema=a&password=y") == "postgresql://h/d?schema=a"
    assert without_password("postgresql://u@h/d") == "postgresql://u@h/d"


def test_secrets_in_every_form():
    assert {"p%40ss", "p@ss", URL} <= set(secrets_in(URL))
    assert "k/y" in secrets_in("postgresql://u@h/d?sslpassword=k%2Fy")
    assert secrets_in("postgresql://u@h/d") == ["postgresql://u@h/d"]


@pytest.mark.fault("input", "random URLs with every special character", by="libpq reads the same parts")
def test_random_urls_mean_the_same_to_libpq(seed, tried):
    generator = random.Random(seed)
    letters = "aZ09 @:/?#[]%&=+'\"\\$ä;,"

    def text():
        return "".join(generator.choice(letters) for _time in range(generator.randrange(1, 12)))

    for _round in range(300):
        user, password, name, value, database = text(), text(), text(), text(), text()
        url = "postgresql://%s:%s@localhost/x?connect_timeout=3" % (quote(user, safe=""), quote(password, safe=""))
        url = with_session_settings(with_database(url, database), {"my.setting": value}, name)
        dsn = parse_dsn(url)
        assert (dsn["user"], dsn["password"], dsn["dbname"]) == (user, password, database)
        assert (dsn["application_name"], dsn["connect_timeout"]) == (name, "3")
        escaped = value.replace("\\", "\\\\").replace(" ", "\\ ")
        assert dsn["options"] == "-c my.setting=" + escaped
        assert password in secrets_in(url)
        assert parse_dsn(without_password(url)) == {key: one for key, one in dsn.items() if key != "password"}
        tried()
