"""`maintain` on PostgreSQL: retention, partitions, indexes, dead rows and drift, of every home of a provider."""
