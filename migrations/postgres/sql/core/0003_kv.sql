-- Keys and values with compare-and-set.

-- Room in each page and no index on anything that an update changes: then updates are heap-only (HOT).
CREATE TABLE @{schema}.memory_kv (
    dataset text NOT NULL,
    key text NOT NULL,
    value jsonb NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    PRIMARY KEY (dataset, key)
) WITH (fillfactor = 85);

CREATE TRIGGER memory_kv_hold
    BEFORE UPDATE OR DELETE ON @{schema}.memory_kv
    FOR EACH ROW EXECUTE FUNCTION @{schema}.memory_refuse_held();
CREATE TRIGGER memory_kv_hold_truncate
    BEFORE TRUNCATE ON @{schema}.memory_kv
    FOR EACH STATEMENT EXECUTE FUNCTION @{schema}.memory_refuse_truncate();

-- MM001 for a version that is not the stored one.
CREATE FUNCTION @{schema}.memory_version_conflict(p_dataset text, p_key text, p_expected_version bigint) RETURNS void
LANGUAGE plpgsql
SET search_path = @{schema}, pg_temp
AS $$
DECLARE
    stored bigint;
BEGIN
    SELECT k.version INTO stored
    FROM @{schema}.memory_kv k
    WHERE k.dataset = p_dataset AND k.key = p_key AND (k.expires_at IS NULL OR k.expires_at > now());
    RAISE EXCEPTION USING
        ERRCODE = 'MM001',
        MESSAGE = format('key %L has %s, not version %s', p_key, coalesce('version ' || stored, 'no value'), p_expected_version),
        HINT = 'Read it again and decide anew; expected version 0 means that the key must not exist.';
END
$$;

-- Returns the new version. An expired value is one that does not exist; its version still counts on, so that a client
-- that read it before it expired cannot take the new value for the old one.
CREATE FUNCTION @{schema}.memory_put(
    p_dataset text, p_key text, p_value jsonb, p_expected_version bigint DEFAULT NULL, p_ttl interval DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql
SET search_path = @{schema}, pg_temp
AS $$
DECLARE
    stored bigint;
    expiry CONSTANT timestamptz := @{schema}.memory_expiry(p_ttl);
BEGIN
    PERFORM @{schema}.memory_require_dataset(p_dataset);
    IF coalesce(p_expected_version, 0) = 0 THEN
        INSERT INTO @{schema}.memory_kv AS k (dataset, key, value, expires_at)
        VALUES (p_dataset, p_key, p_value, expiry)
        ON CONFLICT (dataset, key) DO UPDATE
        SET value = excluded.value, version = k.version + 1, updated_at = now(), expires_at = excluded.expires_at
        WHERE p_expected_version IS NULL OR k.expires_at <= now()
        RETURNING k.version INTO stored;
    ELSE
        -- Waits for whoever has the row and then looks at its version again: of two clients one finds none.
        UPDATE @{schema}.memory_kv k
        SET value = p_value, version = k.version + 1, updated_at = now(), expires_at = expiry
        WHERE k.dataset = p_dataset AND k.key = p_key AND k.version = p_expected_version
          AND (k.expires_at IS NULL OR k.expires_at > now())
        RETURNING k.version INTO stored;
    END IF;
    IF NOT FOUND THEN
        PERFORM @{schema}.memory_version_conflict(p_dataset, p_key, p_expected_version);
    END IF;
    RETURN stored;
END
$$;

CREATE FUNCTION @{schema}.memory_get(p_dataset text, p_key text)
RETURNS TABLE (value jsonb, version bigint, updated_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = @{schema}, pg_temp
AS $$
BEGIN
    PERFORM @{schema}.memory_require_dataset(p_dataset);
    RETURN QUERY
        SELECT k.value, k.version, k.updated_at
        FROM @{schema}.memory_kv k
        WHERE k.dataset = p_dataset AND k.key = p_key AND (k.expires_at IS NULL OR k.expires_at > now());
END
$$;
COMMENT ON FUNCTION @{schema}.memory_get(text, text) IS 'memory: read';

-- True when there was a value to delete. False and no conflict when there is none, whatever version is expected: a
-- delete that is sent twice does no harm.
CREATE FUNCTION @{schema}.memory_delete(p_dataset text, p_key text, p_expected_version bigint DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = @{schema}, pg_temp
AS $$
DECLARE
    was_live boolean;
BEGIN
    PERFORM @{schema}.memory_require_dataset(p_dataset);
    DELETE FROM @{schema}.memory_kv k
    WHERE k.dataset = p_dataset AND k.key = p_key
      AND (p_expected_version IS NULL OR k.version = p_expected_version)
    RETURNING k.expires_at IS NULL OR k.expires_at > now() INTO was_live;
    IF NOT FOUND AND EXISTS (SELECT FROM @{schema}.memory_get(p_dataset, p_key)) THEN
        PERFORM @{schema}.memory_version_conflict(p_dataset, p_key, p_expected_version);
    END IF;
    RETURN coalesce(was_live, false);
END
$$;
