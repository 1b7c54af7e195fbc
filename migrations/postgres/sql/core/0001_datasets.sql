-- The registry: one row for each dataset that lives in this home (the owner's to write: a legal hold that a writer
-- could lift would be none), and what guards data on hold.

CREATE TABLE @{schema}.memory_datasets (
    dataset text NOT NULL PRIMARY KEY CHECK (dataset <> ''),
    -- Null until the embeddings module is there.
    embedding_dimension integer CHECK (embedding_dimension > 0),
    embedding_model text,
    metric text CHECK (metric IN ('cosine', 'l2', 'ip')),
    ttl_days integer NOT NULL DEFAULT 0 CHECK (ttl_days >= 0),
    legal_hold boolean NOT NULL DEFAULT false,
    index_state text CHECK (index_state IN ('exact', 'building', 'ready')),
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Refuses to delete, or to change the payload of, a row on hold. The argument 'rows' says that the table has a column
-- hold of its own. The payload is compared as a whole and in here: a trigger that named the embedding column could not
-- outlive a change of its dimension (ALTER TABLE … TYPE refuses columns that a trigger definition uses).
CREATE FUNCTION @{schema}.memory_refuse_held() RETURNS trigger
LANGUAGE plpgsql
SET search_path = @{schema}, pg_temp
AS $$
DECLARE
    -- What is no payload; tsv is generated, and not yet known in a BEFORE trigger.
    bookkeeping CONSTANT text[] := ARRAY['hold', 'version', 'updated_at', 'expires_at', 'tsv'];
    held boolean := false;
BEGIN
    IF TG_ARGV[0] = 'rows' THEN
        held := OLD.hold;
    END IF;
    IF NOT held THEN
        held := EXISTS (SELECT FROM @{schema}.memory_datasets d WHERE d.dataset = OLD.dataset AND d.legal_hold);
    END IF;
    IF NOT held THEN
        RETURN CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
    END IF;
    IF TG_OP = 'UPDATE' AND to_jsonb(OLD) - bookkeeping = to_jsonb(NEW) - bookkeeping THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'MM002',
        MESSAGE = format('cannot %s a row of %I: it is on hold in dataset %L', lower(TG_OP), TG_TABLE_NAME, OLD.dataset),
        HINT = 'Release the row''s hold, or the legal hold of the Memory, first.';
END
$$;

-- Row triggers do not see TRUNCATE. Statement triggers are not inherited by partitions: each partition has its own.
CREATE FUNCTION @{schema}.memory_refuse_truncate() RETURNS trigger
LANGUAGE plpgsql
SET search_path = @{schema}, pg_temp
AS $$
DECLARE
    held boolean := EXISTS (SELECT FROM @{schema}.memory_datasets d WHERE d.legal_hold);
BEGIN
    IF NOT held AND TG_ARGV[0] = 'rows' THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM %I.%I WHERE hold)', TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO held;
    END IF;
    IF held THEN
        RAISE EXCEPTION USING
            ERRCODE = 'MM002',
            MESSAGE = format('cannot truncate %I: it has rows on hold, or a dataset has a legal hold', TG_TABLE_NAME),
            HINT = 'Release the rows'' holds, or the legal hold of the Memory, first.';
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER memory_datasets_hold
    BEFORE DELETE ON @{schema}.memory_datasets
    FOR EACH ROW EXECUTE FUNCTION @{schema}.memory_refuse_held();
CREATE TRIGGER memory_datasets_hold_truncate
    BEFORE TRUNCATE ON @{schema}.memory_datasets
    FOR EACH STATEMENT EXECUTE FUNCTION @{schema}.memory_refuse_truncate();

-- First line of every function that clients call: a name that is not ours is an error and not an empty answer.
CREATE FUNCTION @{schema}.memory_require_dataset(p_dataset text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = @{schema}, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM @{schema}.memory_datasets d WHERE d.dataset = p_dataset) THEN
        RAISE EXCEPTION USING
            ERRCODE = 'MM004',
            MESSAGE = format('dataset %L is not one of this Memory', p_dataset),
            HINT = 'Its datasets: SELECT dataset FROM memory_datasets.';
    END IF;
END
$$;
COMMENT ON FUNCTION @{schema}.memory_require_dataset(text) IS 'memory: read';

-- What p_limit means wherever there is one.
CREATE FUNCTION @{schema}.memory_require_limit(p_limit integer, p_default integer) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE
SET search_path = @{schema}, pg_temp
AS $$
BEGIN
    IF p_limit < 1 THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('p_limit is %s: give a number from 1 on, or NULL for %s', p_limit, p_default);
    END IF;
    RETURN coalesce(p_limit, p_default);
END
$$;
COMMENT ON FUNCTION @{schema}.memory_require_limit(integer, integer) IS 'memory: read';

-- When something that lives for p_ttl from now on expires; null for ever.
CREATE FUNCTION @{schema}.memory_expiry(p_ttl interval) RETURNS timestamptz
LANGUAGE plpgsql STABLE
SET search_path = @{schema}, pg_temp
AS $$
BEGIN
    IF p_ttl <= interval '0' THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('p_ttl is %s: give an interval above 0, or NULL to keep it for ever', p_ttl);
    END IF;
    RETURN now() + p_ttl;
END
$$;

INSERT INTO @{schema}.memory_datasets (dataset, ttl_days, legal_hold)
VALUES (@{dataset}, @{ttl_days}, @{legal_hold});
