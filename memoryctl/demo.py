"""A client of a Memory: `python -m memoryctl.demo <binding directory>`.

It knows nothing but the files of the binding, and asks for the five that are promised: endpoint, database, schema,
username, password. An app in a pod does the same below $SERVICE_BINDING_ROOT.
"""

import hashlib
import math
import re
import sys
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

Connection = psycopg.Connection[tuple[object, ...]]

PROMISED = ("endpoint", "database", "schema", "username", "password")
NOTES = {
    "bakery": "The invoice of the bakery on Mill Street is due on Friday",
    "dentist": "Dentist appointment moved to Tuesday at nine",
    "router": "The router in the attic restarts when the heating starts",
    "recipe": "Anna's lentil soup: cumin, smoked paprika, a little vinegar",
    "train": "The last train home leaves the central station at midnight",
}
POSITIONS_PER_WORD = 8
RESULTS = 3


class ClientError(Exception):
    """The binding is none, or the server refuses; the message says what."""


def main() -> None:
    """Shows everything that a Memory does, with what the binding holds."""
    if len(sys.argv) != 2:  # noqa: PLR2004  the program's name and one argument
        sys.exit("usage: python -m memoryctl.demo <binding directory>")
    try:
        run(Path(sys.argv[1]))
    except ClientError as error:
        sys.exit(f"demo: {error}")


def run(binding: Path) -> None:
    """Uses the Memory that a binding directory leads to.

    Raises:
        ClientError: It cannot be used.
    """
    try:
        memory = connect(binding)
        with memory.connection:
            show(memory)
    except psycopg.Error as error:
        raise ClientError(" ".join(str(error).split())) from error


class Memory:
    """A connection and the schema that its functions are in: named in every call, so that no search path matters."""

    def __init__(self, connection: Connection, schema: str) -> None:
        self.connection = connection
        self._schema = sql.Identifier(schema)

    def rows(self, query: LiteralString, *parameters: object) -> list[tuple[object, ...]]:
        """Gives the rows of a query; {} in it is the schema."""
        return self.connection.execute(sql.SQL(query).format(self._schema), parameters).fetchall()


def connect(binding: Path) -> Memory:
    """Connects with a binding; with its CA, when it has one.

    Raises:
        ClientError: A promised key is missing.
    """
    missing = [key for key in PROMISED if not (binding / key).is_file()]
    if missing:
        msg = f"{binding} is not the binding of a Memory: it has no {', '.join(missing)} (memoryctl up writes it)"
        raise ClientError(msg)
    values = {key: (binding / key).read_text() for key in PROMISED}
    host, _, port = values["endpoint"].rpartition(":")
    connection: Connection = psycopg.connect(
        host=host,
        port=port,
        dbname=values["database"],
        user=values["username"],
        password=values["password"],
        sslmode=(binding / "sslmode").read_text() if (binding / "sslmode").is_file() else "prefer",
        sslrootcert=str(binding / "ca.crt") if (binding / "ca.crt").is_file() else None,
        autocommit=True,
    )
    print(f"Connected to {values['endpoint']}, database {values['database']}, schema {values['schema']}")
    print(f"as {values['username']}, with nothing but {binding}")
    return Memory(connection, values["schema"])


def show(memory: Memory) -> None:
    """Appends events, sets a key, stores embeddings, and searches."""
    [(dataset, dimension)] = memory.rows("SELECT dataset, embedding_dimension FROM {}.memory_datasets")
    append_events(memory, dataset)
    set_key(memory, dataset)
    if dimension is None:
        print("This Memory has no embeddings")
        return
    size = int(str(dimension))
    for key, text in NOTES.items():
        memory.rows("SELECT {}.memory_upsert_embedding(%s, %s, %s, %s)", dataset, key, embed(text, size), text)
    print(f"Stored    {len(NOTES)} notes with embeddings of {size} dimensions")
    search(memory, dataset, question="when is the bakery invoice due", vector=embed("bakery invoice due", size))
    search(memory, dataset, question="dentist", words="dentist")
    search(memory, dataset, question="soup, paprika", vector=embed("soup with vinegar", size), words="paprika")


def append_events(memory: Memory, dataset: object) -> None:
    """Appends two events and delivers one of them again, as a queue would."""
    for event_id, text in (("1", "hello"), ("2", "remember the bakery"), ("2", "remember the bakery")):
        payload = Jsonb({"text": text})
        query: LiteralString = "SELECT duplicate FROM {}.memory_append(%s, 'message', %s, %s, 'demo')"
        [(duplicate,)] = memory.rows(query, dataset, payload, event_id)
        print(f"Appended  event {event_id}{' again: recognised, not stored twice' if duplicate else ''}")
    [(events,)] = memory.rows("SELECT count(*) FROM {}.memory_read(%s)", dataset)
    print(f"Read      {events} events back")


def set_key(memory: Memory, dataset: object) -> None:
    """Sets a key and reads it."""
    memory.rows("SELECT {}.memory_put(%s, 'mood', %s)", dataset, Jsonb("curious"))
    [(value, version)] = memory.rows("SELECT value, version FROM {}.memory_get(%s, 'mood')", dataset)
    print(f"Set       mood = {value!r}, version {version}")


def search(
    memory: Memory, dataset: object, *, question: str, vector: str | None = None, words: str | None = None
) -> None:
    """Searches and prints the best results."""
    by = " and ".join(name for name, value in (("vector", vector), ("words", words)) if value)
    print(f'\nSearch by {by}: "{question}"')
    query: LiteralString = "SELECT distance, key, content FROM {}.memory_search(%s, %s, %s, %s)"
    for distance, key, content in memory.rows(query, dataset, vector, words, RESULTS):
        near = "        " if distance is None else f"{float(str(distance)):8.3f}"
        print(f"{near}  {key:<8}  {content}")


def embed(text: str, dimension: int) -> str:
    """Gives a vector of a text in pgvector's notation: each word hashed to a few positions, no model needed.

    Texts that share words are near each other. A real app calls a model here.
    """
    vector = [0.0] * dimension
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(word.encode()).digest()
        for start in range(0, 3 * POSITIONS_PER_WORD, 3):
            position = int.from_bytes(digest[start : start + 3]) % dimension
            vector[position] += 1.0 if digest[-1 - start // 3] % 2 else -1.0
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return f"[{','.join(f'{value / length:.6g}' for value in vector)}]"


if __name__ == "__main__":
    main()
