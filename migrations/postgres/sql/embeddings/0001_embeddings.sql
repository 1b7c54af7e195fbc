-- Embeddings with their text. There is no approximate index: on an empty table it would cost every load and answer
-- worse, so it comes when the data has earned it (memory_embeddings_vector_idx).

CREATE TABLE @{schema}.memory_embeddings (
    dataset text NOT NULL,
    id uuid NOT NULL,
    key text NOT NULL,
    chunk integer NOT NULL DEFAULT 0 CHECK (chunk >= 0),
    content text,
    -- The dimension stands here and in memory_datasets only: on an empty table it may change.
    embedding @{vector_type}(@{dimension}) NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    tsv tsvector GENERATED ALWAYS AS (to_tsvector(@{search_config}::regconfig, coalesce(content, ''))) STORED,
    hold boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (dataset, id)
);

CREATE UNIQUE INDEX memory_embeddings_dataset_key_idx ON @{schema}.memory_embeddings (dataset, key, chunk);

-- Words are looked up in this index. metadata has none: a filter is applied while a dataset is scanned anyway, and an
-- index on it would cost every write.
CREATE INDEX memory_embeddings_tsv_idx ON @{schema}.memory_embeddings USING gin (tsv);

DO $$
BEGIN
    EXECUTE format(
        'ALTER TABLE @{schema}.memory_embeddings ALTER COLUMN id SET DEFAULT pg_catalog.%s',
        CASE
            WHEN current_setting('server_version_num')::integer >= 180000 THEN 'uuidv7()' ELSE 'gen_random_uuid()'
        END
    );
END
$$;

CREATE TRIGGER memory_embeddings_hold
    BEFORE UPDATE OR DELETE ON @{schema}.memory_embeddings
    FOR EACH ROW EXECUTE FUNCTION @{schema}.memory_refuse_held('rows');
CREATE TRIGGER memory_embeddings_hold_truncate
    BEFORE TRUNCATE ON @{schema}.memory_embeddings
    FOR EACH STATEMENT EXECUTE FUNCTION @{schema}.memory_refuse_truncate('rows');

UPDATE @{schema}.memory_datasets
SET embedding_dimension = @{dimension}, metric = @{metric}, index_state = 'exact'
WHERE dataset = @{dataset};

-- A vector that the dataset can hold: of its dimension, and with a direction where only that counts.
CREATE FUNCTION @{schema}.memory_require_embedding(p_dataset text, p_embedding @{extension_schema}.vector) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = @{schema}, @{extension_schema}, pg_temp
AS $$
DECLARE
    expected integer;
    metric text;
BEGIN
    SELECT d.embedding_dimension, d.metric INTO expected, metric
    FROM @{schema}.memory_datasets d WHERE d.dataset = p_dataset;
    IF expected IS DISTINCT FROM @{extension_schema}.vector_dims(p_embedding) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'MM003',
            MESSAGE = format(
                'the embedding has %s dimensions, dataset %L has %s',
                @{extension_schema}.vector_dims(p_embedding), p_dataset, coalesce(expected::text, 'no embeddings')
            ),
            HINT = 'Use the model that the dataset was made for, or change embeddings.dimension while it is empty.';
    END IF;
    IF metric = 'cosine' AND @{extension_schema}.vector_norm(p_embedding) = 0::double precision THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'the embedding is all zeros: it has no direction, and so no cosine distance to anything';
    END IF;
END
$$;
COMMENT ON FUNCTION @{schema}.memory_require_embedding(text, @{extension_schema}.vector) IS 'memory: read';

-- Makes or replaces the chunk; id, created_at and hold stay. Sent twice it is the same as sent once.
CREATE FUNCTION @{schema}.memory_upsert_embedding(
    p_dataset text,
    p_key text,
    p_embedding @{extension_schema}.vector,
    p_content text DEFAULT NULL,
    p_metadata jsonb DEFAULT '{}',
    p_chunk integer DEFAULT 0,
    p_ttl interval DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql
SET search_path = @{schema}, @{extension_schema}, pg_temp
AS $$
DECLARE
    stored uuid;
    expiry CONSTANT timestamptz := @{schema}.memory_expiry(p_ttl);
BEGIN
    PERFORM @{schema}.memory_require_dataset(p_dataset);
    IF p_embedding IS NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'null_value_not_allowed',
            MESSAGE = format('the embedding of key %L is NULL: give a vector', p_key);
    END IF;
    PERFORM @{schema}.memory_require_embedding(p_dataset, p_embedding);
    INSERT INTO @{schema}.memory_embeddings AS e (dataset, key, chunk, content, embedding, metadata, expires_at)
    VALUES (p_dataset, p_key, coalesce(p_chunk, 0), p_content, p_embedding, coalesce(p_metadata, '{}'), expiry)
    ON CONFLICT (dataset, key, chunk) DO UPDATE
    SET content = excluded.content, embedding = excluded.embedding, metadata = excluded.metadata,
        updated_at = now(), expires_at = excluded.expires_at
    RETURNING e.id INTO stored;
    RETURN stored;
END
$$;

-- Deletes all chunks of a key and returns how many there were.
CREATE FUNCTION @{schema}.memory_delete_embedding(p_dataset text, p_key text) RETURNS integer
LANGUAGE plpgsql
SET search_path = @{schema}, @{extension_schema}, pg_temp
AS $$
DECLARE
    deleted integer;
BEGIN
    PERFORM @{schema}.memory_require_dataset(p_dataset);
    DELETE FROM @{schema}.memory_embeddings e WHERE e.dataset = p_dataset AND e.key = p_key;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;
