"""The rules at the top of modules.md, asked of the catalog: they are also what lets the tables move onto shards."""

import re

import pytest

from migrations.postgres import sqlfile
from tests.datamodel.homes import Dataset

# Each rule is a query for what breaks it, and a statement that would.
RULES: dict[str, tuple[str, str]] = {
    "no SECURITY DEFINER": (
        "SELECT proname FROM pg_proc WHERE pronamespace = 'notes'::regnamespace AND prosecdef",
        "CREATE FUNCTION bad() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1",
    ),
    "every function pins search_path, the home first and temporary tables last": (
        """
        SELECT proname FROM pg_proc WHERE pronamespace = 'notes'::regnamespace AND NOT EXISTS (
            SELECT FROM unnest(proconfig) setting WHERE setting ~ '^search_path="?notes"?(, "?public"?)?, "?pg_temp"?$')
        """,
        "CREATE FUNCTION bad() RETURNS int LANGUAGE sql SET search_path = notes RETURN 1",
    ),
    "functions over the partitioned table plan for their values": (
        """
        SELECT proname FROM pg_proc p WHERE pronamespace = 'notes'::regnamespace AND prosrc ~ 'memory_events\\M'
        AND NOT coalesce('plan_cache_mode=force_custom_plan' = ANY (proconfig), false)
        """,
        "CREATE FUNCTION bad() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM memory_events'",
    ),
    "dataset comes first in every primary key and unique index": (
        """
        SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE c.relnamespace = 'notes'::regnamespace AND i.indisunique AND a.attname IS DISTINCT FROM 'dataset'
        AND i.indrelid <> 'notes.memory_migrations'::regclass
        """,
        "CREATE TABLE bad (dataset text NOT NULL, key text UNIQUE)",
    ),
    "every table has a primary key": (
        """
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'notes'::regnamespace AND c.relkind IN ('r', 'p')
        AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
        """,
        "CREATE TABLE bad (dataset text NOT NULL)",
    ),
    "dataset is text and not null": (
        """
        SELECT c.relname FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'dataset'
        WHERE c.relnamespace = 'notes'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'memory_migrations'
        AND (a.attnum IS DISTINCT FROM 1 OR a.atttypid <> 'text'::regtype OR NOT a.attnotnull)
        """,
        "CREATE TABLE bad (dataset text, id uuid PRIMARY KEY)",
    ),
    "no foreign keys": (
        "SELECT conname FROM pg_constraint WHERE connamespace = 'notes'::regnamespace AND contype = 'f'",
        "ALTER TABLE memory_kv ADD CONSTRAINT bad FOREIGN KEY (dataset) REFERENCES memory_datasets",
    ),
    "no SERIAL, no identity": (
        "SELECT relname FROM pg_class WHERE relnamespace = 'notes'::regnamespace AND relkind = 'S'",
        "ALTER TABLE memory_kv ADD COLUMN bad bigint GENERATED ALWAYS AS IDENTITY",
    ),
    "times have a zone": (
        """
        SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'notes'::regnamespace AND a.atttypid IN ('timestamp'::regtype, 'date'::regtype)
        """,
        "ALTER TABLE memory_kv ADD COLUMN bad timestamp",
    ),
    "metadata is an object": (
        """
        SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'metadata'
        WHERE c.relnamespace = 'notes'::regnamespace AND c.relkind IN ('r', 'p') AND NOT EXISTS (
            SELECT FROM pg_constraint k WHERE k.conrelid = c.oid
            AND pg_get_constraintdef(k.oid) = 'CHECK ((jsonb_typeof(metadata) = ''object''::text))')
        """,
        "ALTER TABLE memory_kv ADD COLUMN metadata jsonb",
    ),
    "generated columns are stored": (
        """
        SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'notes'::regnamespace AND a.attgenerated NOT IN ('', 's')
        """,
        # Only PostgreSQL 18 has others: there and before, the catalog says so by hand.
        """
        SET LOCAL allow_system_table_mods = on;
        UPDATE pg_attribute SET attgenerated = 'v' WHERE attrelid = 'memory_embeddings'::regclass AND attname = 'tsv'
        """,
    ),
    "the text search configuration is a literal": (
        """
        SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid
        WHERE c.relnamespace = 'notes'::regnamespace AND pg_get_expr(d.adbin, d.adrelid) LIKE '%to_tsvector%'
        AND pg_get_expr(d.adbin, d.adrelid) NOT LIKE '%%to_tsvector(''simple''::regconfig,%'
        """,
        """
        ALTER TABLE memory_kv ADD COLUMN bad tsvector
        GENERATED ALWAYS AS (to_tsvector('english'::regconfig, key)) STORED
        """,
    ),
    "no approximate index on a new home": (
        """
        SELECT c.relname FROM pg_class c JOIN pg_am a ON a.oid = c.relam
        WHERE c.relnamespace = 'notes'::regnamespace AND a.amname IN ('hnsw', 'ivfflat')
        """,
        "CREATE INDEX bad ON memory_embeddings USING hnsw (embedding public.vector_cosine_ops)",
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_home_keeps_the_rule(dataset: Dataset, rule: str) -> None:
    assert dataset.owner.execute(RULES[rule][0]).fetchall() == []


@pytest.mark.parametrize("rule", RULES)
def test_rule_is_noticed_when_broken(dataset: Dataset, rule: str) -> None:
    query, breaking = RULES[rule]
    with dataset.owner.transaction(force_rollback=True):
        if "allow_system_table_mods" in breaking:
            dataset.owner.execute("RESET ROLE")
        dataset.owner.execute(breaking)
        assert dataset.owner.execute(query).fetchall() != []


CONTRACT = """
memory_append(p_dataset text, p_event_type text, p_payload jsonb, p_event_id text DEFAULT NULL,
              p_source text DEFAULT '')
    TABLE(id uuid, created_at timestamptz, duplicate boolean)
memory_read(p_dataset text, p_limit integer DEFAULT 50, p_before timestamptz DEFAULT NULL,
            p_before_id uuid DEFAULT NULL, p_event_type text DEFAULT NULL)
    TABLE(id uuid, event_type text, payload jsonb, created_at timestamptz)
memory_put(p_dataset text, p_key text, p_value jsonb, p_expected_version bigint DEFAULT NULL,
           p_ttl interval DEFAULT NULL)
    bigint
memory_get(p_dataset text, p_key text)
    TABLE(value jsonb, version bigint, updated_at timestamptz)
memory_delete(p_dataset text, p_key text, p_expected_version bigint DEFAULT NULL)
    boolean
memory_upsert_embedding(p_dataset text, p_key text, p_embedding vector, p_content text DEFAULT NULL,
                        p_metadata jsonb DEFAULT '{}', p_chunk integer DEFAULT 0, p_ttl interval DEFAULT NULL)
    uuid
memory_delete_embedding(p_dataset text, p_key text)
    integer
memory_search(p_dataset text, p_embedding vector DEFAULT NULL, p_query text DEFAULT NULL, p_limit integer DEFAULT 10,
              p_filter jsonb DEFAULT NULL)
    TABLE(id uuid, key text, chunk integer, content text, metadata jsonb, score double precision,
          distance double precision)
memory_status(p_dataset text)
    TABLE(events bigint, keys bigint, embeddings bigint, bytes bigint, index_state text, oldest timestamptz,
          newest timestamptz, legal_hold boolean, ttl_days integer)
"""


def test_signatures_are_those_of_the_contract(dataset: Dataset) -> None:
    names = re.findall(r"^memory_\w+", CONTRACT, re.MULTILINE)
    rows = dataset.owner.execute(
        "SELECT format('%%s(%%s) %%s', proname, pg_get_function_arguments(oid), pg_get_function_result(oid))"
        " FROM pg_proc WHERE pronamespace = 'notes'::regnamespace AND proname = ANY(%s)",
        [names],
    ).fetchall()
    shown = [re.sub(r"::[a-z ]+", "", row[0].replace("timestamp with time zone", "timestamptz")) for row in rows]
    written = [re.sub(r"\s+", " ", each).strip() for each in re.split(r"^(?=memory_)", CONTRACT, flags=re.MULTILINE)]
    assert sorted(shown) == sorted(filter(None, written))


KNOWN = {
    "core": {"schema", "dataset", "search_config", "owner", "writer", "reader", "ttl_days", "legal_hold"},
    "embeddings": {"extension_schema", "dimension", "vector_type", "vector_ops", "metric", "distance"},
}


@pytest.mark.parametrize("file", [file for name in sorted(KNOWN) for file in sqlfile.read(name)], ids=lambda f: f.title)
def test_files(file: sqlfile.File) -> None:
    used = set(re.findall(r"@\{(.*?)\}", file.text))
    allowed = KNOWN["core"] | (KNOWN["embeddings"] if file.module == "embeddings" else set())
    assert used <= allowed, "core works without the extension"
    functions = re.findall(r"CREATE (?:OR REPLACE )?FUNCTION.*?\$\$;", file.text, re.DOTALL)
    for function in functions:
        # On an empty table the dimension may change, and the type with it: no function may know either.
        assert not {"vector_type", "dimension"} & set(re.findall(r"@\{(.*?)\}", function))
    made = re.findall(r"CREATE (?:OR REPLACE )?(?:TABLE|FUNCTION|UNIQUE INDEX|INDEX|TRIGGER).*?;", file.text, re.DOTALL)
    assert made
    assert all("@{schema}." in statement for statement in made), "schema-qualified, whatever the search path is"
    assert not re.search(r"CREATE \w+ IF NOT EXISTS", file.text), "the history says what is there"
    earlier = "".join(each.text for each in sqlfile.read(file.module) if each.version < file.version)
    for name in re.findall(r"CREATE OR REPLACE (\w+ \S+?)\(", file.text):
        assert f"CREATE {name}(" in earlier, "what is replaced is there"
    assert file.text.count("OR REPLACE") == len(re.findall(r"CREATE OR REPLACE \w+ \S+?\(", file.text))
