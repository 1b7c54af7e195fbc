"""Measurements, not tests: `make bench` prints them and writes JSON. Nothing here passes or fails."""

import memoryctl  # noqa: F401 - it says how gRPC and child processes get along, and has to do so before grpc is imported
