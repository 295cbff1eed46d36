-- For each stream: texts sent, labels, and what must be zero.
SELECT
    texts.stream,
    count(*) AS texts,
    count(labels.document_id) AS labelled,
    count(*) FILTER (WHERE labels.document_id IS NULL) AS lost,
    count(*) FILTER (WHERE labels.rows > 1) AS "labelled twice",
    (SELECT count(*) FROM albertine.rejections WHERE rejections.stream = texts.stream) AS rejected
FROM demo.texts
LEFT JOIN (
    SELECT stream, document_id, count(*) AS rows
    FROM albertine.current_labels
    WHERE task = 'sentiment'
    GROUP BY stream, document_id
) AS labels USING (stream, document_id)
GROUP BY texts.stream
ORDER BY texts.stream DESC;
