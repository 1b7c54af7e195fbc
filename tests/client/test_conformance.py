"""Runs the one suite over every backend."""

from tests.client.conformance import *  # noqa: F403  its tests are collected here
