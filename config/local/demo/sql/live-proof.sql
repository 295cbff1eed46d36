-- For each stream: what its subscriber saw, and what must be zero.
SELECT * FROM demo.live_counts ORDER BY stream DESC;
