-- What the subscribers of the live topics saw, and how it stands against what is stored.
CREATE TABLE demo.live (
    stream text  NOT NULL,
    record jsonb NOT NULL
);
CREATE VIEW demo.live_counts AS
WITH seen AS (
    SELECT stream, record ->> 'document_id' AS document_id, record ->> 'task' AS task, record ->> 'model' AS model,
        record ->> 'label' AS label, true AS is_seen
    FROM demo.live
), stored AS (
    SELECT stream, document_id, task, model, current_labels.label AS stored_label
    FROM albertine.current_labels
)
SELECT
    stream,
    count(is_seen) AS "live records",
    count(DISTINCT (document_id, task, model)) FILTER (WHERE is_seen) AS "distinct",
    count(*) FILTER (WHERE is_seen IS NULL) AS lost,
    count(is_seen) - count(DISTINCT (document_id, task, model)) FILTER (WHERE is_seen) AS twice,
    count(*) FILTER (WHERE is_seen AND (label = stored_label) IS NOT TRUE) AS "not as stored"
FROM stored
FULL JOIN seen USING (stream, document_id, task, model)
GROUP BY stream;
-- The lines of JSON hold no control characters, so these two separate and quote nothing that is in them.
COPY demo.live FROM STDIN WITH (FORMAT csv, DELIMITER E'\x02', QUOTE E'\x01');
