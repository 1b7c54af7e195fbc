"""Would an API server take this object? Asked offline, of the schemas that the API server itself would use.

Offline is not the real thing, so the case tables of `tests/apis` also run against a real API server (see there).
"""

from tests.schemas.catalog import ROOT, Catalog, catalog, definition, objects, published
from tests.schemas.crossplane import claim, composite
from tests.schemas.structural import Schema

__all__ = ["ROOT", "Catalog", "Schema", "catalog", "claim", "composite", "definition", "objects", "published"]
