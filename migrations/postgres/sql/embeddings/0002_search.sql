-- Search by meaning, by words, or by both.

-- The ids of the nearest embeddings, in no order. With a valid approximate index the planner may use it; whatever that
-- finds too few of (a filter, or another dataset in the same index, hides most of what it visits) is searched exactly.
CREATE FUNCTION @{schema}.memory_nearest(
    p_dataset text, p_embedding @{extension_schema}.vector, p_limit bigint, p_filter jsonb
) RETURNS uuid[]
LANGUAGE plpgsql STABLE
SET search_path = @{schema}, @{extension_schema}, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    found_ids uuid[];
    zero CONSTANT double precision := 0;
BEGIN
    IF EXISTS (
        SELECT FROM pg_index i
        JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am a ON a.oid = c.relam
        WHERE i.indrelid = '@{schema}.memory_embeddings'::regclass AND i.indisvalid AND a.amname IN ('hnsw', 'ivfflat')
    ) THEN
        found_ids := ARRAY(
            SELECT e.id
            FROM @{schema}.memory_embeddings e
            WHERE e.dataset = p_dataset
              AND (p_filter IS NULL OR e.metadata @> p_filter)
              AND (e.expires_at IS NULL OR e.expires_at > now())
            ORDER BY e.embedding @{distance} p_embedding
            LIMIT p_limit
        );
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
COMMENT ON FUNCTION @{schema}.memory_nearest(text, @{extension_schema}.vector, bigint, jsonb) IS 'memory: read';

-- Reciprocal-rank fusion (Cormack et al. 2009): score = sum over both lists of 1 / (60 + rank). distance is the metric's
-- (for ip the negative inner product), null without p_embedding. Equal scores: the nearer first, then by key and chunk.
-- With both, each list is followed four times as deep as asked for, but at least to its 60th row.
CREATE FUNCTION @{schema}.memory_search(
    p_dataset text,
    p_embedding @{extension_schema}.vector DEFAULT NULL,
    p_query text DEFAULT NULL,
    p_limit integer DEFAULT 10,
    p_filter jsonb DEFAULT NULL
) RETURNS TABLE (
    id uuid,
    key text,
    chunk integer,
    content text,
    metadata jsonb,
    score double precision,
    distance double precision
)
LANGUAGE plpgsql STABLE
SET search_path = @{schema}, @{extension_schema}, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    wanted CONSTANT bigint := @{schema}.memory_require_limit(p_limit, 10);
    words CONSTANT tsquery := websearch_to_tsquery(@{search_config}::regconfig, nullif(btrim(p_query), ''));
    depth bigint := wanted;
    zero CONSTANT double precision := 0;
    nearest uuid[];
BEGIN
    PERFORM @{schema}.memory_require_dataset(p_dataset);
    IF p_embedding IS NULL AND words IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'nothing to search for: give p_embedding, p_query, or both';
    END IF;
    IF jsonb_typeof(p_filter) <> 'object' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('p_filter is %s: give a JSON object that the metadata must contain', p_filter);
    END IF;
    IF p_embedding IS NOT NULL THEN
        PERFORM @{schema}.memory_require_embedding(p_dataset, p_embedding);
        depth := CASE WHEN words IS NULL THEN wanted ELSE greatest(4 * wanted, 60) END;
        nearest := @{schema}.memory_nearest(p_dataset, p_embedding, depth, p_filter);
    END IF;
    RETURN QUERY
        WITH matching AS (
            SELECT e.id, e.key, e.chunk, ts_rank_cd(e.tsv, words) AS relevance
            FROM @{schema}.memory_embeddings e
            WHERE e.dataset = p_dataset AND e.tsv @@ words
              AND (p_filter IS NULL OR e.metadata @> p_filter)
              AND (e.expires_at IS NULL OR e.expires_at > now())
            ORDER BY relevance DESC, e.key COLLATE "C", e.chunk
            LIMIT depth
        ), ranked AS (
            -- Not by an index either: an approximate scan that is filtered by these ids may not come to all of them.
            SELECT e.id, row_number() OVER (
                ORDER BY (e.embedding @{distance} p_embedding) + zero, e.key COLLATE "C", e.chunk
            ) AS place
            FROM @{schema}.memory_embeddings e
            WHERE e.dataset = p_dataset AND e.id = ANY (nearest)
            UNION ALL
            SELECT m.id, row_number() OVER (ORDER BY m.relevance DESC, m.key COLLATE "C", m.chunk)
            FROM matching m
        ), fused AS (
            SELECT r.id, sum(1::double precision / (60 + r.place)::double precision) AS score FROM ranked r GROUP BY r.id
        )
        SELECT e.id, e.key, e.chunk, e.content, e.metadata, f.score, e.embedding @{distance} p_embedding
        FROM fused f
        JOIN @{schema}.memory_embeddings e ON e.dataset = p_dataset AND e.id = f.id
        ORDER BY f.score DESC, e.embedding @{distance} p_embedding, e.key COLLATE "C", e.chunk
        LIMIT wanted;
END
$$;
COMMENT ON FUNCTION @{schema}.memory_search(text, @{extension_schema}.vector, text, integer, jsonb) IS 'memory: read';
