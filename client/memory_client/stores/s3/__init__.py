"""S3: an object each for events, values and embeddings (docs/s3.md)."""

from memory_client.stores.s3.store import S3Store

__all__ = ["S3Store"]
