-- Rows on hold are few: retention and reports find them without reading the others.
CREATE INDEX memory_events_held_idx ON @{schema}.memory_events (dataset) WHERE hold;
