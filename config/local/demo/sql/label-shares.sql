-- What share does each label have in each stream?
SELECT stream, task, label, count(*) AS documents,
    round(100.0 * count(*) / sum(count(*)) OVER (PARTITION BY stream, task), 1) AS percent
FROM albertine.current_labels
GROUP BY stream, task, label
ORDER BY stream DESC, task, documents DESC;
