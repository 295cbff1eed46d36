-- Live labels: the outbox that the publisher reads, and the sums that follow every batch.
-- Only adds: a program that knows nothing of it still reads and writes. Its labels would miss in the sums and on
-- the live topic, so stop older workers first, or run `albertine verify --repair` after the last one is gone.

ALTER TABLE checkpoints ADD COLUMN epoch bigint NOT NULL DEFAULT 1;
COMMENT ON COLUMN checkpoints.epoch IS 'Grows whenever the position is moved other than by storing: by an operator, or because the topic was recreated. Publishing goes in the order of (epoch, position).';
ALTER TABLE checkpoints ADD COLUMN topic_id text;
COMMENT ON COLUMN checkpoints.topic_id IS 'Kafka''s id of the topic that the position belongs to; another one means that the topic was recreated.';

ALTER TABLE labels ADD COLUMN depth smallint;
COMMENT ON COLUMN labels.depth IS 'How many times the model''s layer was applied; null for labels from before this was recorded.';

-- The records of a range, ready for Kafka. An array a column, one element a record, in the order in which they are
-- published.
CREATE TABLE outbox (
    stream       text        NOT NULL,
    topic        text        NOT NULL,
    partition    integer     NOT NULL,
    epoch        bigint      NOT NULL,
    range_start  bigint      NOT NULL,
    range_end    bigint      NOT NULL CHECK (range_end > range_start),
    offsets      bigint[]    NOT NULL,
    dead_letters boolean[]   NOT NULL,
    keys         bytea[]     NOT NULL,
    payloads     bytea[]     NOT NULL,
    headers      text[]      NOT NULL,
    bytes        bigint      NOT NULL,
    stored_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (stream, topic, partition, epoch, range_start)
);
COMMENT ON TABLE outbox IS 'What was stored and may not be published yet: one row a stored batch, written in its transaction. A row is deleted after its records are visible on the live topic.';
COMMENT ON COLUMN outbox.range_start IS 'First position of the batch in the source topic; range_end is the position after it.';
COMMENT ON COLUMN outbox.offsets IS 'The source offset of each record.';
COMMENT ON COLUMN outbox.dead_letters IS 'Whether each record goes to the dead letters instead of the labels.';
COMMENT ON COLUMN outbox.payloads IS 'The value of each record; null for a tombstone.';
COMMENT ON COLUMN outbox.headers IS 'A JSON array of [name, value] for each record; a value that is not text is {"hex": …}.';
COMMENT ON COLUMN outbox.bytes IS 'Size of keys and payloads together.';

-- What each model says of each item, summed. Probabilities are summed in millionths: whole numbers add up to
-- the same in any order, so that the sums equal a recount exactly.
CREATE TABLE item_sums (
    stream               text   NOT NULL,
    item                 text   NOT NULL,
    task                 text   NOT NULL,
    model                text   NOT NULL,
    label                text   NOT NULL,
    documents            bigint NOT NULL,
    probability_millions bigint NOT NULL,
    PRIMARY KEY (stream, item, task, model, label)
);
COMMENT ON TABLE item_sums IS 'For each item, model and class, as of the last fold: documents that have this label, and the sum of the probabilities of this class over all documents of the item, in millionths. Query item_labels, which adds what was not folded yet.';

CREATE TABLE item_deltas (
    stream               text   NOT NULL,
    item                 text   NOT NULL,
    task                 text   NOT NULL,
    model                text   NOT NULL,
    label                text   NOT NULL,
    documents            bigint NOT NULL,
    probability_millions bigint NOT NULL
);
COMMENT ON TABLE item_deltas IS 'Changes to item_sums, inserted by every batch in its transaction and folded by one worker, so that a popular item makes nobody wait.';

-- Sums from what is stored already.
INSERT INTO item_sums (stream, item, task, model, label, documents, probability_millions)
SELECT documents.stream, documents.item, labels.task, labels.model, class.name,
       count(*) FILTER (WHERE class.name = labels.label),
       sum(round(class.probability::double precision * 1000000)::bigint)
FROM documents
JOIN labels ON labels.stream = documents.stream
    AND labels.document_id = documents.document_id
    AND labels.version = documents.version
JOIN models USING (model, model_version)
CROSS JOIN LATERAL unnest(models.labels, labels.probabilities) AS class (name, probability)
WHERE documents.item IS NOT NULL AND NOT documents.deleted
GROUP BY documents.stream, documents.item, labels.task, labels.model, class.name;

CREATE VIEW item_labels AS
SELECT stream, item, task, model, label,
       sum(documents)::bigint AS documents,
       sum(probability_millions)::bigint AS probability_millions
FROM (SELECT * FROM item_sums UNION ALL SELECT * FROM item_deltas) AS parts
GROUP BY stream, item, task, model, label
HAVING sum(documents) <> 0 OR sum(probability_millions) <> 0;
COMMENT ON VIEW item_labels IS 'For each item, model and class: documents with this label, and the sum of the class''s probabilities over all documents of the item, in millionths. Equals a recount of labels at any moment.';

-- The score of a document is the probability of `positive` less that of `negative`. The bounds are Wilson's
-- score interval (1927) on the mean score moved to [0, 1], with z for 95%: valid from one document on, and
-- on the wide side, since a score varies no more than a coin of the same mean.
CREATE OR REPLACE VIEW item_sentiment AS
WITH counted AS (
    SELECT
        item_labels.stream,
        item_labels.item,
        sum(documents)::bigint AS documents,
        coalesce(sum(documents) FILTER (WHERE label = 'negative'), 0)::bigint AS negative,
        coalesce(sum(documents) FILTER (WHERE label = 'neutral'), 0)::bigint AS neutral,
        coalesce(sum(documents) FILTER (WHERE label = 'positive'), 0)::bigint AS positive,
        (coalesce(sum(probability_millions) FILTER (WHERE label = 'positive'), 0)
            - coalesce(sum(probability_millions) FILTER (WHERE label = 'negative'), 0))::double precision / 1000000 AS score
    FROM item_labels
    JOIN promotions ON promotions.stream = item_labels.stream
        AND promotions.task = item_labels.task
        AND promotions.model = item_labels.model
    WHERE item_labels.task = 'sentiment'
    GROUP BY item_labels.stream, item_labels.item
), summed AS (
    SELECT
        *,
        score / documents AS mean_score,
        (score / documents + 1) / 2 AS share,
        1.959963985 ^ 2 / documents AS z2n
    FROM counted
    WHERE documents > 0
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
