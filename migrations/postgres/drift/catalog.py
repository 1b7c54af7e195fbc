"""A schema as the catalog shows it, in one round trip, and in terms in which two schemas can be compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from migrations.postgres.connection import Connection

# Kinds, what `relation` and `name` are of them, and their facts:
# - schema ("", ""): owner, comment
# - table (its name, ""): kind as relkind has it, owner, persistence, options, secured, forced, parent
# - column (table, its name): type, required, default, generated, identity, inherited
# - constraint (table, its name): definition, inherited
# - index (table, its name): definition, valid, constraint, inherited
# - trigger (table, its name): definition, enabled, inherited
# - rule, policy (table, its name)
# - function ("", signature): definition, owner, mark
# - object ("", identity): one of another kind, of which a home has none
# - right (table, signature, "" for the schema, or "new tables in the schema", grantee): grantee, privileges, column
# `statement` is how ALTER or GRANT names the thing, quoted where it must be; grantee "" is PUBLIC. Names resolve in
# pg_catalog alone, so all others are qualified.
_QUERY = """
WITH home AS MATERIALIZED (
    SELECT * FROM pg_namespace WHERE nspname = %(schema)s
), relation AS MATERIALIZED (
    SELECT c.*, quote_ident(home.nspname) || '.' || quote_ident(c.relname) AS title
    FROM pg_class c JOIN home ON home.oid = c.relnamespace
    -- The sequence of an identity column is a fact of the column.
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                      AND (d.deptype = 'e' OR (c.relkind = 'S' AND d.deptype = 'i')))
), stored AS MATERIALIZED (
    SELECT * FROM relation WHERE relkind IN ('r', 'p')
), routine AS MATERIALIZED (
    SELECT p.*, p.proname || '(' || replace(oidvectortypes(p.proargtypes), ', ', ',') || ')' AS title
    FROM pg_proc p JOIN home ON home.oid = p.pronamespace
    WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
                      AND d.deptype = 'e')
), kinds (letter, name) AS (
    VALUES ('r'::"char", 'tables'), ('S', 'sequences'), ('f', 'routines'), ('T', 'types')
), acl AS (
    SELECT '' AS relation, '' AS col, nspowner AS holder, coalesce(nspacl, acldefault('n', nspowner)) AS items
    FROM home
    UNION ALL
    SELECT relname, '', relowner,
           coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r'::"char" END, relowner))
    FROM relation WHERE relkind <> 'c'
    UNION ALL
    SELECT c.relname, quote_ident(a.attname), c.relowner, a.attacl
    FROM relation c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT title, '', proowner, coalesce(proacl, acldefault('f', proowner)) FROM routine
    UNION ALL
    SELECT 'new ' || kinds.name, '', %(owner)s::regrole::oid,
           coalesce((SELECT d.defaclacl FROM pg_default_acl d WHERE d.defaclrole = %(owner)s::regrole
                     AND d.defaclnamespace = 0 AND d.defaclobjtype = kinds.letter),
                    acldefault(CASE kinds.letter WHEN 'S' THEN 's' ELSE kinds.letter END, %(owner)s::regrole))
    FROM kinds
    UNION ALL
    SELECT 'new ' || kinds.name || ' in the schema', '', d.defaclrole, d.defaclacl
    FROM home JOIN pg_default_acl d ON d.defaclnamespace = home.oid AND d.defaclrole = %(owner)s::regrole
    JOIN kinds ON kinds.letter = d.defaclobjtype
), granted AS (
    -- Of what belongs to somebody else, that one has the owner's rights.
    SELECT acl.relation, acl.col, CASE entry.grantee WHEN 0 THEN '' WHEN acl.holder THEN %(owner_name)s
           ELSE pg_get_userbyid(entry.grantee) END AS grantee,
           array_agg(DISTINCT entry.privilege_type || CASE WHEN entry.is_grantable THEN ' (grantable)' ELSE '' END)
               AS privileges
    FROM acl CROSS JOIN aclexplode(acl.items) entry
    GROUP BY 1, 2, 3
)
SELECT 'schema', '', '', jsonb_build_object(
    'owner', pg_get_userbyid(nspowner), 'comment', coalesce(obj_description(oid, 'pg_namespace'), ''),
    'statement', 'SCHEMA ' || quote_ident(nspname))
FROM home
UNION ALL
SELECT 'table', relname, '', jsonb_build_object(
    'kind', relkind, 'owner', pg_get_userbyid(relowner), 'persistence', relpersistence,
    'options', coalesce(reloptions, '{}'), 'secured', relrowsecurity, 'forced', relforcerowsecurity,
    'parent', (SELECT p.relname FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent
               WHERE i.inhrelid = relation.oid AND relation.relispartition),
    'statement', 'TABLE ' || title)
FROM relation
UNION ALL
SELECT 'column', c.relname, a.attname, jsonb_build_object(
    'type', format_type(a.atttypid, a.atttypmod) || CASE WHEN a.attcollation <> t.typcollation
        THEN ' COLLATE ' || a.attcollation::regcollation::text ELSE '' END,
    'required', a.attnotnull, 'default', pg_get_expr(d.adbin, d.adrelid), 'generated', a.attgenerated,
    'identity', a.attidentity, 'inherited', a.attinhcount > 0, 'statement', quote_ident(a.attname))
FROM stored c JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped
UNION ALL
-- Not-null constraints are facts of columns; before PostgreSQL 18 they are no constraints.
SELECT 'constraint', c.relname, n.conname, jsonb_build_object(
    'definition', pg_get_constraintdef(n.oid), 'inherited', n.coninhcount > 0,
    'statement', quote_ident(n.conname))
FROM stored c JOIN pg_constraint n ON n.conrelid = c.oid WHERE n.contype NOT IN ('n', 't')
UNION ALL
SELECT 'index', c.relname, x.relname, jsonb_build_object(
    'definition', pg_get_indexdef(x.oid), 'valid', i.indisvalid AND i.indisready,
    'constraint', EXISTS (SELECT FROM pg_constraint n WHERE n.conindid = x.oid AND n.conrelid = c.oid),
    'inherited', x.relispartition, 'statement', x.oid::regclass::text)
FROM stored c JOIN pg_index i ON i.indrelid = c.oid JOIN pg_class x ON x.oid = i.indexrelid
UNION ALL
SELECT 'trigger', c.relname, t.tgname, jsonb_build_object(
    'definition', pg_get_triggerdef(t.oid), 'enabled', t.tgenabled, 'inherited', t.tgparentid <> 0,
    'statement', quote_ident(t.tgname))
FROM relation c JOIN pg_trigger t ON t.tgrelid = c.oid WHERE NOT t.tgisinternal OR t.tgparentid <> 0
UNION ALL
SELECT 'rule', c.relname, r.rulename, jsonb_build_object('statement', quote_ident(r.rulename))
FROM relation c JOIN pg_rewrite r ON r.ev_class = c.oid
WHERE r.rulename <> '_RETURN'
UNION ALL
SELECT 'policy', c.relname, p.polname, jsonb_build_object('statement', quote_ident(p.polname))
FROM stored c JOIN pg_policy p ON p.polrelid = c.oid
UNION ALL
SELECT 'function', '', title, jsonb_build_object(
    'definition', CASE WHEN prokind = 'a' THEN NULL ELSE pg_get_functiondef(oid) END,
    'owner', pg_get_userbyid(proowner), 'mark', coalesce(obj_description(oid, 'pg_proc'), '') = %(mark)s,
    'statement', 'ROUTINE ' || oid::regprocedure::text)
FROM routine
UNION ALL
SELECT 'object', '', o.type || ' ' || coalesce(o.name, o.identity), '{}'
FROM home JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = home.oid AND d.deptype = 'n'
CROSS JOIN pg_identify_object(d.classid, d.objid, 0) o
WHERE d.classid NOT IN ('pg_class'::regclass, 'pg_proc'::regclass, 'pg_default_acl'::regclass, 'pg_extension'::regclass)
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = d.classid AND e.objid = d.objid AND e.deptype IN ('e', 'i'))
  AND NOT EXISTS (SELECT FROM pg_type t JOIN relation ON relation.oid = t.typrelid
                  WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid)
UNION ALL
SELECT 'right', relation, CASE col WHEN '' THEN '' ELSE col || ' ' END || grantee, jsonb_build_object(
    'grantee', grantee, 'privileges', privileges, 'column', col)
FROM granted
"""


@dataclass(frozen=True)
class Item:
    """One thing in a schema; kind, relation and name together are unique."""

    kind: str
    relation: str
    name: str
    facts: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is found by in another schema."""
        return (self.kind, self.relation, self.name)


def read(connection: Connection, schema: str, owner: str, mark: str) -> list[Item]:
    """Reads everything in a schema but what extensions put there, and what the owner's default privileges are."""
    values = {"schema": schema, "owner": f'"{owner}"', "owner_name": owner, "mark": mark}
    return [Item(*row) for row in connection.execute(_QUERY, values).fetchall()]
