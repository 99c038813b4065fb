# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The configuration of the command: errors are reported with file and key, secrets are never shown."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line import configuration
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.exit_statuses import UsageError
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.command_line.passwords import PasswordSource
from ansible_collections.backstop.postgres.plugins.module_utils._backstop.postgres.connection import Settings

RECIPIENT = "age1qgzsg3psph477xwwl2gvdnrs4xcm50z2qmtkethxrxayg3safsfsnrpwel"
GOOD = {"connection": {"database": "Shop 电", "user": "backup", "port": 5433}, "store": "/var/backups/backstop"}


@pytest.fixture
def write(tmp_path):
    def write(content, name="shop", mode=0o600):
        path = tmp_path / (name + ".conf")
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        path.chmod(mode)
        return str(tmp_path)

    return write


def test_everything_that_can_be_said(write, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("p@ss:w\\rd ä\n", "utf-8")
    secret.chmod(0o600)
    given = {
        **GOOD,
        "administration": {"database": "maintenance", "user": "admin"},
        "client_bin_dir": "/usr/lib/postgresql/15/bin",
        "password_file": str(secret),
        "max_age": "26h",
        "textfile": "/var/lib/backstop/metrics/shop.prom",
        "webhook": {"url": "https://hooks.example.org/T0KEN", "events": ["success", "failure"]},
        "retention": {"keep_weeks": 8, "time_zone": "UTC"},
        "age_recipients": [RECIPIENT],
        "age_identity": "/run/backstop/identity.txt",
        "offsite": {
            "remote": "kept:backups/shop",
            "rclone_config": "/etc/backstop/rclone.conf",
            "max_age": "2d",
            "retention": {"keep_days": 30},
        },
    }
    found = configuration.load(write(given), "shop")
    assert (found.database, found.connection.port, found.connection.host) == ("Shop 电", 5433, "localhost")
    assert (found.administration.database, found.administration.user) == ("maintenance", "admin")
    assert found.administration.port == 5433 and found.max_age == 26 * 3600
    assert found.webhook.events == ("success", "failure")
    assert (found.retention["keep_days"], found.retention["keep_weeks"], found.retention["time_zone"]) == (7, 8, "UTC")
    assert found.offsite.offsite.remote == "kept:backups/shop" and found.offsite.max_age == 2 * 86400
    assert (found.offsite.retention["keep_days"], found.offsite.retention["keep_weeks"]) == (30, 4)
    site = found.site()
    assert (site.recipients, site.identity) == ((RECIPIENT,), "/run/backstop/identity.txt")
    assert site.connection.password == site.administration.password == "p@ss:w\\rd ä"
    assert "T0KEN" not in repr(found) and "p@ss" not in repr(found) + repr(site)


def test_what_is_not_said(write):
    found = configuration.load(write(GOOD), "shop")
    assert found.administration.database == "postgres"
    assert (found.password, found.webhook, found.max_age, found.textfile) == (None, None, None, None)
    assert found.retention["keep_days"] == 7 and found.retention["max_delete_share"] == 0.5
    assert found.site().connection.password == "" and found.site().recipients == () and found.offsite is None


POOLER = {"console": {"host": "10.0.0.6", "user": "admin", "password": "hunter2"}}


def test_poolers(write, tmp_path):
    path = tmp_path / "shop.poolers"
    path.write_text(json.dumps([POOLER, {**POOLER, "pools": ["a"], "wait": "2.5", "held": "end"}]))
    path.chmod(0o600)
    found = configuration.load(write(changed(poolers=str(path))), "shop")
    assert [one.address for one in found.site().poolers] == ["10.0.0.6:6432"] * 2
    assert [(one.pools, one.wait_seconds, one.held) for one in found.poolers] == [
        ((), 10, "refuse"), (("a",), 2.5, "end"),
    ]  # fmt: skip
    assert found.poolers[0].console.password == "hunter2" and "hunter2" not in repr(found)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="Other users can read the file of the poolers"):
        configuration.load(write(changed(poolers=str(path))), "shop")


@pytest.mark.parametrize(
    "given, told",
    [
        (POOLER, "no list of objects"),
        ([{}], "\\[0\\].console"),
        ([{"console": "hunter2"}], "\\[0\\].console"),
        ([{**POOLER, "pool": ["a"]}], "did you mean pools"),
        ([POOLER, {**POOLER, "pools": "shop"}], "\\[1\\].pools"),
        ([{**POOLER, "wait": "soon"}], "\\[0\\].wait"),
        ([{**POOLER, "held": "wait"}], "\\[0\\].held"),
        ([{"console": {**POOLER["console"], "hots": "x"}}], "did you mean host"),
    ],
)
def test_wrong_poolers(write, tmp_path, given, told):
    path = tmp_path / "shop.poolers"
    path.write_text(json.dumps(given))
    path.chmod(0o600)
    with pytest.raises(UsageError, match=told) as caught:
        configuration.load(write(changed(poolers=str(path))), "shop")
    assert caught.value.exit_status == 2 and "hunter2" not in str(caught.value)


def changed(**values):
    return {**GOOD, **values}


WRONG = {
    "unknown key": (changed(web_hook={}), "web_hook", "did you mean webhook"),
    "unknown connection key": (changed(connection={"databse": "x"}), "connection.databse", "mean database"),
    "password": (changed(password="hunter2"), "password", "password_file"),
    "password of the connection": (changed(connection={"password": "hunter2"}), "connection.password", "password_file"),
    "url": (changed(connection={"url": "postgresql://a:hunter2@b/c"}), "connection.url", "password_file"),
    "no store": ({"connection": GOOD["connection"]}, "store", "missing"),
    "no user": (changed(connection={"database": "x"}), "connection", "no user"),
    "no database": (changed(connection={"user": "x"}), "connection", "no database"),
    "connection is a text": (changed(connection="hunter2"), "connection", "object"),
    "port is a text": (changed(connection={**GOOD["connection"], "port": "hunter2"}), "connection.port", "int"),
    "port is true": (changed(connection={**GOOD["connection"], "port": True}), "connection.port", "int"),
    "port is none": (changed(connection={**GOOD["connection"], "port": 70000}), "port", "65535"),
    "relative store": (changed(store="backups"), "store", "absolute"),
    "store is a number": (changed(store=1), "store", "text"),
    "age": (changed(max_age="soon"), "max_age", "26h"),
    "age of nothing": (changed(max_age="0h"), "max_age", "26h"),
    "two passwords": (changed(password_file="/a", passfile="/b"), "passfile", "one place"),
    "webhook is a text": (changed(webhook="http://hunter2"), "webhook", "object"),
    "webhook elsewhere": (changed(webhook={"url": "file:///hunter2"}), "webhook.url", "https"),
    "webhook event": (changed(webhook={"url": "http://x/hunter2", "events": ["sucess"]}), "webhook.events", "success"),
    "retention is a number": (changed(retention=7), "retention", "object"),
    "unknown retention": (changed(retention={"keep_day": 7}), "retention.keep_day", "mean keep_days"),
    "days as a text": (changed(retention={"keep_days": "7"}), "retention.keep_days", "number"),
    "no days": (changed(retention={"keep_days": 0}), "retention.keep_days", "1 or more"),
    "half a week": (changed(retention={"keep_weeks": 0.5}), "retention.keep_weeks", "whole number"),
    "true weeks": (changed(retention={"keep_weeks": True}), "retention.keep_weeks", "number"),
    "share": (changed(retention={"max_delete_share": 1.5}), "retention.max_delete_share", "0 to 1"),
    "zone is a number": (changed(retention={"time_zone": 2}), "retention.time_zone", "Africa/Harare"),
    "no such zone": (changed(retention={"time_zone": "Mars/Olympus"}), "time zone", "Mars/Olympus"),
    "no recipients": (changed(age_recipients=[]), "age_recipients", "list of public keys"),
    "recipient as a text": (changed(age_recipients="hunter2"), "age_recipients", "list of public keys"),
    "private key": (changed(age_recipients=["AGE-SECRET-KEY-1HUNTER2"]), "recipient", "a private key"),
    "relative identity": (changed(age_identity="identity.txt"), "age_identity", "absolute"),
    "offsite is a text": (changed(offsite="hunter2"), "offsite", "object with remote"),
    "offsite without a remote": (changed(offsite={}), "offsite.remote", "missing"),
    "unknown offsite": (changed(offsite={"remote": "a:b", "rclone": "/x"}), "offsite.rclone", "mean rclone_config"),
    "parameters of a remote": (changed(offsite={"remote": ":s3,secret=hunter2:b"}), "remote", "configuration file"),
    "offsite retention": (changed(offsite={"remote": "a:b", "retention": {"keep_days": 0}}), "keep_days", "1 or more"),
    "offsite age": (changed(offsite={"remote": "a:b", "max_age": "soon"}), "offsite.max_age", "26h"),
    "not JSON": ("[database]\nname = hunter2\n", "shop.conf", "not JSON"),
    "a list": ("[]", "shop.conf", "JSON object"),
    "twice": ('{"store": "/a", "store": "/b"}', "shop.conf", "twice"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(write, case):
    content, place, told = WRONG[case]
    with pytest.raises(UsageError) as caught:
        configuration.load(write(content), "shop")
    assert caught.value.exit_status == 2
    assert place in str(caught.value) and told in str(caught.value) and "shop.conf" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_others_must_not_read_it(write, mode):
    with pytest.raises(UsageError, match="Other users can read the configuration") as caught:
        configuration.load(write(GOOD, mode=mode), "shop")
    assert "%04o" % mode in caught.value.found and "chmod 600" in caught.value.hint


def test_another_name_that_was_meant(write):
    with pytest.raises(UsageError, match="no configuration shopp") as caught:
        configuration.load(write(GOOD), "shopp")
    assert "shop" in caught.value.expected
    with pytest.raises(UsageError, match="no configuration"):
        configuration.load(write(GOOD), "../shop")
    with pytest.raises(UsageError, match="cannot be listed"):
        configuration.load(write(GOOD) + "/none", "shop")


def source(tmp_path, key, content, mode=0o600):
    path = tmp_path / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return PasswordSource(key, str(path))


SETTINGS = Settings(host="db.example.org", port=5433, user="back\\up", database="a:b")
LINES = [
    (b"db.example.org:5433:a\\:b:back\\\\up:right", "right"),
    (b"# db.example.org:5433:a\\:b:back\\\\up:wrong\n*:*:*:*:right", "right"),
    (b"other:*:*:*:wrong\n*:5433:*:back\\\\up:ri:ght\\\\ \n*:*:*:*:wrong", "ri:ght\\ "),
    ("nonsense\n\n*:*:*:*:電".encode(), "電"),
]


@pytest.mark.parametrize("content, password", LINES)
def test_a_password_file_of_libpq(tmp_path, content, password):
    assert source(tmp_path, "passfile", content).password(SETTINGS) == password


def test_a_socket_is_localhost_in_a_password_file(tmp_path):
    found = source(tmp_path, "passfile", b"localhost:*:*:*:right").password(Settings(host="/run/postgresql", user="u"))
    assert found == "right"


def test_no_line_that_fits(tmp_path):
    with pytest.raises(UsageError, match="no line for this connection") as caught:
        source(tmp_path, "passfile", b"other:*:*:*:hunter2").password(SETTINGS)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n", b"one\ntwo\n"])
def test_a_file_without_one_password(tmp_path, content):
    with pytest.raises(UsageError, match="does not hold one password"):
        source(tmp_path, "password_file", content).password(SETTINGS)


@pytest.mark.parametrize("key", ["password_file", "passfile"])
def test_others_must_not_read_the_password(tmp_path, key):
    with pytest.raises(UsageError, match="Other users can read the password file"):
        source(tmp_path, key, b"*:*:*:*:x", mode=0o644).password(SETTINGS)


def test_a_credential_of_systemd(tmp_path, monkeypatch):
    (tmp_path / "database").write_text("secret\n")
    os.chmod(tmp_path / "database", 0o440)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert PasswordSource("password_credential", "database").password(SETTINGS) == "secret"
    with pytest.raises(UsageError, match="missing"):
        PasswordSource("password_credential", "other").password(SETTINGS)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(UsageError, match="no systemd credentials here"):
        PasswordSource("password_credential", "database").password(SETTINGS)
