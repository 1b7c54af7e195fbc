-- The event log: append-only, partitioned by time so that old data goes by dropping a partition.

CREATE TABLE @{schema}.memory_events (
    dataset text NOT NULL,
    id uuid NOT NULL,
    event_type text NOT NULL,
    payload jsonb NOT NULL,
    hold boolean NOT NULL DEFAULT false,
    -- Not now(): events of one transaction keep their order.
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (dataset, created_at, id)
) PARTITION BY RANGE (created_at);

-- What producers retry on: a partitioned table cannot be unique on (dataset, event_id).
CREATE TABLE @{schema}.memory_event_ids (
    dataset text NOT NULL,
    source text NOT NULL,
    event_id text NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (dataset, source, event_id)
);

DO $$
DECLARE
    generator CONSTANT text := CASE
        WHEN current_setting('server_version_num')::integer >= 180000 THEN 'uuidv7()' ELSE 'gen_random_uuid()'
    END;
BEGIN
    EXECUTE format('ALTER TABLE @{schema}.memory_events ALTER COLUMN id SET DEFAULT pg_catalog.%s', generator);
    EXECUTE format('ALTER TABLE @{schema}.memory_event_ids ALTER COLUMN id SET DEFAULT pg_catalog.%s', generator);
END
$$;

CREATE TRIGGER memory_events_hold
    BEFORE UPDATE OR DELETE ON @{schema}.memory_events
    FOR EACH ROW EXECUTE FUNCTION @{schema}.memory_refuse_held('rows');
CREATE TRIGGER memory_events_hold_truncate
    BEFORE TRUNCATE ON @{schema}.memory_events
    FOR EACH STATEMENT EXECUTE FUNCTION @{schema}.memory_refuse_truncate('rows');

CREATE TABLE @{schema}.memory_events_default PARTITION OF @{schema}.memory_events DEFAULT;
CREATE TRIGGER memory_events_hold_truncate
    BEFORE TRUNCATE ON @{schema}.memory_events_default
    FOR EACH STATEMENT EXECUTE FUNCTION @{schema}.memory_refuse_truncate('rows');

-- Makes the partitions of this month (UTC) and of p_months after it that are not there; returns how many it made.
-- Attached rather than created in place: that blocks neither readers nor writers of the other partitions. A month whose
-- rows stand in DEFAULT already, or that other partitions cover, is left as it is: its events are where reads find them.
-- Where the parent has row-level security, a partition gets it too, and without a policy nobody reads around the parent.
CREATE FUNCTION @{schema}.memory_ensure_event_partitions(p_months integer DEFAULT 12) RETURNS integer
LANGUAGE plpgsql
SET search_path = @{schema}, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    this_month CONSTANT timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    month timestamp;
    name text;
    made integer := 0;
    guarded CONSTANT boolean := c.relrowsecurity FROM pg_class c WHERE c.oid = '@{schema}.memory_events'::regclass;
BEGIN
    LOCK TABLE @{schema}.memory_events IN SHARE UPDATE EXCLUSIVE MODE;
    FOR ahead IN 0 .. p_months LOOP
        month := this_month + make_interval(months => ahead);
        name := to_char(month, '"memory_events_"YYYYMM');
        CONTINUE WHEN to_regclass(format('@{schema}.%I', name)) IS NOT NULL;
        BEGIN
            EXECUTE format('CREATE TABLE @{schema}.%I (LIKE @{schema}.memory_events INCLUDING ALL)', name);
            EXECUTE format(
                'ALTER TABLE @{schema}.memory_events ATTACH PARTITION @{schema}.%I FOR VALUES FROM (%L) TO (%L)',
                name, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC'
            );
            EXECUTE format(
                'CREATE TRIGGER memory_events_hold_truncate BEFORE TRUNCATE ON @{schema}.%I '
                'FOR EACH STATEMENT EXECUTE FUNCTION @{schema}.memory_refuse_truncate(''rows'')', name
            );
            IF guarded THEN
                EXECUTE format('ALTER TABLE @{schema}.%I ENABLE ROW LEVEL SECURITY', name);
            END IF;
            made := made + 1;
        EXCEPTION WHEN check_violation OR invalid_object_definition THEN
            RAISE WARNING 'no partition % was made: %', name, SQLERRM;
        END;
    END LOOP;
    RETURN made;
END
$$;

SELECT @{schema}.memory_ensure_event_partitions();

CREATE FUNCTION @{schema}.memory_append(
    p_dataset text, p_event_type text, p_payload jsonb, p_event_id text DEFAULT NULL, p_source text DEFAULT ''
) RETURNS TABLE (id uuid, created_at timestamptz, duplicate boolean)
LANGUAGE plpgsql
SET search_path = @{schema}, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    PERFORM @{schema}.memory_require_dataset(p_dataset);
    IF p_event_id IS NULL THEN
        RETURN QUERY
            INSERT INTO @{schema}.memory_events AS e (dataset, event_type, payload)
            VALUES (p_dataset, p_event_type, p_payload)
            RETURNING e.id, e.created_at, false;
        RETURN;
    END IF;
    LOOP
        -- Waits for another client that is appending the same event, until that one commits or gives up.
        INSERT INTO @{schema}.memory_event_ids AS known (dataset, source, event_id)
        VALUES (p_dataset, coalesce(p_source, ''), p_event_id)
        ON CONFLICT DO NOTHING
        RETURNING known.id, known.created_at INTO id, created_at;
        duplicate := NOT FOUND;
        IF duplicate THEN
            SELECT known.id, known.created_at INTO id, created_at
            FROM @{schema}.memory_event_ids known
            WHERE known.dataset = p_dataset AND known.source = coalesce(p_source, '') AND known.event_id = p_event_id;
        END IF;
        EXIT WHEN FOUND;  -- not found: retention took the row between the two statements
    END LOOP;
    IF NOT duplicate THEN
        INSERT INTO @{schema}.memory_events (dataset, id, event_type, payload, created_at)
        VALUES (p_dataset, id, p_event_type, p_payload, created_at);
    END IF;
    RETURN NEXT;
END
$$;

-- Newest first. For the next page give created_at and id of the last row as p_before and p_before_id. Filtering by type
-- walks the primary key too: an index of its own would cost every append, and is not earned yet.
CREATE FUNCTION @{schema}.memory_read(
    p_dataset text,
    p_limit integer DEFAULT 50,
    p_before timestamptz DEFAULT NULL,
    p_before_id uuid DEFAULT NULL,
    p_event_type text DEFAULT NULL
) RETURNS TABLE (id uuid, event_type text, payload jsonb, created_at timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = @{schema}, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    wanted CONSTANT bigint := @{schema}.memory_require_limit(p_limit, 50);
    nil CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    PERFORM @{schema}.memory_require_dataset(p_dataset);
    IF p_before IS NULL AND p_before_id IS NOT NULL THEN
        RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('p_before_id is %s and p_before is NULL: give both, as the last row read has them', p_before_id);
    END IF;
    RETURN QUERY
        SELECT e.id, e.event_type, e.payload, e.created_at
        FROM @{schema}.memory_events e
        WHERE e.dataset = p_dataset
          AND (p_event_type IS NULL OR e.event_type = p_event_type)
          AND (p_before IS NULL OR e.created_at <= p_before)  -- a comparison of rows prunes no partition, this does
          AND (p_before IS NULL OR (e.created_at, e.id) < (p_before, coalesce(p_before_id, nil)))
        ORDER BY e.created_at DESC, e.id DESC
        LIMIT wanted;
END
$$;
COMMENT ON FUNCTION @{schema}.memory_read(text, integer, timestamptz, uuid, text) IS 'memory: read';
