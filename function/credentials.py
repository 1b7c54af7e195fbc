"""Passwords that are derived, never stored, and the verifiers that backends get instead of them.

A password is a function of the root key and of public facts, so losing every Secret loses nothing, and rendering is
repeatable. The composite's uid is one of the facts: a claim that is deleted and made again never brings an old password
back.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from function.errors import InvalidSpec
from function.lazy import cached_property

if TYPE_CHECKING:
    from collections.abc import Mapping

MIN_KEY_BYTES = 32
# RFC 7677's minimum, and what PostgreSQL itself uses.
SCRAM_ITERATIONS = 4096
_CACHED_VERIFIERS = 4096

_verifiers: dict[bytes, str] = {}


@dataclass(frozen=True)
class RootKey:
    """A root key; its id is public (the first 8 hex of its SHA-256)."""

    secret: bytes

    @cached_property
    def key_id(self) -> str:
        """What stands in the request document and in `status.credentials.keyId`."""
        return hashlib.sha256(self.secret).hexdigest()[:8]

    def derive(self, purpose: str, *facts: str) -> bytes:
        """HMAC-SHA256 over NUL-joined facts: 32 bytes."""
        message = "\0".join([purpose, self.key_id, *facts]).encode()
        return hmac.digest(self.secret, message, "sha256")

    def __repr__(self) -> str:
        """Show the id only: a repr ends up in logs."""
        return f"RootKey({self.key_id})"


@dataclass(frozen=True)
class KeyRing:
    """The current root key and, while it is being replaced, the previous one."""

    current: RootKey
    previous: RootKey | None = None

    @classmethod
    def read(cls, credential: str, data: Mapping[str, bytes]) -> KeyRing:
        """Read a pipeline credential.

        Raises:
            InvalidSpec: A key is too short to be one.
        """
        keys = {}
        for name in ("current", "previous"):
            secret = data.get(name, b"")
            if secret and len(secret) < MIN_KEY_BYTES:
                problem = f"the root key has {len(secret)} bytes: write at least {MIN_KEY_BYTES} random ones"
                field = f'credential "{credential}" key "{name}"'
                raise InvalidSpec(field, problem)
            if secret:
                keys[name] = RootKey(secret)
        if "current" not in keys:
            field = f'credential "{credential}" key "current"'
            raise InvalidSpec(field, "there is no root key in it: add it")
        return cls(keys["current"], keys.get("previous"))

    def known_as(self, key_id: str) -> RootKey | None:
        """Give the key of that id, None when nobody knows it any more."""
        candidates = (self.current, self.previous)
        return next((key for key in candidates if key and key.key_id == key_id), None)


@dataclass(frozen=True)
class Login:
    """One login of one Memory: what its password is derived from."""

    identity: str
    uid: str
    name: str
    epoch: int

    def password(self, key: RootKey) -> str:
        """43 characters of base64url; the same facts give the same password for ever."""
        return urlsafe_b64encode(key.derive("memory/v1", *self._facts)).decode().rstrip("=")

    def verifier(self, key: RootKey) -> str:
        """SCRAM-SHA-256 verifier (RFC 5803, as PostgreSQL stores it) with a derived 16-byte salt.

        It costs 1.3 ms, so it is kept by a digest of its inputs; neither key nor password is.
        """
        secret = key.derive("memory/v1", *self._facts)
        known_as = hashlib.sha256(secret).digest()
        if known_as not in _verifiers:
            if len(_verifiers) >= _CACHED_VERIFIERS:
                _verifiers.clear()
            salt = key.derive("memory/v1/salt", *self._facts)[:16]
            _verifiers[known_as] = scram_sha_256(self.password(key), salt)
        return _verifiers[known_as]

    def digest(self, key: RootKey) -> str:
        """SHA-256 of the password, 64 hex: Redis's own form of a verifier."""
        return hashlib.sha256(self.password(key).encode()).hexdigest()

    @property
    def _facts(self) -> tuple[str, ...]:
        return (self.identity, self.uid, self.name, str(self.epoch))


def scram_sha_256(password: str, salt: bytes) -> str:
    """Give PostgreSQL's form of a SCRAM-SHA-256 verifier: the server can check the password and never learns it."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    encoded = [b64encode(part).decode() for part in (salt, stored_key, server_key)]
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
