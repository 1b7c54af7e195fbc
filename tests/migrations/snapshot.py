"""Everything that provisioning makes, as text that is the same for the same home wherever and whenever it was made."""

import re

from psycopg import sql

from tests.migrations.documents import Memory

_QUERIES = {
    "roles": """
        SELECT r.rolname, r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication,
               r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil, a.rolpassword IS NOT NULL,
               shobj_description(r.oid, 'pg_authid'),
               (SELECT array_agg(c ORDER BY c) FROM unnest(r.rolconfig) c)
        FROM pg_roles r JOIN pg_authid a ON a.oid = r.oid WHERE starts_with(r.rolname, %(prefix)s) ORDER BY 1
    """,
    "memberships": """
        SELECT g.rolname, m.rolname, o.rolname, a.admin_option, a.inherit_option, a.set_option
        FROM pg_auth_members a JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles m ON m.oid = a.member
        JOIN pg_roles o ON o.oid = a.grantor
        WHERE starts_with(g.rolname, %(prefix)s) OR starts_with(m.rolname, %(prefix)s) ORDER BY 1, 2, 3
    """,
    "schemas": """
        SELECT n.nspname, pg_get_userbyid(n.nspowner), obj_description(n.oid, 'pg_namespace'),
               (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(n.nspacl) a)
        FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'public') ORDER BY 1
    """,
    "relations": """
        SELECT c.relname, c.relkind, pg_get_userbyid(c.relowner), c.relpersistence, c.reloptions, c.relreplident,
               c.relrowsecurity, pg_get_expr(c.relpartbound, c.oid), obj_description(c.oid, 'pg_class'),
               (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(c.relacl) a)
        FROM pg_class c WHERE c.relnamespace = ANY(%(homes)s::regnamespace[]) ORDER BY 1
    """,
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attgenerated,
               pg_get_expr(d.adbin, d.adrelid), a.attacl
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace = ANY(%(homes)s::regnamespace[]) AND a.attnum > 0 ORDER BY 1, a.attnum
    """,
    "constraints": """
        SELECT c.conrelid::regclass::text, c.conname, c.convalidated, pg_get_constraintdef(c.oid)
        FROM pg_constraint c WHERE c.connamespace = ANY(%(homes)s::regnamespace[]) ORDER BY 1, 2
    """,
    "indexes": """
        SELECT i.indexrelid::regclass::text, i.indisvalid, i.indisready, pg_get_indexdef(i.indexrelid)
        FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE c.relnamespace = ANY(%(homes)s::regnamespace[]) ORDER BY 1
    """,
    "triggers": """
        SELECT t.tgrelid::regclass::text, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = ANY(%(homes)s::regnamespace[]) ORDER BY 1, 2
    """,
    "functions": """
        SELECT p.oid::regprocedure::text, pg_get_userbyid(p.proowner), pg_get_functiondef(p.oid),
               obj_description(p.oid, 'pg_proc'),
               (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(p.proacl) a)
        FROM pg_proc p WHERE p.pronamespace = ANY(%(homes)s::regnamespace[]) ORDER BY 1
    """,
    "default rights": """
        SELECT pg_get_userbyid(d.defaclrole), d.defaclnamespace::regnamespace::text, d.defaclobjtype,
               (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(d.defaclacl) a)
        FROM pg_default_acl d ORDER BY 1, 2, 3
    """,
    "extensions": "SELECT extname, extversion, extnamespace::regnamespace::text FROM pg_extension ORDER BY 1",
    "ledger": """
        SELECT home, identity, xr_uid, provider, provider_uid, dataset, search_config, dimension, deletion_policy,
               legal_hold, ttl_days
        FROM memory_ledger.homes ORDER BY 1
    """,
}

_IN_THE_HOME = {
    "history": "SELECT module, version, name, sha256, tool_version FROM {}.memory_migrations ORDER BY 1, 2",
    "registry": (
        "SELECT dataset, embedding_dimension, embedding_model, metric, ttl_days, legal_hold, index_state"
        " FROM {}.memory_datasets ORDER BY 1"
    ),
}


def snapshot(memory: Memory) -> dict[str, list[str]]:
    """Gives the catalog of one home and its roles, without oids and times, names that hold a hash made equal."""
    values = {"prefix": memory.prefix, "homes": [memory.schema, "memory_ledger"]}
    with memory.database.superuser() as connection:
        rows = {name: connection.execute(query.encode(), values).fetchall() for name, query in _QUERIES.items()}
        for name, query in _IN_THE_HOME.items():
            statement = sql.SQL(query).format(sql.Identifier(memory.schema))
            rows[name] = connection.execute(statement).fetchall()
    return {name: [_normal(str(row), memory) for row in found] for name, found in rows.items()}


def _normal(text: str, memory: Memory) -> str:
    text = text.replace(memory.prefix, "mem_ID")
    return re.sub(r"memory:[0-9a-f]{32}", "STAMP", text)
