-- Everything lives in the schema that the search path names first (`albertine` unless configured).
-- Changes to this schema only expand or contract: add first, move the program over, drop in a later
-- release, so that two versions of the program can run side by side.

CREATE TABLE checkpoints (
    stream           text        NOT NULL,
    topic            text        NOT NULL,
    partition        integer     NOT NULL,
    owner            uuid,
    position         bigint      NOT NULL,
    generation       bigint      NOT NULL DEFAULT 1,
    timestamp_ms_max bigint      NOT NULL DEFAULT 0,
    created_at       timestamptz NOT NULL DEFAULT now(),
    claimed_at       timestamptz,
    stored_at        timestamptz,
    PRIMARY KEY (stream, topic, partition)
);
COMMENT ON TABLE checkpoints IS 'How far each partition is stored, and which worker may store more. A batch is only written by the owner, and only from the position onward.';
COMMENT ON COLUMN checkpoints.owner IS 'Fresh for every claim; a worker that finds another value here stops writing.';
COMMENT ON COLUMN checkpoints.position IS 'The next offset to read: everything below it is stored.';
COMMENT ON COLUMN checkpoints.generation IS 'Incarnation of the topic; a recreated topic outranks its predecessor.';
COMMENT ON COLUMN checkpoints.timestamp_ms_max IS 'Running maximum of the record timestamps, in milliseconds since 1970; part of every document''s version.';

CREATE TABLE documents (
    stream      text        NOT NULL,
    document_id text        NOT NULL,
    item        text,
    "user"      text,
    rating      double precision,
    occurred_at timestamptz,
    produced_at timestamptz,
    version     bigint[]    NOT NULL CHECK (cardinality(version) = 4),
    deleted     boolean     NOT NULL DEFAULT false,
    stored_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, document_id)
);
COMMENT ON TABLE documents IS 'One row a document ever seen, at its newest version. The row is the lock and the authority on order; a deleted document keeps it, so that an older record cannot bring the document back.';
COMMENT ON COLUMN documents.version IS '[generation, timestamp_ms, partition, offset], compared in this order; the newest wins.';
COMMENT ON COLUMN documents.rating IS 'A rating that came with the text, in the scale of its source.';
COMMENT ON COLUMN documents.occurred_at IS 'When the text was written, where the record says so.';
COMMENT ON COLUMN documents.produced_at IS 'The timestamp of the Kafka record.';
COMMENT ON COLUMN documents.stored_at IS 'When the row was written, which is when its labels became visible.';

CREATE TABLE labels (
    stream        text        NOT NULL,
    document_id   text        NOT NULL,
    task          text        NOT NULL,
    model         text        NOT NULL,
    model_version text        NOT NULL,
    label         text        NOT NULL,
    confidence    real        NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    probabilities real[]      NOT NULL,
    version       bigint[]    NOT NULL,
    labelled_at   timestamptz NOT NULL,
    PRIMARY KEY (stream, document_id, task, model)
);
COMMENT ON TABLE labels IS 'What each model says of each document. A row counts only while its version is the document''s; query current_labels.';
COMMENT ON COLUMN labels.probabilities IS 'One for each class, in the order of models.labels.';
COMMENT ON COLUMN labels.labelled_at IS 'When the model had answered.';

CREATE TABLE models (
    model         text        NOT NULL,
    model_version text        NOT NULL,
    task          text        NOT NULL,
    labels        text[]      NOT NULL,
    registered_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model, model_version)
);
COMMENT ON TABLE models IS 'The models that have run here, with their classes in order.';

CREATE TABLE promotions (
    stream      text        NOT NULL,
    task        text        NOT NULL,
    model       text        NOT NULL,
    promoted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (stream, task)
);
COMMENT ON TABLE promotions IS 'Whose labels the views show, for each stream and task: the first model of that task in the stream''s configuration.';

CREATE TABLE rejections (
    stream      text        NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    "offset"    bigint      NOT NULL,
    stage       text        NOT NULL,
    reason      text        NOT NULL,
    message     text        NOT NULL,
    produced_at timestamptz,
    rejected_at timestamptz NOT NULL DEFAULT now()
) PARTITION BY RANGE (rejected_at);
COMMENT ON TABLE rejections IS 'Records that could not be labelled, and why; append-only, in monthly partitions that the program makes and retires.';
COMMENT ON COLUMN rejections.stage IS 'decode, tokenize, infer or store.';
COMMENT ON COLUMN rejections.reason IS 'A stable word to group by.';
CREATE INDEX rejections_place ON rejections (stream, topic, partition, "offset");

CREATE VIEW current_labels AS
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
    labels.labelled_at
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
COMMENT ON VIEW current_labels IS 'One row for each stream, document and task: the label of the promoted model at the document''s newest version.';

-- The score of a document is the probability of `positive` less that of `negative`. The bounds are Wilson's
-- score interval (1927) on the mean score moved to [0, 1], with z for 95%: valid from one document on, and
-- on the wide side, since a score varies no more than a coin of the same mean.
CREATE VIEW item_sentiment AS
WITH scored AS (
    SELECT
        current_labels.stream,
        current_labels.item,
        current_labels.label,
        ((probabilities ->> 'positive')::double precision
            - (probabilities ->> 'negative')::double precision) AS score
    FROM current_labels
    WHERE task = 'sentiment' AND item IS NOT NULL
), summed AS (
    SELECT
        stream,
        item,
        count(*) AS documents,
        count(*) FILTER (WHERE label = 'negative') AS negative,
        count(*) FILTER (WHERE label = 'neutral') AS neutral,
        count(*) FILTER (WHERE label = 'positive') AS positive,
        avg(score) AS mean_score,
        (avg(score) + 1) / 2 AS share,
        1.959963985 ^ 2 / count(*) AS z2n
    FROM scored
    GROUP BY stream, item
)
SELECT
    stream,
    item,
    documents,
    negative,
    neutral,
    positive,
    mean_score,
    2 * (share + z2n / 2 - sqrt(greatest(z2n * (share * (1 - share) + z2n / 4), 0))) / (1 + z2n) - 1 AS score_low,
    2 * (share + z2n / 2 + sqrt(greatest(z2n * (share * (1 - share) + z2n / 4), 0))) / (1 + z2n) - 1 AS score_high
FROM summed;
COMMENT ON VIEW item_sentiment IS 'What readers feel about each item: counts of labels, the mean score from -1 to 1, and its 95% interval.';
