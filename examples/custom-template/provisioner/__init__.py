"""Prepares a backend for Memories: what the Jobs of a provider of type custom run (docs/custom.md)."""
