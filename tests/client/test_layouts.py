"""The layouts of docs/redis.md and docs/s3.md: what a client in another language writes so, this one reads."""

import base64
import hashlib
import re
import shlex
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memory_client import Memory
from tests.client.backends import Backend, Machine
from tests.client.redisbackend import RedisBackend
from tests.client.s3backend import S3Backend
from tests.migrations.documents import ROOT

VECTOR = struct.pack("<3f", 1, 0, 0)


def snippets(document: str, kind: str) -> list[str]:
    found = re.findall(rf"```{kind}\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert found
    return found


def reads_what_was_written(binding: Path) -> None:
    with Memory.from_binding(binding) as memory:
        first = next(event for event in memory.events.iterate() if event.payload == {"text": "hello"})
        assert first.type == "message"
        assert first.created_at.timestamp() == pytest.approx(1763760000.123, abs=0.001)
        again = memory.events.append("message", {"text": "again"}, event_id="17", source="queue")
        assert (again.id, again.created_at, again.duplicate) == (first.id, first.created_at, True)
        value = memory.kv.get("mood")
        assert value is not None
        assert (value.value, value.version) == ("curious", 1)
        assert memory.kv.put("mood", "calm", expected_version=1) == 2
        [hit] = memory.embeddings.search([1, 0, 0], where={"who": "anna"})
        assert (hit.key, hit.chunk, hit.content) == ("likes", 0, "Anna likes green tea")
        assert hit.distance == pytest.approx(0)
        assert [hit.key for hit in memory.embeddings.search(query="green tea")] == ["likes"]
        assert (memory.status().keys, memory.status().embeddings) == (1, 1)
        assert memory.embeddings.delete("likes") == 1
        assert memory.kv.delete("mood", expected_version=2)


def test_redis(backends: Callable[[str, Machine], Backend], machine: Machine, tmp_path: Path) -> None:
    backend = backends("redis-8", machine)
    assert isinstance(backend, RedisBackend)
    place = backend.place(tmp_path / "binding")
    with place.document.connect() as writer:
        for command in (line for block in snippets("docs/redis.md", "redis") for line in block.splitlines()):
            words: list[Any] = [word.replace("P:", place.prefix, 1) for word in shlex.split(command)]
            answer = writer.execute_command(*(VECTOR if word == "<vector>" else word for word in words))
            if words[0] in ("HMGET", "VCARD", "VSIM", "VGETATTR") and "expires_at" not in words[2:4]:
                assert answer, command
            if words[0] == "EXEC":
                assert answer
                assert not any(isinstance(each, Exception) for each in answer)
    reads_what_was_written(place.binding)


@pytest.mark.long
@pytest.mark.xdist_group("rgw")
def test_s3(backends: Callable[[str, Machine], Backend], machine: Machine, tmp_path: Path) -> None:
    backend = backends("s3", machine)
    assert isinstance(backend, S3Backend)
    place = backend.place(tmp_path / "binding")
    with place.home.document.client() as writer:
        for block in snippets("docs/s3.md", "http"):
            head, body = block.strip().split("\n\n")
            (verb, name), *headers = (line.split(" ", 1) for line in head.splitlines())
            assert verb == "PUT"
            writer.put_object(
                Bucket=place.home.document.home,
                Key=place.prefix + name,
                Body=body.encode(),
                ContentMD5=base64.b64encode(hashlib.md5(body.encode()).digest()).decode(),
                Metadata={"sha256": hashlib.sha256(body.encode()).hexdigest()},
                **{key.strip(":").replace("-", ""): value for key, value in headers},
            )
    reads_what_was_written(place.binding)
