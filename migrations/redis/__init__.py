"""Redis and Valkey: a key prefix and ACL users for each Memory."""
