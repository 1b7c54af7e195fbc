-- What a dataset holds, in one row.

-- Counts are exact and of what reads would give (expired rows are not counted): several datasets may share a table, of
-- which the planner's estimates know nothing. It reads every index entry: for people and reports, not for hot paths.
-- bytes are those of the tables as they stand on disk, with indexes. embeddings is null when the module is not there.
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
    SELECT sum(pg_total_relation_size(t.relid)) INTO bytes
    FROM pg_partition_tree('@{schema}.memory_events') t;
    bytes := bytes + pg_total_relation_size('@{schema}.memory_event_ids') + pg_total_relation_size('@{schema}.memory_kv');
    IF to_regclass('@{schema}.memory_embeddings') IS NOT NULL THEN
        SELECT count(*), min(v.created_at), max(v.updated_at) INTO embeddings, first_at, last_at
        FROM @{schema}.memory_embeddings v
        WHERE v.dataset = p_dataset AND (v.expires_at IS NULL OR v.expires_at > now());
        oldest := least(oldest, first_at);
        newest := greatest(newest, last_at);
        bytes := bytes + pg_total_relation_size('@{schema}.memory_embeddings');
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION @{schema}.memory_status(text) IS 'memory: read';
