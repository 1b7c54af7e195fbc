"""Migration files: reading, checksums, and the one function that puts values into them."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

FOLDER = Path(__file__).parent / "sql"
ALONE = "-- memory: no-transaction"

_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_PLACEHOLDER = re.compile(r"@\{([a-z_]+)\}")
_CONCURRENT_INDEX = re.compile(
    r'\bINDEX\s+CONCURRENTLY\s+(?:IF\s+NOT\s+EXISTS\s+)?"?([a-z_][a-z0-9_]*)"?\s+ON\b', re.IGNORECASE
)


@dataclass(frozen=True)
class File:
    """One migration as it stands in the folder, unrendered, with line endings normalised."""

    module: str
    version: str
    name: str
    text: str

    @property
    def title(self) -> str:
        """The file as a person finds it: `core/0001_events.sql`."""
        return f"{self.module}/{self.version}_{self.name}.sql"

    @property
    def sha256(self) -> str:
        """Of the unrendered text: the same for every Memory."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def alone(self) -> bool:
        """Whether PostgreSQL refuses its statement inside a transaction."""
        return self.text.startswith(ALONE)

    @property
    def index(self) -> str | None:
        """The index that it builds concurrently, which a cancelled run leaves invalid."""
        found = _CONCURRENT_INDEX.search(self.text)
        return found[1] if found else None

    def render(self, values: Mapping[str, sql.Composable]) -> sql.Composed:
        """Puts the values in place of `@{name}`, and touches nothing else: SQL is full of braces and percent signs.

        Raises:
            ValueError: A placeholder has no value.
        """
        parts = _PLACEHOLDER.split(self.text)
        unknown = sorted({name for name in parts[1::2] if name not in values})
        if unknown:
            msg = f"{self.title} has placeholders that nobody fills: {', '.join(unknown)}"
            raise ValueError(msg)
        # Every second part is a placeholder's name: that is how re.split gives groups back.
        return sql.Composed([values[part] if position % 2 else sql.SQL(part) for position, part in enumerate(parts)])


def modules(folder: Path = FOLDER) -> tuple[str, ...]:
    """Gives the modules that this image carries."""
    return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))


def read(module: str, folder: Path = FOLDER) -> list[File]:
    """Reads a module's files in their order.

    Raises:
        ValueError: A file's name is not NNNN_<name>.sql, or two have the same number.
    """
    files: dict[str, File] = {}
    for path in sorted((folder / module).glob("*.sql")):
        found = _NAME.fullmatch(path.name)
        if found is None or found[1] in files:
            msg = f"{module}/{path.name}: name it NNNN_<name>.sql, with a number that no other file has"
            raise ValueError(msg)
        text = path.read_bytes().decode().replace("\r\n", "\n")
        files[found[1]] = File(module, found[1], found[2], text)
    return list(files.values())
