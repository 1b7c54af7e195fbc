"""Nothing in the cluster shows what only the connection Secrets may hold."""

import base64
import json
import re

import pytest

from tests.e2e.kube import SYSTEM, Kube

pytestmark = pytest.mark.e2e

_BASE64 = re.compile(r"[A-Za-z0-9+/]{24,}={0,2}")


def unpacked(text: str) -> str:
    """A text with everything in it that is base64 of a text once more, decoded."""
    plain = [text]
    for match in _BASE64.findall(text):
        try:
            plain.append(base64.b64decode(match + "=" * (-len(match) % 4)).decode())
        except (ValueError, UnicodeDecodeError):
            continue
    return "\n".join(plain)


def place(body: dict[str, object]) -> str:
    """Kind, namespace and name of an object."""
    metadata = body["metadata"]
    assert isinstance(metadata, dict)
    return f"{body['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def test_passwords_are_in_the_connection_secrets_only(platform: Kube) -> None:
    """All objects of all kinds, what they hold in base64 included, and all logs."""
    kinds = platform("api-resources", "--verbs=list,get", "-o", "name").split()
    objects = [body for kind in kinds for body in json.loads(platform("get", kind, "-A", "-o", "json"))["items"]]
    bindings = [one for one in objects if one["kind"] == "Secret" and one["type"] == "servicebinding.io/memory"]
    assert bindings, "the suite leaves Memories behind, for this test"
    passwords = {base64.b64decode(one["data"]["password"]).decode(): place(one) for one in bindings}
    [key] = [one for one in objects if place(one) == f"Secret {SYSTEM}/memory-root-key"]
    allowed = set(passwords.values())
    for body in objects:
        text = unpacked(json.dumps(body))
        if place(body) in allowed:
            assert [password for password, owner in passwords.items() if password in text] == [
                password for password, owner in passwords.items() if owner == place(body)
            ]
            continue
        assert not [owner for password, owner in passwords.items() if password in text], place(body)
        if body is not key:
            assert key["data"]["current"] not in text, place(body)


def test_no_log_holds_a_password(platform: Kube) -> None:
    secrets = platform.list("secrets")
    passwords = [
        base64.b64decode(one["data"]["password"]).decode()
        for one in secrets
        if one["type"] == "servicebinding.io/memory"
    ]
    read = 0
    for pod in platform.list("pods"):
        metadata = pod["metadata"]
        done = platform.run("logs", metadata["name"], "-n", metadata["namespace"], "--all-containers", "--tail=-1")
        read += done.returncode == 0
        assert not [password for password in passwords if password in done.stdout], metadata["name"]
    assert read
