-- Which products' readers are unhappiest, counting only what 95% certainty leaves of it?
SELECT item, documents, negative, positive,
    round(mean_score::numeric, 2) AS mean_score,
    round(-score_high::numeric, 2) AS unhappy_at_least
FROM albertine.item_sentiment
WHERE stream = 'reviews' AND documents >= 5
ORDER BY unhappy_at_least DESC, item
LIMIT 5;
