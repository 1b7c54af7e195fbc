"""Redis and Valkey: a stream, hashes and a vector set (docs/redis.md)."""

from memory_client.stores.redis.store import RedisStore

__all__ = ["RedisStore"]
