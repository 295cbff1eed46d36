-- Backfills: jobs that label the records of files, cut into shards that workers share out among each other.
-- Only adds: a program that knows nothing of it still reads and writes.

CREATE TABLE backfill_jobs (
    job         text        PRIMARY KEY,
    stream      text        NOT NULL,
    state       text        NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'cancelled', 'finished')),
    rank        text        NOT NULL CHECK (rank IN ('oldest', 'newest')),
    generation  bigint      NOT NULL,
    publishes   boolean     NOT NULL,
    key_field   text        NOT NULL,
    fields      text[]      NOT NULL,
    created_at  timestamptz NOT NULL,
    finished_at timestamptz
);
COMMENT ON TABLE backfill_jobs IS 'Backfills: files that are labelled through a stream''s models. How far each shard is stored is its row of checkpoints, under the topic backfill/<job>.';
COMMENT ON COLUMN backfill_jobs.state IS 'running: workers may take its shards. paused and cancelled: somebody decided so; what is stored stays. finished: no shard is open.';
COMMENT ON COLUMN backfill_jobs.rank IS 'oldest: its records rank below everything that came live, and above earlier backfills. newest: as if they had come live when the job was created.';
COMMENT ON COLUMN backfill_jobs.generation IS 'The first part of its records'' versions; the second is created_at in milliseconds, then shard and number of the record.';
COMMENT ON COLUMN backfill_jobs.publishes IS 'Whether its labels go to the stream''s live topic too.';
COMMENT ON COLUMN backfill_jobs.key_field IS 'The field that becomes a record''s key, for streams whose id is the key.';
COMMENT ON COLUMN backfill_jobs.fields IS 'Where fields lie in the files other than in the stream''s topic, as name=path.';

CREATE TABLE backfill_shards (
    job           text        NOT NULL REFERENCES backfill_jobs ON DELETE CASCADE,
    shard         integer     NOT NULL,
    state         text        NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'finished', 'failed')),
    file          text        NOT NULL,
    format        text        NOT NULL,
    range_start   bigint      NOT NULL,
    range_end     bigint      NOT NULL,
    before        bigint      NOT NULL,
    file_bytes    bigint      NOT NULL,
    file_modified timestamptz NOT NULL,
    bytes         bigint      NOT NULL,
    bytes_read    bigint      NOT NULL DEFAULT 0,
    records       bigint,
    records_max   bigint,
    holder        uuid,
    lease_until   timestamptz,
    error         text,
    ended_at      timestamptz,
    PRIMARY KEY (job, shard)
);
COMMENT ON TABLE backfill_shards IS 'The parts of a backfill that one worker at a time works on. The shard is the partition of its checkpoint, the number of a record in it the offset.';
COMMENT ON COLUMN backfill_shards.state IS 'failed: the file cannot be read, or not any further; what stands before that place is labelled.';
COMMENT ON COLUMN backfill_shards.range_start IS 'First byte of a file of lines, first row group of a Parquet file; range_end is the one after the last.';
COMMENT ON COLUMN backfill_shards.before IS 'Lines or rows of the file that stand before the shard.';
COMMENT ON COLUMN backfill_shards.file_modified IS 'With file_bytes: if they differ, it is another file than the one the job was made for.';
COMMENT ON COLUMN backfill_shards.records IS 'How many records it has, once that is known.';
COMMENT ON COLUMN backfill_shards.records_max IS 'No more than so many are read; null for all.';
COMMENT ON COLUMN backfill_shards.holder IS 'The owner in its checkpoint that works on it. Whose time is over may be replaced by anybody; its batches are fenced then.';
COMMENT ON COLUMN backfill_shards.error IS 'Why it failed, with the place in the file.';
CREATE INDEX backfill_shards_open ON backfill_shards (job, shard) WHERE state = 'open';
