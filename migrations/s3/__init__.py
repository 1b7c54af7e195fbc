"""S3: a prefix of a bucket, or a bucket, and users for each Memory."""
