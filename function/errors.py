"""Errors that end up as a sentence in front of a user."""

from __future__ import annotations


class InvalidSpec(ValueError):  # noqa: N818 - named as the condition reason that users see
    """A spec breaks a rule that the XRD cannot express.

    Args:
        path: The field, as a user writes it (`spec.postgres.host`).
        problem: What is wrong, the value, and what to write instead.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem


class StartError(Exception):
    """Why the function's process cannot serve, and what to do about it."""
