-- What a dataset holds, in one row.

-- Counts are exact and of what reads would give (expired rows are not counted): several datasets may share a table, of
-- which the planner's estimates know nothing. It reads every index entry: for people and reports, not for hot paths.
-- bytes are those of the tables as they stand on disk, with indexes; where several Memories share them (row-level security
-- tells), those of the dataset's own values, because a table's size tells of the others. embeddings is null when the module is not there.
CREATE FUNCTION @{schema}.memory_status(p_dataset text) RETURNS TABLE (
    events bigint,
    keys bigint,
    embeddings bigint,
    bytes bigint,
    index_state text,
    oldest timestamptz,
    newest timestamptz,
    legal_hold boolean,
    ttl_days integer
)
LANGUAGE plpgsql STABLE
SET search_path = @{schema}, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    first_at timestamptz;
    last_at timestamptz;
    shared CONSTANT boolean := c.relrowsecurity FROM pg_class c WHERE c.oid = '@{schema}.memory_kv'::regclass;
    more bigint;
BEGIN
    PERFORM @{schema}.memory_require_dataset(p_dataset);
    SELECT d.index_state, d.legal_hold, d.ttl_days INTO index_state, legal_hold, ttl_days
    FROM @{schema}.memory_datasets d WHERE d.dataset = p_dataset;
    SELECT count(*), min(e.created_at), max(e.created_at) INTO events, oldest, newest
    FROM @{schema}.memory_events e WHERE e.dataset = p_dataset;
    SELECT count(*), min(k.updated_at), max(k.updated_at) INTO keys, first_at, last_at
    FROM @{schema}.memory_kv k WHERE k.dataset = p_dataset AND (k.expires_at IS NULL OR k.expires_at > now());
    oldest := least(oldest, first_at);
    newest := greatest(newest, last_at);
    IF shared THEN
        SELECT coalesce(sum(24 + pg_column_size(e.event_type) + pg_column_size(e.payload)), 0) INTO bytes
        FROM @{schema}.memory_events e WHERE e.dataset = p_dataset;
        SELECT coalesce(sum(24 + pg_column_size(k.key) + pg_column_size(k.value)), 0) INTO more
        FROM @{schema}.memory_kv k WHERE k.dataset = p_dataset;
        bytes := bytes + more;
    ELSE
        SELECT sum(pg_total_relation_size(t.relid)) INTO bytes
        FROM pg_partition_tree('@{schema}.memory_events') t;
        bytes := bytes + pg_total_relation_size('@{schema}.memory_event_ids')
            + pg_total_relation_size('@{schema}.memory_kv');
    END IF;
    IF to_regclass('@{schema}.memory_embeddings') IS NOT NULL THEN
        SELECT count(*), min(v.created_at), max(v.updated_at) INTO embeddings, first_at, last_at
        FROM @{schema}.memory_embeddings v
        WHERE v.dataset = p_dataset AND (v.expires_at IS NULL OR v.expires_at > now());
        oldest := least(oldest, first_at);
        newest := greatest(newest, last_at);
        IF shared THEN
            SELECT coalesce(sum(24 + pg_column_size(v.key) + coalesce(pg_column_size(v.content), 0)
                + pg_column_size(v.embedding) + pg_column_size(v.metadata)), 0) INTO more
            FROM @{schema}.memory_embeddings v WHERE v.dataset = p_dataset;
        ELSE
            more := pg_total_relation_size('@{schema}.memory_embeddings');
        END IF;
        bytes := bytes + more;
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION @{schema}.memory_status(text) IS 'memory: read';
