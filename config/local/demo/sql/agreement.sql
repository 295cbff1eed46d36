-- How the model agrees with the mean of 20 raters (-4 to 4), cut into three classes at -0.5 and 0.5.
-- Accuracy with Wilson's 95% interval. Macro-F1 with a percentile bootstrap: resampling documents changes the
-- cells of the 3x3 table like independent Poisson counts, drawn here as rounded normal ones of the same mean
-- and variance, 2,000 times from a fixed seed. Both take sentences for independent; those of one review are not
-- quite, so the true intervals are a little wider. `most frequent`: the accuracy of always saying that class.
SELECT setseed(0.5) \g /dev/null
WITH rated AS (
    SELECT
        source,
        CASE WHEN texts.rating < -0.5 THEN 'negative' WHEN texts.rating > 0.5 THEN 'positive' ELSE 'neutral' END AS truth,
        label
    FROM demo.texts
    JOIN albertine.current_labels USING (stream, document_id)
    WHERE task = 'sentiment' AND source IN ('product', 'newspaper')
), cells AS MATERIALIZED (
    SELECT source, truth, label, count(*)::double precision AS n
    FROM rated GROUP BY source, truth, label ORDER BY source, truth, label
), drawn AS MATERIALIZED (
    -- Replicate 0 is the table itself.
    SELECT replicate, source, truth, label,
        CASE WHEN replicate = 0 THEN n ELSE greatest(0, round(random_normal(n, sqrt(n)))) END AS n
    FROM generate_series(0, 2000) AS replicate CROSS JOIN cells
), classes AS (
    SELECT replicate, source, class,
        2 * sum(n) FILTER (WHERE truth = class AND label = class)
            / nullif(sum(n) FILTER (WHERE truth = class) + sum(n) FILTER (WHERE label = class), 0) AS f1
    FROM drawn CROSS JOIN unnest(ARRAY['negative', 'neutral', 'positive']) AS class
    GROUP BY replicate, source, class
), macro AS (
    SELECT replicate, source, sum(coalesce(f1, 0)) / 3 AS f1 FROM classes GROUP BY replicate, source
), f1 AS (
    SELECT source,
        max(f1) FILTER (WHERE replicate = 0) AS f1,
        percentile_cont(0.025) WITHIN GROUP (ORDER BY f1) FILTER (WHERE replicate > 0) AS low,
        percentile_cont(0.975) WITHIN GROUP (ORDER BY f1) FILTER (WHERE replicate > 0) AS high
    FROM macro GROUP BY source
), accuracy AS (
    SELECT source, count(*) AS n, avg((truth = label)::integer)::double precision AS p, 1.959964 ^ 2 AS z2,
        greatest(count(*) FILTER (WHERE truth = 'negative'), count(*) FILTER (WHERE truth = 'neutral'),
            count(*) FILTER (WHERE truth = 'positive'))::double precision / count(*) AS most_frequent
    FROM rated GROUP BY source
)
SELECT
    source AS texts,
    n AS sentences,
    to_char(p, '0.000') AS accuracy,
    to_char((p + z2 / (2 * n) - sqrt(z2 * (p * (1 - p) + z2 / (4 * n)) / n)) / (1 + z2 / n), '0.000') || ' to'
        || to_char((p + z2 / (2 * n) + sqrt(z2 * (p * (1 - p) + z2 / (4 * n)) / n)) / (1 + z2 / n), '0.000') AS "95%",
    to_char(f1.f1, '0.000') AS "macro-F1",
    to_char(low, '0.000') || ' to' || to_char(high, '0.000') AS "95% ",
    to_char(most_frequent, '0.000') AS "most frequent"
FROM accuracy JOIN f1 USING (source)
ORDER BY source DESC;
