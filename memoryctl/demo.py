"""An app with a Memory: `python -m memoryctl.demo <binding directory>`.

It knows nothing but the files of the binding, and is the same on every backend: what differs, `capabilities` tell.
An app in a pod does the same with `Memory.from_binding()`, which looks below $SERVICE_BINDING_ROOT.
"""

import hashlib
import math
import re
import sys
from pathlib import Path

from memory_client import Embedding, Memory, MemoryClientError, binding

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
    """The binding is none, or the backend refuses; the message says what."""


def main() -> None:
    """Shows everything that a Memory does, with what the binding holds."""
    if len(sys.argv) != 2:  # noqa: PLR2004  the program's name and one argument
        sys.exit("usage: python -m memoryctl.demo <binding directory>")
    try:
        run(Path(sys.argv[1]))
    except ClientError as error:
        sys.exit(f"demo: {error}")


def run(directory: Path) -> None:
    """Uses the Memory that a binding directory leads to.

    Raises:
        ClientError: It cannot be used.
    """
    try:
        found = binding.read(directory)
        with Memory.from_binding(directory) as memory:
            backend = memory.capabilities.backend
            print(f"Connected to {found.endpoint} ({backend}), database {found.database}, schema {found.schema}")
            print(f"as {found.username}, with nothing but {directory}")
            show(memory)
    except MemoryClientError as error:
        raise ClientError(str(error)) from error


def show(memory: Memory) -> None:
    """Appends events, sets a key, stores embeddings, and searches."""
    append_events(memory)
    set_key(memory)
    size = memory.capabilities.dimension
    if size is None:
        print("This Memory has no embeddings")
        return
    memory.embeddings.upsert(Embedding(key, embed(text, size), text) for key, text in NOTES.items())
    print(f"Stored    {len(NOTES)} notes with embeddings of {size} dimensions")
    search(memory, question="when is the bakery invoice due", vector=embed("bakery invoice due", size))
    search(memory, question="dentist", words="dentist")
    search(memory, question="soup, paprika", vector=embed("soup with vinegar", size), words="paprika")


def append_events(memory: Memory) -> None:
    """Appends two events and delivers one of them again, as a queue would."""
    for event_id, text in (("1", "hello"), ("2", "remember the bakery"), ("2", "remember the bakery")):
        appended = memory.events.append("message", {"text": text}, event_id=event_id, source="demo")
        print(f"Appended  event {event_id}{' again: recognised, not stored twice' if appended.duplicate else ''}")
    print(f"Read      {len(memory.events.read())} events back")


def set_key(memory: Memory) -> None:
    """Sets a key and reads it."""
    memory.kv.put("mood", "curious")
    mood = memory.kv.get("mood")
    if mood:
        print(f"Set       mood = {mood.value!r}, version {mood.version}")


def search(memory: Memory, *, question: str, vector: list[float] | None = None, words: str | None = None) -> None:
    """Searches and prints the best results."""
    by = " and ".join(name for name, value in (("vector", vector), ("words", words)) if value)
    print(f'\nSearch by {by}: "{question}"')
    for hit in memory.embeddings.search(vector, query=words, limit=RESULTS):
        near = "        " if hit.distance is None else f"{hit.distance:8.3f}"
        print(f"{near}  {hit.key:<8}  {hit.content}")


def embed(text: str, dimension: int) -> list[float]:
    """Gives a vector of a text: each word hashed to a few positions, no model needed.

    Texts that share words are near each other. A real app calls a model here.
    """
    vector = [0.0] * dimension
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(word.encode()).digest()
        for start in range(0, 3 * POSITIONS_PER_WORD, 3):
            position = int.from_bytes(digest[start : start + 3]) % dimension
            vector[position] += 1.0 if digest[-1 - start // 3] % 2 else -1.0
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


if __name__ == "__main__":
    main()
