-- Looks every few milliseconds and reports each label once, when it can be seen. One statement that runs
-- until all have come: INFO messages reach the client at once, and each look takes a new snapshot. Texts are looked
-- up afterwards, or every look would read all of them.
SELECT set_config('demo.expected', :'expected', false) \g /dev/null
DO $$
DECLARE
    seen  text[] := '{}';
    row   record;
    until timestamptz := clock_timestamp() + interval '60 seconds';
BEGIN
    WHILE cardinality(seen) < current_setting('demo.expected')::integer AND clock_timestamp() < until LOOP
        FOR row IN
            SELECT stream, document_id, label, confidence,
                1000 * extract(epoch FROM clock_timestamp() - produced_at) AS latency_ms
            FROM albertine.current_labels
            JOIN albertine.documents USING (stream, document_id)
            WHERE task = 'sentiment' AND document_id <> ALL (seen)
            ORDER BY produced_at
        LOOP
            RAISE INFO E'%\t%\t%\t%', row.latency_ms::integer, row.label, round(row.confidence::numeric, 2),
                (SELECT text FROM demo.texts WHERE stream = row.stream AND document_id = row.document_id);
            seen := seen || row.document_id;
        END LOOP;
        PERFORM pg_sleep(0.003);
    END LOOP;
END
$$;
