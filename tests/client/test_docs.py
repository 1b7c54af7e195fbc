"""What the documents and docstrings of the client show is done here, on a real PostgreSQL."""

import doctest
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memory_client
from memory_client import Embedding, Memory, OfflineQueue
from memory_client.memory import Embeddings, Events, KeyValues
from tests.client.backends import Backend, Machine, Place
from tests.migrations.documents import ROOT

SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def backend(backends: Callable[[str, Machine], Backend], machine: Machine) -> Backend:
    return backends("postgresql-18", machine)


@pytest.fixture
def root(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where one Memory is mounted; files that a snippet writes are elsewhere."""
    root = tmp_path / "root"
    root.mkdir()
    place.binding.rename(root / "notes")
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(root))
    monkeypatch.chdir(tmp_path)
    return root


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("document", ["docs/client.md", "client/README.md", "README.md"])
def test_every_snippet_runs(document: str) -> None:
    names: dict[str, Any] = {}
    snippets = SNIPPET.findall((ROOT / document).read_text())
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, document, "exec"), names)
    if document == "docs/client.md":
        assert names["everything"] == [{"text": "hello"}]
        assert names["older"] == []
        assert {hit.key for hit in names["by_words"]} == {"likes", "trip"}
        assert names["memory"].kv.get("seen").value == ["tunnel"]
        names["memory"].close()


def test_every_error_has_a_line() -> None:
    text = (ROOT / "docs/client.md").read_text()
    errors = [name for name in memory_client.__all__ if isinstance(getattr(memory_client, name), type)]
    kinds = [name for name in errors if issubclass(getattr(memory_client, name), memory_client.MemoryClientError)]
    assert [name for name in kinds if f"`{name}`" not in text] == []


def test_docstrings_show_what_happens(root: Path) -> None:
    """One after the other, on one Memory."""
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    parser = doctest.DocTestParser()
    shown: tuple[Any, ...] = (
        *(Events.append, Events.read, Events.iterate),
        *(KeyValues.get, KeyValues.put, KeyValues.delete),
        *(Embeddings.upsert, Embeddings.delete, Embeddings.search),
        *(Memory, OfflineQueue),
    )
    with Memory.from_binding() as memory:
        for each in shown:
            text = (each.__doc__ or "").replace("/bindings/notes", str(root / "notes"))
            names = {"memory": memory, "Memory": Memory, "Embedding": Embedding}
            example = parser.get_doctest(text, names, each.__qualname__, None, 0)
            assert example.examples, each
            runner.run(example)
    assert runner.summarize().failed == 0
