-- The demo's own copy of the texts: the pipeline stores labels, not texts.
DROP SCHEMA IF EXISTS demo CASCADE;
CREATE SCHEMA demo;
CREATE TABLE demo.texts (
    stream      text NOT NULL,
    source      text NOT NULL,
    document_id text NOT NULL,
    rating      double precision NOT NULL,
    text        text NOT NULL
);
COPY demo.texts FROM STDIN;
