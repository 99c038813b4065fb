# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A deploy, its revert and the undo without any superuser, also with a role that may not create a database."""

from __future__ import annotations

import json

import pytest

OWNER, ADMIN = "tokens_owner", "tokens_admin"


@pytest.fixture
def owned(site):
    """The site's database belongs to a role with no privilege but that."""
    site.cluster.sql(
        "DROP ROLE IF EXISTS %s; CREATE ROLE %s LOGIN NOSUPERUSER NOCREATEDB PASSWORD 'o'" % (OWNER, OWNER)
    )
    site.cluster.sql('ALTER DATABASE "%s" OWNER TO %s' % (site.name, OWNER))
    tables = site.sql("SELECT string_agg(quote_ident(tablename), ',') FROM pg_tables WHERE schemaname = 'public'")
    for table in tables.split(","):
        site.cluster.sql("ALTER TABLE %s OWNER TO %s" % (table, OWNER), site.name)
    given = json.loads(site.settings.read_text("utf-8"))
    given["url"] = site.cluster.url(site.name, user=OWNER, password="o") + "?schema=public"
    site.settings.write_text(json.dumps(given), encoding="utf-8")
    yield site
    for name in [site.name, *site.databases("backstop_")]:
        site.cluster.sql('DROP DATABASE IF EXISTS "%s" WITH (FORCE)' % name)
    site.cluster.sql("DROP ROLE IF EXISTS %s" % ADMIN)
    site.cluster.sql("DROP ROLE %s" % OWNER)


@pytest.mark.fault("deploy", "an owner who may not create databases", by="a gate")
def test_an_owner_who_may_not_make_databases_is_refused_before_anything(owned):
    before = owned.cluster.sql('SELECT count(*) FROM "TokenPurchase"', owned.name)
    refused = owned.run("deploy")
    assert refused.returncode == 1 and "rights" in refused.stderr, refused.stderr
    assert "lacks CREATEDB" in refused.stderr and "backstop_administration" in refused.stderr
    assert owned.databases("backstop_") == []
    assert owned.cluster.sql('SELECT count(*) FROM "TokenPurchase"', owned.name) == before


def test_the_same_owner_with_a_role_for_administration(owned):
    """The administration role may create databases, ends sessions and is a member of the owner; it is no superuser."""
    owned.cluster.sql(
        "CREATE ROLE %s LOGIN CREATEDB NOSUPERUSER PASSWORD 'a'; GRANT %s, pg_signal_backend TO %s"
        % (ADMIN, OWNER, ADMIN)
    )
    given = json.loads(owned.settings.read_text("utf-8"))
    given["administration"] = owned.cluster.url("postgres", user=ADMIN, password="a")
    owned.settings.write_text(json.dumps(given), encoding="utf-8")
    assert owned.succeed("deploy")["outcome"] == "done"
    there = "SELECT to_regclass('\"ReceiptData\"') IS NOT NULL"
    assert owned.cluster.sql(there, owned.name) == "t"
    assert owned.succeed("revert")["outcome"] == "done" and owned.cluster.sql(there, owned.name) == "f"
    assert owned.succeed("undo")["outcome"] == "done" and owned.cluster.sql(there, owned.name) == "t"
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '%s'" % owned.name
    assert owned.cluster.sql(owner) == OWNER
