-- Own data: the language of each text, and what becomes of a rejected record.
-- Only adds: a program that knows nothing of it still reads and writes.

ALTER TABLE documents ADD COLUMN language text;
COMMENT ON COLUMN documents.language IS 'The language of the text, as the record says or as detected: an ISO 639-1 code, or ISO 639-3 where there is none of two letters; null where it could not be told.';

ALTER TABLE rejections
    ADD COLUMN version bigint[],
    ADD COLUMN state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'discarded')),
    ADD COLUMN settled_at timestamptz;
COMMENT ON COLUMN rejections.version IS 'The version the record has beside others of its document, so that a replay never overwrites what is newer; null for rejections from before this was recorded.';
COMMENT ON COLUMN rejections.state IS 'open: waits for somebody to decide. replayed: it went through the stream again, whatever came of it. discarded: somebody decided to leave it.';
COMMENT ON COLUMN rejections.settled_at IS 'When it was replayed or discarded.';
COMMENT ON TABLE rejections IS 'Records that could not be labelled, where they stood, and why; in monthly partitions that the program makes and retires. Only its state changes.';

-- Apart from the rejections, since it holds texts: only where a stream asks for it, and no longer than it says.
CREATE TABLE rejected_records (
    stream     text        NOT NULL,
    topic      text        NOT NULL,
    partition  integer     NOT NULL,
    "offset"   bigint      NOT NULL,
    key        bytea,
    value      bytea,
    headers    text        NOT NULL,
    keep_until timestamptz NOT NULL,
    PRIMARY KEY (stream, topic, partition, "offset")
);
COMMENT ON TABLE rejected_records IS 'Rejected records as they came, of streams that keep them (streams.NAME.rejections.keep_records), until they are replayed, discarded, deleted or too old.';
COMMENT ON COLUMN rejected_records.headers IS 'A JSON array of [name, value]; a value that is not text is {"hex": …}.';
COMMENT ON COLUMN rejected_records.keep_until IS 'After this the row is removed.';
CREATE INDEX rejected_records_age ON rejected_records (keep_until);
-- By hash: a key may be longer than an entry of an ordered index.
CREATE INDEX rejected_records_key ON rejected_records USING hash (key);

CREATE OR REPLACE VIEW current_labels AS
SELECT
    documents.stream,
    documents.document_id,
    labels.task,
    labels.label,
    labels.confidence,
    (SELECT jsonb_object_agg(class.name, class.probability)
     FROM unnest(models.labels, labels.probabilities) AS class (name, probability)) AS probabilities,
    labels.model,
    documents.item,
    documents."user",
    documents.rating,
    documents.occurred_at,
    labels.labelled_at,
    documents.language
FROM documents
JOIN labels ON labels.stream = documents.stream
    AND labels.document_id = documents.document_id
    AND labels.version = documents.version
JOIN promotions ON promotions.stream = labels.stream
    AND promotions.task = labels.task
    AND promotions.model = labels.model
JOIN models ON models.model = labels.model
    AND models.model_version = labels.model_version
WHERE NOT documents.deleted;
