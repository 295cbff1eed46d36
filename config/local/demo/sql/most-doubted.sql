-- Which documents does the model doubt most?
SELECT document_id, label, round(confidence::numeric, 3) AS confidence, left(text, 60) AS text_begins
FROM albertine.current_labels
JOIN demo.texts USING (stream, document_id)
WHERE task = 'sentiment'
ORDER BY current_labels.confidence, document_id
LIMIT 5;
