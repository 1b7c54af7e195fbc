"""A look at the rights as each login has them; it changes nothing and says what should not be."""

from migrations.postgres.connection import Connection
from migrations.postgres.names import Names

# What roles are and what they are in, with what their admin executes to mend it.
_ROLES = """
WITH login AS (
    SELECT r.oid, r.rolname, CASE WHEN r.rolname LIKE '%%\\_rw\\__' THEN %(writer)s ELSE %(reader)s END AS own_group
    FROM pg_roles r WHERE r.rolname = ANY(%(logins)s)
), membership AS (
    SELECT l.rolname AS member, l.own_group, g.rolname AS role, m.admin_option, m.set_option,
           pg_get_userbyid(m.grantor) AS grantor
    FROM login l JOIN pg_auth_members m ON m.member = l.oid JOIN pg_roles g ON g.oid = m.roleid
)
SELECT format('role %%s is %%s', r.rolname, a.name), format('ALTER ROLE %%I NO%%s', r.rolname, a.name)
FROM pg_roles r
CROSS JOIN LATERAL (VALUES ('SUPERUSER', r.rolsuper), ('CREATEROLE', r.rolcreaterole), ('CREATEDB', r.rolcreatedb),
                           ('BYPASSRLS', r.rolbypassrls), ('REPLICATION', r.rolreplication)) a(name, has)
WHERE r.rolname = ANY(%(roles)s) AND a.has
UNION ALL
SELECT format('group %%s can log in', r.rolname), format('ALTER ROLE %%I NOLOGIN', r.rolname)
FROM pg_roles r WHERE r.rolname = ANY(%(groups)s) AND r.rolcanlogin
UNION ALL
SELECT format('login %%s can become role %%s', m.member, m.role),
       format('REVOKE %%s OPTION FOR %%I FROM %%I GRANTED BY %%I CASCADE', o.name, m.role, m.member, m.grantor)
FROM membership m CROSS JOIN LATERAL (VALUES ('ADMIN', m.admin_option), ('SET', m.set_option)) o(name, has)
WHERE o.has AND NOT (%(managed)s AND o.name = 'SET' AND m.role = m.own_group)
UNION ALL
SELECT format('login %%s is in role %%s', m.member, m.role),
       format('REVOKE %%I FROM %%I GRANTED BY %%I CASCADE', m.role, m.member, m.grantor)
FROM membership m WHERE m.role <> m.own_group
"""

# One row a difference. PUBLIC's rights on the database itself are the platform team's to take away: it may have other
# users; they are reported all the same.
_QUERY = """
WITH login AS (
    SELECT r.oid, r.rolname, r.rolname LIKE '%%\\_rw\\__' AS writes, r.rolcanlogin
    FROM pg_roles r WHERE r.rolname = ANY(%(logins)s)
), home AS (
    SELECT oid, nspname, nspacl, nspowner FROM pg_namespace WHERE nspname = %(schema)s
), relation AS (
    SELECT c.*, %(shared)s AND (c.relispartition OR c.relkind NOT IN ('r', 'p') OR NOT EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'dataset' AND NOT a.attisdropped)) AS hidden
    FROM pg_class c JOIN home ON home.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
), routine AS (
    SELECT p.* FROM pg_proc p JOIN home ON home.oid = p.pronamespace
)
SELECT format('login %%s has CREATE on schema %%s', l.rolname, home.nspname)
FROM login l, home WHERE has_schema_privilege(l.oid, home.oid, 'CREATE')
UNION ALL
SELECT format('login %%s lacks USAGE on schema %%s', l.rolname, home.nspname)
FROM login l, home WHERE NOT has_schema_privilege(l.oid, home.oid, 'USAGE')
UNION ALL
SELECT format('login %%s has TRUNCATE, REFERENCES or TRIGGER on %%s', l.rolname, c.relname)
FROM login l, relation c WHERE has_table_privilege(l.oid, c.oid, 'TRUNCATE, REFERENCES, TRIGGER')
UNION ALL
SELECT format('login %%s can write %%s', l.rolname, c.relname)
FROM login l, relation c
WHERE has_table_privilege(l.oid, c.oid, 'INSERT, UPDATE, DELETE')
  AND (NOT l.writes OR c.relname IN ('memory_migrations', 'memory_datasets'))
UNION ALL
SELECT format('login %%s cannot read %%s', l.rolname, c.relname)
FROM login l, relation c
WHERE c.relname <> 'memory_migrations' AND NOT c.hidden AND NOT has_table_privilege(l.oid, c.oid, 'SELECT')
UNION ALL
SELECT format('login %%s has rights on %%s, which no policy guards', l.rolname, c.relname)
FROM login l, relation c
WHERE c.hidden AND (has_any_column_privilege(l.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
                    OR has_table_privilege(l.oid, c.oid, 'DELETE, TRUNCATE, TRIGGER'))
UNION ALL
SELECT format('%%s would be given rights on what comes later in schema %%s',
              CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END, home.nspname)
FROM home JOIN pg_default_acl d ON d.defaclnamespace = home.oid CROSS JOIN aclexplode(d.defaclacl) a
WHERE %(shared)s AND a.grantee <> home.nspowner
UNION ALL
SELECT format('login %%s cannot call %%s', l.rolname, p.oid::regprocedure)
FROM login l, routine p
WHERE p.prorettype <> 'trigger'::regtype AND NOT has_function_privilege(l.oid, p.oid, 'EXECUTE')
  AND (l.writes OR obj_description(p.oid, 'pg_proc') = 'memory: read')
UNION ALL
SELECT format('login %%s can read schema memory_ledger', l.rolname)
FROM login l, pg_namespace n WHERE n.nspname = 'memory_ledger' AND has_schema_privilege(l.oid, n.oid, 'USAGE')
UNION ALL
SELECT format('PUBLIC has %%s on schema %%s', a.privilege_type, home.nspname)
FROM home, aclexplode(coalesce(home.nspacl, acldefault('n', home.nspowner))) a WHERE a.grantee = 0
UNION ALL
SELECT format('PUBLIC has %%s on %%s', a.privilege_type, c.relname)
FROM relation c, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) a WHERE a.grantee = 0
UNION ALL
SELECT format('PUBLIC has %%s on %%s', a.privilege_type, p.oid::regprocedure)
FROM routine p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0
UNION ALL
SELECT format('PUBLIC has %%s on database %%s', a.privilege_type, d.datname)
FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
WHERE d.datname = current_database() AND a.grantee = 0
UNION ALL
SELECT format('PUBLIC has %%s on schema public', a.privilege_type)
FROM pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
WHERE n.nspname = 'public' AND a.grantee = 0 AND current_database() = %(own_database)s
"""


def differences(
    connection: Connection, schema: str, names: Names, *, shared: bool = False, managed: bool = False
) -> list[str]:
    """Gives a sentence for each right that is missing or too much, in a fixed order; policies are not among them.

    Where roles are `managed` by CloudNativePG, a login can become its own group: it knows no other membership. The
    group has no right that the login has not.
    """
    values = {
        "schema": schema,
        "logins": list(names.logins),
        "shared": shared,
        "own_database": names.database,
    }
    found = {str(row[0]) for row in connection.execute(_QUERY, values).fetchall()}
    return sorted(found | set(of_roles(connection, names, managed=managed)))


def of_roles(connection: Connection, names: Names, *, managed: bool) -> dict[str, list[str]]:
    """Gives, for each attribute and membership that is too much, a sentence and the statements that take it away."""
    values = {
        "roles": list(names.roles),
        "groups": [names.owner, names.writer, names.reader],
        "logins": list(names.logins),
        "writer": names.writer,
        "reader": names.reader,
        "managed": managed,
    }
    found: dict[str, list[str]] = {}
    for sentence, statement in connection.execute(_ROLES, values).fetchall():
        found.setdefault(sentence, []).append(statement)
    return found
