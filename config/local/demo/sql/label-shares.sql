-- What share does each label have in each stream?
SELECT stream, label, count(*) AS documents,
    round(100.0 * count(*) / sum(count(*)) OVER (PARTITION BY stream), 1) AS percent
FROM albertine.current_labels
WHERE task = 'sentiment'
GROUP BY stream, label
ORDER BY stream, documents DESC;
