"""The commands on PostgreSQL: each reads its request, does the work, and gives the report."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from migrations.composites import Cluster
from migrations.deadline import Deadline
from migrations.errors import Code
from migrations.postgres import plan as ahead
from migrations.postgres import probe as looking
from migrations.postgres import provision as provisioning
from migrations.postgres import reap as reaping
from migrations.postgres.connection import Admin
from migrations.postgres.maintenance import run
from migrations.postgres.names import names_for
from migrations.postgres.request import MaintainRequest, ProbeRequest, ProvisionRequest, ReapRequest
from migrations.report import Report
from migrations.request import parse, read_file


def provision(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Makes the home of a Memory what its request says."""
    request = parse(raw, ProvisionRequest)
    done = provisioning.provision(request, provisioning.load_admin(request, directory), deadline)
    return Report(request.hash, Code.SUCCEEDED, f'schema "{request.dataset.home}" is ready', details=asdict(done))


def plan(raw: Any, directory: Path, _deadline: Deadline) -> Report:
    """Says what `provision` would do, and changes nothing."""
    request = parse(raw, ProvisionRequest)
    made = ahead.plan(request, provisioning.load_admin(request, directory))
    return Report(request.hash, Code.SUCCEEDED, made.message, details=asdict(made))


def probe(raw: Any, directory: Path, _deadline: Deadline) -> Report:
    """Says what the server is and lets us do."""
    request = parse(raw, ProbeRequest)
    if request.provider.role_management == "CNPG":
        return _knock(request, directory)
    admin = Admin.load(request.provider, directory)
    facts, error = looking.probe(request, admin)
    details = {
        "server": facts.described() if facts else {"version": "", "capabilities": []},
        "caBundle": read_file(admin.ca) if admin.ca else "",
    }
    if error:
        return Report(request.hash, error.code, error.message, sqlstate=error.sqlstate, details=details)
    return Report(request.hash, Code.SUCCEEDED, f"{admin.server} is ready for Memories", details=details)


def reap(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Closes the logins of Memories that are gone, and drops what may be dropped."""
    request = parse(raw, ReapRequest)
    admin = Admin.load(request.provider, directory)
    done = reaping.reap(request, admin, Cluster(request), deadline)
    return Report(request.hash, done.code, done.message, details={"homes": done.counts})


def maintain(raw: Any, directory: Path, deadline: Deadline) -> Report:
    """Looks after every home of a provider."""
    request = parse(raw, MaintainRequest)
    admin = Admin.load(request.provider, directory)
    if request.memory:
        names = names_for(request.memory.identity, request.provider.database, request.memory.home, "Database")
        admin = Admin.load(request.provider, directory, request.memory.database, names.owner)
    done = run.maintain(request, admin, deadline)
    return Report(request.hash, done.code, done.message, details={"homes": done.counts})


def _knock(request: ProbeRequest, directory: Path) -> Report:
    """Probes where there is no admin: that the server answers is all that can be known."""
    door = Admin.without_login(request.provider, directory)
    error = looking.knock(door)
    details = {
        "server": {"version": "", "capabilities": []},
        "caBundle": read_file(door.ca) if door.ca else "",
    }
    if error:
        return Report(request.hash, error.code, error.message, details=details)
    return Report(request.hash, Code.SUCCEEDED, f"{door.server} answers", details=details)
