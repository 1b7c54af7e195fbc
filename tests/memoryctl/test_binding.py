"""A binding directory looks and changes as one that the kubelet mounts."""

import stat
from pathlib import Path

import pytest

from memoryctl import binding
from memoryctl.cluster import Cluster
from memoryctl.objects import make_secret, secret_key


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir() if not path.name.startswith("..")}


def test_each_key_is_a_private_file(tmp_path: Path) -> None:
    directory = tmp_path / "bindings" / "team-a" / "notes-memory"
    binding.write(directory, {"username": b"me", "password": b"secret", "ca.crt": b"PEM"})
    assert contents(directory) == {"username": "me", "password": "secret", "ca.crt": "PEM"}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE((directory / key).stat().st_mode) for key in contents(directory)} == {0o600}


def test_all_keys_change_at_once(tmp_path: Path) -> None:
    binding.write(tmp_path, {"username": b"a", "password": b"1", "gone": b"x"})
    opened = tmp_path / "..data"
    before = opened.resolve()
    binding.write(tmp_path, {"username": b"b", "password": b"2", "new": b"y"})
    assert contents(tmp_path) == {"username": "b", "password": "2", "new": "y"}
    assert opened.resolve() != before
    assert not before.exists()


def test_nothing_is_touched_when_nothing_changes(tmp_path: Path) -> None:
    binding.write(tmp_path, {"username": b"a"})
    before = (tmp_path / "..data").resolve()
    binding.write(tmp_path, {"username": b"a"})
    assert (tmp_path / "..data").resolve() == before


def test_a_write_that_was_interrupted_is_repaired(tmp_path: Path) -> None:
    (tmp_path / "..data_tmp").symlink_to("nowhere")
    (tmp_path / "..data").symlink_to("nowhere")
    binding.write(tmp_path, {"username": b"a"})
    assert contents(tmp_path) == {"username": "a"}


def test_connection_secrets_are_written_by_namespace_and_stale_ones_removed(tmp_path: Path) -> None:
    cluster, root = Cluster(tmp_path / "objects"), tmp_path / "bindings"
    secrets = [secret_key("team-a", "notes-memory"), secret_key("team-b", "notes-memory"), secret_key("db", "admin")]
    types = ["servicebinding.io/memory", "servicebinding.io/memory", "Opaque"]
    for key, kind in zip(secrets, types, strict=True):
        cluster.apply(make_secret(key, {"password": key.namespace.encode()}) | {"type": kind})
    written = binding.write_all(cluster, root)
    assert written == {root / "team-a/notes-memory": ["password"], root / "team-b/notes-memory": ["password"]}
    cluster.delete(secrets[0])
    binding.write_all(cluster, root)
    assert [path.relative_to(root).as_posix() for path in root.glob("*/*")] == ["team-b/notes-memory"]


@pytest.mark.parametrize("name", ["a/b", "../x"])
def test_a_key_is_a_file_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a file"):
        binding.write(tmp_path / "binding", {name: b"x"})
    assert not (tmp_path / "x").exists()
