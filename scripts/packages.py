"""`make packages`: build/packages/{function,configuration}-memory-v<version>.xpkg, with the crossplane CLI.

The function's package embeds its runtime image. The Compositions in the Configuration get what is not known before:
the name that Crossplane gives the function there, and the reference of the migrations image.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import yaml

from scripts.images import IMAGES, run
from scripts.project import BUILD, ROOT, TAG, UserError, dependency_name, program, registry

if TYPE_CHECKING:
    from pathlib import Path

PACKAGES = BUILD / "packages"
FUNCTION, CONFIGURATION, MIGRATIONS = "function-memory", "configuration-memory", "memory-migrations"


def archive(name: str) -> Path:
    """Give the file of a package."""
    return PACKAGES / f"{name}-{TAG}.xpkg"


def cli() -> str:
    """Give the crossplane CLI: CROSSPLANE_CLI, or the one on PATH.

    Raises:
        UserError: There is none.
    """
    wanted = os.environ.get("CROSSPLANE_CLI") or "crossplane"
    found = shutil.which(wanted)
    if not found:
        msg = f"{wanted}: there is no such program: install the crossplane CLI, or name it in CROSSPLANE_CLI"
        raise UserError(msg)
    return found


def build(where: str, migrations: str) -> None:
    """Build both packages.

    Args:
        where: The registry (and path) that they will be installed from.
        migrations: Reference of the migrations image that Jobs will run.
    """
    runtime = IMAGES / "function.tar"
    if not runtime.exists():
        msg = f"{runtime.relative_to(ROOT)} is missing: run make images"
        raise UserError(msg)
    root = PACKAGES / "root"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(ROOT / "package/function", root / FUNCTION)
    _write(root / CONFIGURATION, configuration(where, migrations))
    _pack(root, FUNCTION, f"--embed-runtime-image-tarball={runtime}")
    _pack(root, CONFIGURATION)


def configuration(where: str, migrations: str) -> dict[str, dict[str, Any]]:
    """Give the files of the Configuration: its metadata, the XRDs and the Compositions, and nothing else."""
    metadata = _load(ROOT / "package/configuration/crossplane.yaml")
    (dependency,) = metadata["spec"]["dependsOn"]
    dependency |= {"package": f"{where}/{FUNCTION}", "version": f">={TAG}"}
    files = {"crossplane.yaml": metadata}
    for path in sorted((ROOT / "apis").glob("*/definition.yaml")):
        files[f"apis/{path.parent.name}.yaml"] = _load(path)
    for path in sorted((ROOT / "compositions").glob("*.yaml")):
        composition = _load(path)
        for step in composition["spec"]["pipeline"]:
            step["functionRef"]["name"] = dependency_name(dependency["package"])
            step["input"]["migrations"]["image"] = migrations
        files[f"compositions/{path.name}"] = composition
    return files


def _load(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load(path.read_text())
    return body


def _write(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(body, sort_keys=False, width=120))


def _pack(root: Path, name: str, *options: str) -> None:
    out = archive(name)
    out.unlink(missing_ok=True)
    # Without a folder of examples of its own it would take ours, with everything that the tests keep there.
    examples = root / f"{name}-examples"
    examples.mkdir()
    run(cli(), "xpkg", "build", f"--package-root={root / name}", f"--examples-root={examples}",
        f"--package-file={out}", *options)  # fmt: skip
    print(f"{out.relative_to(ROOT)}: {out.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Build both packages for REGISTRY, with MIGRATIONS_IMAGE."""
    where = registry()
    build(where, os.environ.get("MIGRATIONS_IMAGE") or f"{where}/{MIGRATIONS}:{TAG}")


if __name__ == "__main__":
    program(main)
