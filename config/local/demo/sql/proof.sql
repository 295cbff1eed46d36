-- For each stream and each task of its models: texts sent, labels, and what must be zero.
SELECT
    texts.stream,
    task,
    count(*) AS texts,
    count(labels.document_id) AS labelled,
    count(*) FILTER (WHERE labels.document_id IS NULL) AS lost,
    count(*) FILTER (WHERE labels.rows > 1) AS "labelled twice",
    (SELECT count(*) FROM albertine.rejections WHERE rejections.stream = texts.stream) AS rejected
FROM demo.texts
JOIN albertine.promotions USING (stream)
LEFT JOIN (
    SELECT stream, document_id, task, count(*) AS rows
    FROM albertine.current_labels
    GROUP BY stream, document_id, task
) AS labels USING (stream, document_id, task)
GROUP BY texts.stream, task
ORDER BY texts.stream DESC, task;
