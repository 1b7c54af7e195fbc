"""A cluster with the packages, installed the way docs/install.md says: fixtures of the end-to-end suite.

Taken from the environment, so that any cluster will do (kind, or a real one that may be filled with test objects):

- `MEMORY_KUBECONFIG`: a cluster with Crossplane and CloudNativePG; its user may do everything
- `REGISTRY`: where `make publish` has put images and packages, as the cluster's nodes and Crossplane see it
- `CROSSPLANE_CLI`: the `crossplane` command, unless it is on the PATH; `kubectl` is
- `MEMORY_POSTGRES_IMAGE`: PostgreSQL with pgvector for CloudNativePG, unless the operator's default has it
- `MEMORY_PGBOUNCER_IMAGE`: PgBouncer for CloudNativePG's Pooler, as `/usr/bin/pgbouncer`, for any user
- for other backends, the images that `tests/e2e/servers.py` names

The suite leaves the packages and the database where they are until its last test, which uninstalls them.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.e2e import guide
from tests.e2e.kube import CNPG, Kube
from tests.e2e.times import Measured
from tests.servers import require

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture(scope="session")
def kube() -> Kube:
    """The cluster, through kubectl."""
    kubeconfig = require(os.environ.get("MEMORY_KUBECONFIG"), "MEMORY_KUBECONFIG names no cluster to test on")
    require(shutil.which("kubectl"), "kubectl is not on the PATH")
    cluster = Kube(kubeconfig)
    for kind, what in (("functions.pkg.crossplane.io", "Crossplane"), (CNPG, "CloudNativePG")):
        assert cluster.find("crd", kind), f"the cluster of MEMORY_KUBECONFIG has no {what}: install it first"
    return cluster


@pytest.fixture(scope="session")
def environment(kube: Kube, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What the guide's commands need: a cluster, a registry, a version, and `crossplane` on the PATH."""
    registry = require(os.environ.get("REGISTRY"), "REGISTRY names no registry that holds the packages")
    cli = require(
        shutil.which(os.environ.get("CROSSPLANE_CLI", "crossplane")), "no `crossplane` on the PATH (or CROSSPLANE_CLI)"
    )
    path = tmp_path_factory.mktemp("bin")
    (path / "crossplane").symlink_to(cli)
    return {
        "KUBECONFIG": kube.kubeconfig,
        "REGISTRY": registry,
        "VERSION": f"v{version()}",
        "PATH": f"{path}{os.pathsep}{os.environ['PATH']}",
    }


def version() -> str:
    """The version of this checkout."""
    project: dict[str, str] = tomllib.loads((guide.ROOT / "pyproject.toml").read_text())["project"]
    return project["version"]


@pytest.fixture(scope="session")
def measured(pytestconfig: pytest.Config) -> Measured:
    """Takes what the end of the run reports."""
    return Measured(pytestconfig)


@pytest.fixture(scope="session")
def installed(kube: Kube, environment: Mapping[str, str], measured: Measured) -> Kube:
    """The cluster with root key and packages."""
    with measured.seconds("install: root key, rights, both packages Healthy"):
        for section in ("Root key", "Install"):
            guide.follow(section, environment)
    return kube
