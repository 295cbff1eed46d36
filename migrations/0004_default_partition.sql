-- Rejections for a role that may not make partitions.
-- Only adds: a program that knows nothing of it still reads and writes.

CREATE TABLE rejections_default PARTITION OF rejections DEFAULT;
COMMENT ON TABLE rejections_default IS 'Rejections of months without a partition: those of a program whose role does not own the tables. It deletes rows beyond the retention instead of dropping partitions.';
COMMENT ON TABLE rejections IS 'Records that could not be labelled, where they stood, and why; in monthly partitions that the program makes and retires where its role owns the table. Only its state changes.';
