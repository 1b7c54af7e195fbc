"""Derived passwords and their verifiers."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from function import credentials
from function.credentials import KeyRing, Login, RootKey, scram_sha_256
from function.errors import InvalidSpec

KEY = RootKey(bytes(range(32)))
LOGIN = Login("team-a/notes", "uid-1", "mem_0123456789ab_rw_a", 0)


def test_a_password_is_the_documented_function_of_public_facts() -> None:
    facts = ["memory/v1", KEY.key_id, "team-a/notes", "uid-1", "mem_0123456789ab_rw_a", "0"]
    digest = hmac.digest(KEY.secret, "\0".join(facts).encode(), "sha256")
    password = LOGIN.password(KEY)
    assert b64decode(password.replace("-", "+").replace("_", "/") + "=") == digest
    assert len(password) == 43


def test_a_key_is_named_by_its_digest() -> None:
    assert KEY.key_id == hashlib.sha256(KEY.secret).hexdigest()[:8]
    assert repr(KEY) == f"RootKey({KEY.key_id})"


@given(st.tuples(*[st.text(alphabet="abc/", min_size=1, max_size=4)] * 3), st.integers(0, 9))
def test_every_fact_changes_the_password(facts: tuple[str, str, str], epoch: int) -> None:
    login = Login(*facts, epoch)
    others = [
        Login(facts[0] + "x", facts[1], facts[2], epoch),
        Login(facts[0], facts[1] + "x", facts[2], epoch),
        Login(facts[0], facts[1], facts[2] + "x", epoch),
        Login(*facts, epoch + 1),
    ]
    passwords = {each.password(KEY) for each in (login, *others)} | {login.password(RootKey(bytes(32)))}
    assert len(passwords) == 6


def test_a_verifier_proves_the_password_to_the_server() -> None:
    """RFC 7677's example: what a client with the password sends, checked with the verifier alone."""
    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    _, _, keys = scram_sha_256("pencil", salt).split("$")
    stored_key, server_key = (b64decode(part) for part in keys.split(":"))
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = (f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}").encode()
    proof = b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    signature = hmac.digest(stored_key, message, "sha256")
    client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
    assert hashlib.sha256(client_key).digest() == stored_key
    assert hmac.digest(server_key, message, "sha256") == b64decode("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")


def test_a_verifier_is_the_same_every_time_and_holds_no_password() -> None:
    verifier = LOGIN.verifier(KEY)
    assert verifier == LOGIN.verifier(KEY)
    assert verifier.startswith("SCRAM-SHA-256$4096:")
    assert len(b64decode(verifier.split(":")[1].split("$")[0])) == 16
    assert LOGIN.password(KEY) not in verifier


def test_verifiers_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_CACHED_VERIFIERS", 2)
    kept = [Login("i", "u", f"login-{number}", 0).verifier(KEY) for number in range(5)]
    assert len(set(kept)) == 5
    assert len(credentials._verifiers) <= 2


def test_a_ring_knows_its_keys() -> None:
    ring = KeyRing.read("root-key", {"current": bytes(32), "previous": KEY.secret})
    assert ring.known_as(KEY.key_id) == KEY
    assert ring.known_as(ring.current.key_id) == ring.current
    assert ring.known_as("00000000") is None


def test_keys_are_bytes_not_text() -> None:
    KeyRing.read("root-key", {"current": b"\xff" * 32})


def test_a_short_previous_key_is_told() -> None:
    with pytest.raises(InvalidSpec, match='key "previous": the root key has 3 bytes: write at least 32'):
        KeyRing.read("root-key", {"current": bytes(32), "previous": b"abc"})
