"""The commands on Redis: each reads its request, does the work, and gives the report."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from migrations.composites import Cluster
from migrations.deadline import Deadline
from migrations.errors import Code
from migrations.redis import maintenance
from migrations.redis import plan as ahead
from migrations.redis import probe as looking
from migrations.redis import provision as provisioning
from migrations.redis import reap as reaping
from migrations.redis.connection import Admin
from migrations.redis.request import MaintainRequest, ProbeRequest, ProvisionRequest, ReapRequest
from migrations.report import Report
from migrations.request import parse, read_file


def provision(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Makes the home of a Memory what its request says."""
    request = parse(raw, ProvisionRequest)
    done = provisioning.provision(request, Admin.load(request.provider, directory), deadline)
    return Report(request.hash, Code.SUCCEEDED, f'prefix "{request.prefix}" is ready', details=asdict(done))


def plan(raw: Any, directory: Path, _deadline: Deadline) -> Report:
    """Says what `provision` would do, and changes nothing."""
    request = parse(raw, ProvisionRequest)
    made = ahead.plan(request, Admin.load(request.provider, directory))
    return Report(request.hash, Code.SUCCEEDED, made.message, details=asdict(made))


def probe(raw: Any, directory: Path, _deadline: Deadline) -> Report:
    """Says what the server is and lets us do."""
    request = parse(raw, ProbeRequest)
    admin = Admin.load(request.provider, directory)
    described, warnings, error = looking.probe(admin)
    details = {"server": described, "warnings": warnings, "caBundle": read_file(admin.ca) if admin.ca else ""}
    if error:
        return Report(request.hash, error.code, error.message, details=details)
    return Report(request.hash, Code.SUCCEEDED, f"{admin.server} is ready for Memories", details=details)


def reap(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Closes the logins of Memories that are gone, and drops what may be dropped."""
    request = parse(raw, ReapRequest)
    done = reaping.reap(request, Admin.load(request.provider, directory), Cluster(request), deadline)
    return Report(request.hash, done.code, done.message, details={"homes": done.counts})


def maintain(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Looks after every home of a provider."""
    request = parse(raw, MaintainRequest)
    done = maintenance.maintain(request, Admin.load(request.provider, directory), deadline)
    return Report(request.hash, done.code, done.message, details={"homes": done.counts})
