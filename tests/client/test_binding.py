"""Bindings, as servicebinding.io mounts them and the kubelet exchanges them."""

import shutil
import threading
from pathlib import Path

import pytest

from memory_client import AsyncMemory, BindingError, Memory, MemoryClientError, Unsupported, binding
from memory_client.opening import open_store
from tests.client.backends import mount

VALUES = {
    "type": "postgresql",
    "provider": "pg",
    "endpoint": "db.example:5432",
    "database": "app",
    "schema": "notes",
    "username": "user",
    "password": "secret",
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SERVICE_BINDING_ROOT", str(tmp_path / "bindings"))
    (tmp_path / "bindings").mkdir()
    return tmp_path / "bindings"


def test_what_is_promised_is_enough(tmp_path: Path) -> None:
    found = binding.read(mount(tmp_path / "notes", VALUES))
    assert (found.host, found.port, found.database, found.schema) == ("db.example", 5432, "app", "notes")
    assert (found.dataset, found.dimension, found.metric, found.sslmode, found.ca, found.region) == (None,) * 6
    assert "secret" not in repr(found)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "postgresql"),
        ({"schema": "memory:{notes.0123456789ab}:", "database": "0"}, "redis"),
        ({"schema": "notes-0123456789ab/", "endpoint": "https://s3.example"}, "s3"),
    ],
    ids=["postgresql", "redis", "s3"],
)
def test_the_type_can_be_told_from_what_is_promised(tmp_path: Path, changes: dict[str, str], kind: str) -> None:
    values = {name: value for name, value in VALUES.items() if name in binding.PROMISED} | changes
    assert binding.read(mount(tmp_path / "notes", values)).type == kind


def test_what_is_there_besides_is_read(tmp_path: Path) -> None:
    more = {
        "dataset": "notes",
        "dimension": "768",
        "metric": "l2",
        "sslmode": "verify-full",
        "ca.crt": "PEM",
        "own": "1",
    }
    found = binding.read(mount(tmp_path / "notes", VALUES | more | {"endpoint": "[2001:db8::1]:5432"}))
    assert (found.host, found.port) == ("2001:db8::1", 5432)
    assert (found.dataset, found.dimension, found.metric, found.sslmode) == ("notes", 768, "l2", "verify-full")
    assert (found.ca, found.ca_file.read_text(), found.values["own"]) == ("PEM", "PEM", "1")


def test_a_secret_made_by_hand_ends_its_values_with_a_newline(tmp_path: Path) -> None:
    for name, value in VALUES.items():
        (tmp_path / name).write_text(f"{value}\n")
    assert binding.read(tmp_path).password == "secret"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"password": ""}, "it has no password"),
        ({"endpoint": "db.example"}, "it should be host:port"),
        ({"endpoint": "db.example:pg"}, "it should be host:port"),
        ({"dimension": "many"}, "it should be a number"),
    ],
    ids=["incomplete", "no port", "no number", "dimension"],
)
def test_what_is_no_binding_of_a_memory_gets_a_sentence(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    mount(tmp_path / "notes", VALUES | changes)
    with pytest.raises(BindingError, match=said) as error:
        binding.read(tmp_path / "notes")
    assert "secret" not in str(error.value)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BindingError, match="nowhere is not there"):
        Memory.from_binding(tmp_path / "nowhere")
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling" / "..data").symlink_to("nothing")
    with pytest.raises(BindingError, match="dangling is not there"):
        binding.read(tmp_path / "dangling")
    (tmp_path / "file").touch()
    with pytest.raises(BindingError, match="file cannot be read: Not a directory"):
        binding.read(tmp_path / "file")


def test_the_one_memory_below_the_root_is_found(root: Path) -> None:
    mount(root / "notes", VALUES)
    mount(root / "mail", {"type": "smtp", "host": "mail.example"})
    (root / "..data").mkdir()
    (root / "file").touch()
    assert binding.find(None) == root / "notes"
    with Memory.from_binding():  # connects when it is first asked for something
        pass


def test_without_a_path_or_a_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BindingError, match="it is empty"):
        Memory.from_binding()
    mount(root / "mail", {"type": "smtp", "host": "mail.example"})
    with pytest.raises(BindingError, match=r"mail has no endpoint, database, schema, username, password"):
        AsyncMemory.from_binding()
    mount(root / "notes", VALUES)
    mount(root / "plans", VALUES)
    with pytest.raises(BindingError, match=r"has 2 Memories, notes, plans: say which"):
        Memory.from_binding()
    shutil.rmtree(root)
    with pytest.raises(BindingError, match="that is no directory"):
        Memory.from_binding()
    monkeypatch.delenv("SERVICE_BINDING_ROOT")
    with pytest.raises(BindingError, match="SERVICE_BINDING_ROOT is not set"):
        Memory.from_binding()


def test_what_is_read_is_of_one_moment(tmp_path: Path) -> None:
    """The kubelet exchanges all files at once: nobody gets the old user with the new password."""
    mount(tmp_path / "notes", VALUES)
    ended = threading.Event()

    def rotate() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            mount(tmp_path / "notes", VALUES | {"username": f"user-{number}", "password": f"user-{number}"})

    thread = threading.Thread(target=rotate)
    mount(tmp_path / "notes", VALUES | {"username": "user-0", "password": "user-0"})
    thread.start()
    try:
        seen = [binding.read(tmp_path / "notes") for _ in range(300)]
    finally:
        ended.set()
        thread.join()
    assert all(found.username == found.password for found in seen)
    assert len({found.username for found in seen}) > 1


def test_a_type_that_nobody_knows_is_named(tmp_path: Path) -> None:
    mount(tmp_path / "notes", VALUES | {"type": "mariadb"})
    with pytest.raises(Unsupported, match='type "mariadb": this one knows postgresql, redis, s3'):
        Memory.from_binding(tmp_path / "notes")


def test_an_extra_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = binding.read(mount(tmp_path / "notes", VALUES))
    monkeypatch.setitem(__import__("sys").modules, "memory_client.stores.postgres", None)
    with pytest.raises(MemoryClientError, match=r'pip install "memory-client\[postgres\]"'):
        open_store(found, timeout=1, connections=1)
