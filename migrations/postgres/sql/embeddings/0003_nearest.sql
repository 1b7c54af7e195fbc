-- The approximate index is used for datasets that have earned it, with settings that find what an exact scan finds.

-- Loads pgvector into this session: before, hnsw.* are settings that nobody knows, and only a superuser may pin those.
DO $$
BEGIN
    PERFORM '[1]'::@{extension_schema}.vector;
END
$$;

-- The ids that the approximate index finds, in no order; p_lists are those of an ivfflat index. Four times as many are
-- looked at as are asked for: where a filter, or another dataset in the same index, hides most of what is visited, the
-- scan goes on in rounds, and a later round may find a nearer row.
CREATE FUNCTION @{schema}.memory_nearest_by_index(
    p_dataset text, p_embedding @{extension_schema}.vector, p_limit bigint, p_filter jsonb, p_lists integer
) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = @{schema}, @{extension_schema}, pg_temp
SET plan_cache_mode = force_custom_plan
-- The planner does not know what it costs to read vectors, which are stored apart from their rows: no plan but the one
-- in the index's order may be chosen, and what it makes of the rest is no reason to compile.
SET enable_sort = off
SET jit = off
-- pgvector's 40 find 8 or 9 of the right 10 in 100,000 vectors of 1536 dimensions.
SET hnsw.ef_search = 400
SET hnsw.iterative_scan = relaxed_order
SET ivfflat.iterative_scan = relaxed_order
SET ivfflat.probes = 10
AS $$
DECLARE
    zero CONSTANT double precision := 0;
BEGIN
    -- Lasts as long as this function, because it pins the same setting.
    PERFORM set_config('ivfflat.probes', greatest(10, p_lists / 5)::text, true);
    RETURN ARRAY(
        SELECT n.id
        FROM (
            SELECT e.id, e.key, e.chunk, e.embedding @{distance} p_embedding AS distance
            FROM @{schema}.memory_embeddings e
            WHERE e.dataset = p_dataset
              AND (p_filter IS NULL OR e.metadata @> p_filter)
              AND (e.expires_at IS NULL OR e.expires_at > now())
            ORDER BY e.embedding @{distance} p_embedding
            LIMIT 4 * p_limit
        ) n
        -- The 0, because the planner takes an approximate order for one.
        ORDER BY n.distance + zero, n.key COLLATE "C", n.chunk
        LIMIT p_limit
    );
END
$$;
COMMENT ON FUNCTION
    @{schema}.memory_nearest_by_index(text, @{extension_schema}.vector, bigint, jsonb, integer) IS 'memory: read';

-- The ids of the nearest embeddings, in no order. Exact, unless the dataset's index is ready; and exact with it when
-- a filter lets so few rows through that sorting them is quick, because an approximate scan would pass most of those by.
-- Whatever it finds too few of is searched exactly as well.
CREATE OR REPLACE FUNCTION @{schema}.memory_nearest(
    p_dataset text, p_embedding @{extension_schema}.vector, p_limit bigint, p_filter jsonb
) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = @{schema}, @{extension_schema}, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    -- As many rows as are sorted within some 20 ms once they are in memory.
    few CONSTANT integer := least(20000, 5000 * 1536 / vector_dims(p_embedding));
    matching tid[];
    found_ids uuid[];
    lists integer;
    zero CONSTANT double precision := 0;
BEGIN
    SELECT coalesce((SELECT o.option_value FROM pg_options_to_table(c.reloptions) o WHERE o.option_name = 'lists')::integer, 100)
    INTO lists
    FROM @{schema}.memory_datasets d, pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_am a ON a.oid = c.relam
    WHERE d.dataset = p_dataset AND d.index_state = 'ready'
      AND i.indrelid = '@{schema}.memory_embeddings'::regclass AND i.indisvalid AND a.amname IN ('hnsw', 'ivfflat')
    LIMIT 1;
    IF FOUND THEN
        IF p_filter IS NOT NULL THEN
            matching := ARRAY(
                SELECT e.ctid
                FROM @{schema}.memory_embeddings e
                WHERE e.dataset = p_dataset
                  AND e.metadata @> p_filter
                  AND (e.expires_at IS NULL OR e.expires_at > now())
                LIMIT few + 1
            );
            IF cardinality(matching) <= few THEN
                RETURN ARRAY(
                    SELECT e.id
                    FROM @{schema}.memory_embeddings e
                    WHERE e.dataset = p_dataset AND e.ctid = ANY (matching)
                    ORDER BY (e.embedding @{distance} p_embedding) + zero, e.key COLLATE "C", e.chunk
                    LIMIT p_limit
                );
            END IF;
        END IF;
        found_ids := @{schema}.memory_nearest_by_index(p_dataset, p_embedding, p_limit, p_filter, lists);
        IF cardinality(found_ids) = p_limit THEN
            RETURN found_ids;
        END IF;
    END IF;
    RETURN ARRAY(
        SELECT e.id
        FROM @{schema}.memory_embeddings e
        WHERE e.dataset = p_dataset
          AND (p_filter IS NULL OR e.metadata @> p_filter)
          AND (e.expires_at IS NULL OR e.expires_at > now())
        -- No index gives this order, because of the 0.
        ORDER BY (e.embedding @{distance} p_embedding) + zero, e.key COLLATE "C", e.chunk
        LIMIT p_limit
    );
END
$$;
