"""The commands on S3: each reads its request, does the work, and gives the report."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from migrations.composites import Cluster
from migrations.deadline import Deadline
from migrations.errors import Code
from migrations.homes import reap as reaping
from migrations.report import Report
from migrations.request import parse, read_file
from migrations.s3 import maintain as maintaining
from migrations.s3 import probe as looking
from migrations.s3 import provision as provisioning
from migrations.s3.connection import Admin
from migrations.s3.reap import Reaper
from migrations.s3.request import MaintainRequest, ProbeRequest, ProvisionRequest, ReapRequest


def provision(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Makes the home of a Memory what its request says."""
    request = parse(raw, ProvisionRequest)
    done = provisioning.provision(request, Admin.load(request.provider, directory), directory, deadline)
    message = f"s3://{request.database}/{request.prefix} is ready"
    return Report(request.hash, Code.SUCCEEDED, message, details=asdict(done))


def plan(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Says what `provision` would do, and changes nothing."""
    request = parse(raw, ProvisionRequest)
    made = provisioning.plan(request, Admin.load(request.provider, directory), directory, deadline)
    return Report(request.hash, Code.SUCCEEDED, made.message, details=asdict(made))


def probe(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Says what the server is and lets us do."""
    request = parse(raw, ProbeRequest)
    admin = Admin.load(request.provider, directory)
    facts, error = looking.probe(request, admin, deadline)
    details = {
        "server": facts.described() if facts else {"version": "", "capabilities": []},
        "caBundle": read_file(admin.ca) if admin.ca else "",
    }
    if error:
        return Report(request.hash, error.code, error.message, details=details)
    return Report(request.hash, Code.SUCCEEDED, f"{admin.server} is ready for Memories", details=details)


def reap(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Closes the logins of Memories that are gone, and drops what may be dropped."""
    request = parse(raw, ReapRequest)
    with Admin.load(request.provider, directory).connect(deadline) as connection:
        done = reaping.reap(request, Reaper(connection, request.provider, deadline), Cluster(request), deadline)
    return Report(request.hash, done.code, done.message, details={"homes": done.counts})


def maintain(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Looks after every home of a provider."""
    request = parse(raw, MaintainRequest)
    done = maintaining.maintain(request, Admin.load(request.provider, directory), deadline)
    return Report(request.hash, done.code, done.message, details={"homes": done.counts})
