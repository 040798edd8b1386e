-- The images that a release's own stands on, by name (JSON): a newer one makes another build.
ALTER TABLE releases ADD COLUMN bases TEXT;

-- Each delivery went into, out of and again into an index that only the few kept ones need; and it led "which is due" astray.
DROP INDEX deliveries_by_state;
CREATE INDEX deliveries_kept ON deliveries (state) WHERE state IN ('quarantined', 'dead');
