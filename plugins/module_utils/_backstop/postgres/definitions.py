# Copyright: the backstop.postgres contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The definition of every object of a database, normalised so that two databases can be compared.

One entry for each object: its kind and identity are the key; owner, privileges and definition are the value.
Identities never contain an oid. Members of extensions are left out; the extensions represent them.
"""

from __future__ import annotations

import re
from typing import Dict, List, Sequence, Tuple

from .catalog import NOT_OF_EXTENSION, SYSTEM_PRIVILEGES, USER_SCHEMA, Relation
from .connection import Session

#: Key "kind identity", value the normalised text.
Definitions = Dict[str, str]

#: An empty ACL differs from the default (NULL).
_ACL = (
    "(SELECT coalesce(string_agg(a::text, ', ' ORDER BY a::text), CASE WHEN count(list) = 0 THEN 'default' ELSE 'none'"
    " END) FROM (SELECT %s AS list) l LEFT JOIN LATERAL unnest(list) a ON true)"
)
#: NULL where the privileges are the default of a new object: a dump omits them, and a restore leaves them unset.
_UNLESS_DEFAULT = (
    "CASE WHEN (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(%s) a) IS DISTINCT FROM (SELECT"
    " array_agg(a::text ORDER BY a::text) FROM unnest(acldefault(%s, %s)) a) THEN %s END"
)
_RELATION = (
    "(SELECT rn.nspname || '.' || rc.relname FROM pg_class rc JOIN pg_namespace rn ON rn.oid = rc.relnamespace"
    " WHERE rc.oid = %s)"
)

#: The name of the first superuser differs between servers. No dependency on it is recorded.
_MAKER = "CASE %s WHEN 10 THEN 'the first superuser' ELSE pg_get_userbyid(%s) END"
_MEMBERS_OWNER = _MAKER % (("coalesce(o.refobjid, 10)",) * 2)


_RELATION_KIND = "(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END)::\"char\""


def _owned(owner: str, acl: str, kind: str) -> str:
    """:param kind: SQL expression for the object type of acldefault()"""
    privileges = _ACL % (_UNLESS_DEFAULT % (acl, kind, owner, acl))
    return "'owner ' || pg_get_userbyid(%s) || '; privileges ' || %s" % (owner, privileges)


def _member(catalog: str, oid: str) -> str:
    return USER_SCHEMA + " AND " + NOT_OF_EXTENSION % (catalog, oid)


#: A query for each kind, which returns identity and definition.
_QUERIES: List[Tuple[str, str]] = [
    (
        "schema",
        "SELECT n.nspname, %s FROM pg_namespace n WHERE %s"
        % (_owned("n.nspowner", "n.nspacl", "'n'"), _member("pg_namespace", "n.oid")),
    ),
    (
        "extension",
        "SELECT x.extname, 'version ' || x.extversion || ' in ' || n.nspname || '; owner ' || %s"
        " || coalesce('; comment ' || obj_description(x.oid, 'pg_extension'), '') || '; ' || (SELECT count(*) ||"
        " ' members of ' || coalesce(string_agg(DISTINCT %s, ', '), 'nobody') || ' ' ||"
        " md5(coalesce(string_agg(concat_ws(' ', i.type, i.identity, %s, c.description), ',' ORDER BY i.type,"
        " i.identity), '')) FROM pg_depend e LEFT JOIN pg_shdepend o ON o.deptype = 'o' AND o.dbid ="
        " (SELECT oid FROM pg_database WHERE datname = current_database()) AND o.classid = e.classid AND o.objid ="
        " e.objid AND o.objsubid = 0 LEFT JOIN pg_description c ON c.classoid = e.classid AND c.objoid = e.objid AND"
        " c.objsubid = 0, LATERAL pg_identify_object(e.classid, e.objid, 0) i WHERE e.refclassid ="
        " 'pg_extension'::regclass AND e.refobjid = x.oid AND e.deptype = 'e')"
        " FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace"
        % (_MAKER % (("x.extowner",) * 2), _MEMBERS_OWNER, _MEMBERS_OWNER),
    ),
    (
        "relation",
        "SELECT n.nspname || '.' || c.relname, 'kind ' || c.relkind::text || '; persistence ' ||"
        " c.relpersistence::text || '; ' || %s"
        " || '; options ' || coalesce(c.reloptions::text, '') || '; row security ' || c.relrowsecurity ||"
        " c.relforcerowsecurity"
        " || '; replica identity ' || c.relreplident::text || '; of ' || coalesce(nullif(c.reloftype,"
        " 0)::regtype::text, '')"
        " || '; tablespace ' || coalesce((SELECT spcname FROM pg_tablespace t WHERE t.oid = c.reltablespace), '')"
        " || '; partition key ' || coalesce(pg_get_partkeydef(c.oid), '')"
        " || '; bound ' || coalesce(pg_get_expr(c.relpartbound, c.oid), '')"
        " || '; parents ' || coalesce((SELECT string_agg(%s, ', ' ORDER BY i.inhseqno) FROM pg_inherits i WHERE"
        " i.inhrelid = c.oid), '')"
        " || CASE WHEN c.relkind IN ('v', 'm') THEN '; query ' || pg_get_viewdef(c.oid) ELSE '' END"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't' AND %s"
        % (_owned("c.relowner", "c.relacl", _RELATION_KIND), _RELATION % "i.inhparent", _member("pg_class", "c.oid")),
    ),
    (
        "column",
        # The number ignores dropped columns, which a restore does not recreate.
        # It also ignores the order of own and inherited columns: a restore puts inherited columns first.
        "SELECT n.nspname || '.' || c.relname || '.' || a.attname, 'number ' || CASE WHEN NOT c.relispartition AND"
        " EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) THEN 0 ELSE"
        " (SELECT count(*) FROM pg_attribute b WHERE b.attrelid = a.attrelid AND b.attnum > 0 AND NOT b.attisdropped"
        " AND b.attnum <= a.attnum) END"
        " || '; type ' || format_type(a.atttypid, a.atttypmod) || '; not null ' || a.attnotnull || '; default ' ||"
        " coalesce(pg_get_expr(d.adbin, d.adrelid), '') || '; identity ' || a.attidentity::text || '; generated ' ||"
        " a.attgenerated::text"
        " || '; collation ' || coalesce((SELECT l.collname FROM pg_collation l WHERE l.oid = a.attcollation), '')"
        # pg_attver is internal since 15.20: another number for each new table, and never dumped.
        " || '; storage ' || a.attstorage::text || '; options ' || coalesce((SELECT string_agg(o, ',' ORDER BY o)"
        " FROM unnest(a.attoptions) o WHERE o NOT LIKE 'pg\\_attver=%'), '')"
        " || '; privileges ' || " + _ACL % "a.attacl" + " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum"
        " = a.attnum"
        " WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND"
        " c.relpersistence <> 't'"
        " AND " + _member("pg_class", "c.oid"),
    ),
    (
        "sequence",
        "SELECT n.nspname || '.' || c.relname, concat_ws(' ', s.seqtypid::regtype, s.seqstart, s.seqincrement,"
        " s.seqmin, s.seqmax,"
        " s.seqcache, s.seqcycle) || '; owned by ' || coalesce((SELECT %s || '.' || a.attname FROM pg_depend o"
        " JOIN pg_attribute a ON a.attrelid = o.refobjid AND a.attnum = o.refobjsubid"
        " WHERE o.classid = 'pg_class'::regclass AND o.objid = c.oid AND o.deptype IN ('a', 'i') AND o.refobjsubid >"
        " 0 LIMIT 1), '')"
        " FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relpersistence <> 't' AND %s" % (_RELATION % "o.refobjid", _member("pg_class", "c.oid")),
    ),
    (
        "constraint",
        "SELECT coalesce(%s, n.nspname || '.' || (SELECT t.typname FROM pg_type t WHERE t.oid = k.contypid)) || '.'"
        " || k.conname,"
        " pg_get_constraintdef(k.oid) || '; validated ' || k.convalidated FROM pg_constraint k"
        " JOIN pg_namespace n ON n.oid = k.connamespace WHERE k.contype <> 't' AND %s"
        # pg_dump derives those of partitions from the parent's, and a restore gives them new names.
        " AND NOT (k.contype = 'f' AND k.conparentid <> 0)"
        " AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.objid = k.conrelid AND k.conrelid <> 0 AND e.deptype = 'e')"
        % (_RELATION % "nullif(k.conrelid, 0)", _member("pg_constraint", "k.oid")),
    ),
    (
        "index",
        "SELECT n.nspname || '.' || c.relname, pg_get_indexdef(i.indexrelid) || '; valid ' || i.indisvalid || ';"
        " clustered '"
        " || i.indisclustered || '; identity ' || i.indisreplident || '; options ' || coalesce(c.reloptions::text, '')"
        " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relpersistence <> 't' AND %s AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid ="
        " 'pg_class'::regclass"
        " AND e.objid = i.indrelid AND e.deptype = 'e')" % USER_SCHEMA,
    ),
    (
        "trigger",
        "SELECT %s || '.' || t.tgname, pg_get_triggerdef(t.oid) || '; enabled ' || t.tgenabled::text FROM pg_trigger t"
        " JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT"
        " t.tgisinternal AND %s" % (_RELATION % "t.tgrelid", _member("pg_trigger", "t.oid")),
    ),
    (
        "rule",
        "SELECT %s || '.' || r.rulename, pg_get_ruledef(r.oid) || '; enabled ' || r.ev_enabled::text FROM pg_rewrite r"
        " JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.rulename <>"
        " '_RETURN' AND %s" % (_RELATION % "r.ev_class", _member("pg_class", "c.oid")),
    ),
    (
        "policy",
        "SELECT %s || '.' || p.polname, concat_ws('; ', p.polcmd, p.polpermissive,"
        " (SELECT string_agg(CASE WHEN r = 0 THEN 'public' ELSE pg_get_userbyid(r) END, ', ' ORDER BY 1) FROM"
        " unnest(p.polroles) r),"
        " 'using ' || pg_get_expr(p.polqual, p.polrelid), 'check ' || pg_get_expr(p.polwithcheck, p.polrelid))"
        " FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE %s"
        % (_RELATION % "p.polrelid", _member("pg_class", "c.oid")),
    ),
    (
        "function",
        "SELECT n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', %s || '; ' ||"
        " CASE p.prokind WHEN 'a' THEN (SELECT concat_ws(' ', 'aggregate', g.aggkind, g.aggtransfn, g.aggfinalfn,"
        " g.aggcombinefn,"
        " g.aggtranstype::regtype, g.agginitval, g.aggsortop::regoperator) FROM pg_aggregate g WHERE g.aggfnoid ="
        " p.oid)"
        " ELSE pg_get_functiondef(p.oid) END FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE %s"
        # The constructors of a range are created with its type and belong to its creator, also in a restore.
        " AND NOT EXISTS (SELECT 1 FROM pg_depend i WHERE i.classid = 'pg_proc'::regclass AND i.objid = p.oid"
        " AND i.deptype = 'i')" % (_owned("p.proowner", "p.proacl", "'f'"), _member("pg_proc", "p.oid")),
    ),
    (
        "type",
        "SELECT n.nspname || '.' || t.typname, 'kind ' || t.typtype::text || '; ' || %s || '; labels ' ||"
        " coalesce((SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder) FROM pg_enum e"
        " WHERE e.enumtypid = t.oid), '')"
        " || '; base ' || CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) || ' not null ' ||"
        " t.typnotnull"
        " || ' default ' || coalesce(t.typdefault, '') ELSE '' END || coalesce('; range of ' || (SELECT"
        " g.rngsubtype::regtype::text"
        " FROM pg_range g WHERE g.rngtypid = t.oid), '') FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace"
        " WHERE t.typtype IN ('b', 'c', 'd', 'e', 'r') AND NOT (t.typtype = 'b' AND t.typelem <> 0 AND t.typlen = -1)"
        " AND (t.typrelid = 0 OR (SELECT c.relkind FROM pg_class c WHERE c.oid = t.typrelid) = 'c') AND %s"
        % (_owned("t.typowner", "t.typacl", "'T'"), _member("pg_type", "t.oid")),
    ),
    (
        "statistics",
        "SELECT n.nspname || '.' || s.stxname, 'owner ' || pg_get_userbyid(s.stxowner) || '; ' ||"
        " pg_get_statisticsobjdef(s.oid)"
        " FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE %s"
        % _member("pg_statistic_ext", "s.oid"),
    ),
    (
        "publication",
        "SELECT p.pubname, 'owner ' || pg_get_userbyid(p.pubowner) || concat_ws(' ', '; all', p.puballtables,"
        " p.pubinsert, p.pubupdate,"
        " p.pubdelete, p.pubtruncate, p.pubviaroot) || '; tables ' || coalesce((SELECT string_agg(%s, ', ' ORDER BY %s)"
        " FROM pg_publication_rel r WHERE r.prpubid = p.oid), '') FROM pg_publication p"
        % (_RELATION % "r.prrelid", _RELATION % "r.prrelid"),
    ),
    (
        "event trigger",
        "SELECT v.evtname, concat_ws(' ', 'owner', pg_get_userbyid(v.evtowner), v.evtevent, v.evtfoid::regproc,"
        " v.evtenabled, v.evttags)"
        " FROM pg_event_trigger v WHERE %s" % NOT_OF_EXTENSION % ("pg_event_trigger", "v.oid"),
    ),
    (
        "default privileges",
        "SELECT pg_get_userbyid(d.defaclrole) || ' in ' || coalesce(n.nspname, 'every schema') || ' on ' ||"
        " d.defaclobjtype::text, %s"
        " FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace" % _ACL % "d.defaclacl",
    ),
    (
        "large object",
        "SELECT l.oid::text, %s FROM pg_largeobject_metadata l" % _owned("l.lomowner", "l.lomacl", "'L'"),
    ),
    (
        "operator",
        "SELECT o.oid::regoperator::text, concat_ws(' ', 'owner', pg_get_userbyid(o.oprowner), o.oprcode,"
        " o.oprcom::regoperator,"
        " o.oprnegate::regoperator, o.oprcanmerge, o.oprcanhash) FROM pg_operator o JOIN pg_namespace n ON n.oid ="
        " o.oprnamespace"
        # A shell type is only a name that was mentioned.
        " WHERE o.oprcode <> 0 AND %s" % _member("pg_operator", "o.oid"),
    ),
    (
        "cast",
        "SELECT format_type(k.castsource, NULL) || ' to ' || format_type(k.casttarget, NULL), concat_ws(' ',"
        " k.castfunc::regprocedure,"
        " k.castcontext, k.castmethod) FROM pg_cast k WHERE k.oid >= 16384 AND %s"
        % NOT_OF_EXTENSION
        % ("pg_cast", "k.oid"),
    ),
    (
        "foreign server",
        "SELECT s.srvname, %s || '; ' || concat_ws(' ', w.fdwname, s.srvtype, s.srvversion) FROM pg_foreign_server s"
        " JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw" % _owned("s.srvowner", "s.srvacl", "'S'"),
    ),
]
_BESIDE: List[Tuple[str, str]] = [
    ("privileges on", SYSTEM_PRIVILEGES),
    (
        "internal trigger",
        "SELECT %s || ' ' || coalesce(pg_get_constraintdef(k.oid), '') || ' ' || t.tgfoid::regproc, 'enabled ' ||"
        " t.tgenabled::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid ="
        " c.relnamespace LEFT JOIN pg_constraint k ON k.oid = t.tgconstraint WHERE t.tgisinternal AND t.tgenabled <>"
        " 'O' AND %s" % (_RELATION % "t.tgrelid", _member("pg_class", "c.oid")),
    ),
    (
        "invalid index",
        "SELECT n.nspname || '.' || c.relname, pg_get_indexdef(c.oid) FROM pg_index i JOIN pg_class c ON c.oid ="
        " i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE NOT i.indisvalid AND c.relkind = 'i' AND %s"
        % USER_SCHEMA,
    ),
    (
        "materialized view",
        # A restore cannot fill a view that reads an unpopulated one, though it may still hold earlier rows.
        "WITH RECURSIVE reads(view, source) AS (SELECT DISTINCT r.ev_class, d.refobjid FROM pg_rewrite r JOIN pg_depend"
        " d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass WHERE"
        " d.refobjid <> r.ev_class), empty(oid) AS (SELECT oid FROM pg_class WHERE relkind = 'm' AND NOT"
        " relispopulated UNION SELECT r.view FROM reads r JOIN empty e ON e.oid = r.source) SELECT n.nspname || '.' ||"
        " c.relname, CASE WHEN c.relispopulated THEN 'stale' ELSE 'without rows' END FROM pg_class c JOIN pg_namespace"
        " n ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND c.oid IN (SELECT oid FROM empty) AND %s"
        % _member("pg_class", "c.oid"),
    ),
]
_QUERIES += _BESIDE
#: Kinds that differ in ways that pg_dump's output does not show.
BESIDE = (*(kind for kind, _sql in _BESIDE), "extension", "large object")
_QUERIES += [
    (
        kind,
        "SELECT n.nspname || '.' || o.%sname, 'owner ' || pg_get_userbyid(o.%sowner) FROM %s o"
        " JOIN pg_namespace n ON n.oid = o.%snamespace WHERE %s" % (p, p, catalog, p, _member(catalog, "o.oid")),
    )
    for kind, catalog, p in (
        ("collation", "pg_collation", "coll"),
        ("conversion", "pg_conversion", "con"),
        ("operator class", "pg_opclass", "opc"),
        ("operator family", "pg_opfamily", "opf"),
        ("text search configuration", "pg_ts_config", "cfg"),
        ("text search dictionary", "pg_ts_dict", "dict"),
    )
]
_COMMENTS = (
    "SELECT i.type || ' ' || i.identity, d.description FROM pg_description d,"
    " LATERAL pg_identify_object(d.classoid, d.objoid, d.objsubid) i"
    # Users choose the oids of large objects.
    " WHERE (d.objoid >= 16384 OR d.classoid = 'pg_largeobject'::regclass) AND i.identity IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = d.classoid AND e.objid = d.objoid AND e.deptype ="
    " 'e')"
    " AND NOT (d.classoid = 'pg_class'::regclass AND d.objoid IN (SELECT oid FROM pg_class WHERE relpersistence = 't'))"
    # The comment of every new database; it may be there too after schema public was dropped and created again.
    " AND NOT (d.classoid = 'pg_namespace'::regclass AND i.identity = 'public'"
    " AND d.description = 'standard public schema')"
)

#: Kinds whose text PostgreSQL may print differently after a restore though it means the same (an expression is parsed
#: again from its printed form); after a second restore the text stays the same.
REPRINTED = ("relation", "column", "constraint", "index", "trigger", "rule", "policy", "statistics", "function")


def definitions(session: Session) -> Definitions:
    """Every object of the session's database. The session must have the pinned search_path."""
    found: Dict[str, List[str]] = {}
    for kind, sql in _QUERIES:
        for identity, text in session.rows(sql):
            found.setdefault("%s %s" % (kind, identity), []).append(str(text))
    for identity, text in session.rows(_COMMENTS):
        found.setdefault("comment on %s" % identity, []).append(str(text))
    # Names with dots can collide: no entry may hide another.
    return {key: " and ".join(sorted(texts)) for key, texts in found.items()}


#: Kinds whose identity is that of their relation, a dot and their own name.
_PARTS = ("column", "constraint", "trigger", "rule", "policy")


def of_relations(session: Session, relations: Sequence[Relation]) -> Definitions:
    """The definitions of some tables, with their columns, constraints, indexes, triggers, rules and policies."""
    names = ["%s.%s" % (schema, name) for schema, name, _oid in relations]
    indexes = session.rows(
        "SELECT n.nspname || '.' || c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE i.indrelid = ANY(%s::bigint[]::oid[])",
        ([oid for _schema, _name, oid in relations],),
    )
    wanted = {"relation " + name for name in names} | {"index " + str(name) for (name,) in indexes}
    starts = tuple("%s %s." % (kind, name) for kind in _PARTS for name in names)
    return {key: text for key, text in definitions(session).items() if key in wanted or key.startswith(starts)}


def compare(before: Definitions, after: Definitions) -> Dict[str, List[str]]:
    """The differences: keys that are only in the first (missing), only in the second (added), in both (changed)."""
    return {
        "missing": sorted(set(before) - set(after)),
        "added": sorted(set(after) - set(before)),
        "changed": sorted(key for key in set(before) & set(after) if before[key] != after[key]),
    }


def only_moved_up(key: str, before: str, after: str) -> bool:
    """Whether a column differs only in its number, which is lower because an earlier column was dropped."""
    numbers = [re.match(r"number (\d+)(;.*)", text, re.DOTALL) for text in (before, after)]
    if not key.startswith("column ") or numbers[0] is None or numbers[1] is None:
        return False
    return numbers[0].group(2) == numbers[1].group(2) and int(numbers[1].group(1)) < int(numbers[0].group(1))


def only_granted(before: str, after: str) -> bool:
    """Whether two definitions of an object differ only in its privileges."""
    without = [re.sub(r"privileges [^;]*", "", text) for text in (before, after)]
    return without[0] == without[1]


def kind_of(key: str) -> str:
    """The kind in a key of Definitions."""
    for kind, _sql in sorted(_QUERIES, key=lambda pair: -len(pair[0])):
        if key.startswith(kind + " "):
            return kind
    return "comment"


#: By relkind. The names of indexes are keys of their own kind.
_RELATIONS = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "S": "sequence",
    "f": "foreign table",
}
RELATIONS = tuple(_RELATIONS.values())


def shown(key: str, *known: Definitions) -> str:
    """A key for users: a relation as the kind of it that its definition says."""
    kind = re.match("kind (.);", next((one[key] for one in known if key in one), ""))
    if not key.startswith("relation ") or kind is None:
        return key
    return _RELATIONS[kind.group(1)] + key[len("relation") :]


def differences(before: Definitions, after: Definitions, verb: str = "is") -> List[str]:
    """What differs, a sentence for each object."""
    found = compare(before, after)
    return ["%s %s %s" % (shown(key, after, before), verb, how) for how, keys in found.items() for key in keys]


def is_beside(key: str) -> bool:
    """Whether pg_dump's output does not show the object of this key."""
    return kind_of(key) in BESIDE or key.startswith("comment on large object ")
