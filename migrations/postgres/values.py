"""What stands in place of `@{name}` in migration files."""

from dataclasses import dataclass

from psycopg import sql

from migrations.postgres import embeddings
from migrations.postgres.names import Names
from migrations.request import Embeddings


@dataclass(frozen=True)
class Values:
    """A home as its migrations see it.

    Attributes:
        embeddings: What its vectors look like, None where there are none; `extension_schema` counts only with them.
    """

    schema: str
    dataset: str
    search_config: str
    names: Names
    ttl_days: int
    legal_hold: bool
    embeddings: Embeddings | None
    extension_schema: str

    def placeholders(self) -> dict[str, sql.Composable]:
        """Gives a value for each placeholder that a file of the home's modules may have."""
        values: dict[str, sql.Composable] = {
            "schema": sql.Identifier(self.schema),
            "dataset": sql.Literal(self.dataset),
            "search_config": sql.Literal(self.search_config),
            "owner": sql.Identifier(self.names.owner),
            "writer": sql.Identifier(self.names.writer),
            "reader": sql.Identifier(self.names.reader),
            "ttl_days": sql.Literal(self.ttl_days),
            "legal_hold": sql.Literal(self.legal_hold),
        }
        if self.embeddings:
            values.update(embeddings.placeholders(self.embeddings, self.extension_schema))
        return values
