"""The demo is an app like any other: with another provider it runs as it is, and tells the same story."""

from pathlib import Path

import pytest

from memory_client import Memory
from memoryctl import demo
from tests.client.backends import Backend, Place

STORY = """\
Appended  event 1
Appended  event 2
Appended  event 2 again: recognised, not stored twice
Read      2 events back
Set       mood = 'curious', version 1
"""


def test_it_tells_the_same_story_on_every_backend(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    demo.run(place.binding)
    said = capsys.readouterr().out
    assert said.startswith(f"Connected to {(place.binding / 'endpoint').read_text()} (")
    assert STORY in said
    with Memory.from_binding(place.binding) as memory:
        if not memory.capabilities.embeddings:
            assert said.endswith("This Memory has no embeddings\n")
            return
    by_vector, by_words, by_both = (part.splitlines()[1:] for part in said.split("Search by ")[1:])
    assert [len([line for line in lines if line]) for lines in (by_vector, by_words, by_both)] == [3, 1, 3]
    assert by_words[0].endswith("Dentist appointment moved to Tuesday at nine")
    assert any(line.endswith("a little vinegar") for line in by_both)


def test_it_says_when_there_are_no_embeddings(
    backend: Backend, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.run(backend.place(tmp_path / "binding", embeddings=False).binding)
    assert capsys.readouterr().out.endswith(f"{STORY}This Memory has no embeddings\n")
